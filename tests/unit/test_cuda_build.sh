#!/usr/bin/env bash
# What the build promises of CUDA: a kernel that spills registers does not compile with the flags that ours are compiled
# with, and the program asks for no library of CUDA's when it starts, so that it runs where there is none.
# usage: test_cuda_build.sh PROGRAM SOURCE_DIR BUILD_DIR
set -euo pipefail
. "$2/tests/prelude.sh"

needed=$(readelf -dW "$1" | grep NEEDED)
grep -q libc <<<"$needed" || fail "the libraries that $1 needs were not read"
grep -iE 'cuda|cudnn|cublas|nvidia|stdc\+\+' <<<"$needed" && fail "the program needs a library that may not be there"
if [ ! -e "$3/cuda/command.txt" ]; then
    [ "$failures" = 0 ] || exit 1
    echo "skipped: this build is without CUDA"
    exit 77
fi

cat >"$work/many.cu" <<'END'
__global__ void many_values(float *x) {
    float value[64];
    for (int i = 0; i < 64; i++) value[i] = x[threadIdx.x * 64 + i];
    for (int k = 0; k < 8; k++)
        for (int i = 0; i < 64; i++) value[i] = value[i] * value[(i + 1) % 64] + value[(i + 7) % 64];
    for (int i = 0; i < 64; i++) x[threadIdx.x * 64 + i] = value[i];
}
END
command=$(cat "$3/cuda/command.txt")
$command -c "$work/many.cu" -o "$work/many.o" >"$work/log" 2>&1 || fail "a kernel that fits: $(cat "$work/log")"
if $command -maxrregcount=32 -c "$work/many.cu" -o "$work/many.o" >"$work/log" 2>&1; then
    fail "a kernel that spills compiles"
fi
grep -qi spill "$work/log" || fail "a kernel that spills fails for another reason: $(cat "$work/log")"
passed "a spilling kernel is refused; nothing of CUDA is needed to start"
