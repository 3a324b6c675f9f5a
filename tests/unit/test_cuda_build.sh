#!/usr/bin/env bash
# What the build promises of CUDA: a kernel that spills registers does not compile with the flags that ours are compiled
# with, and the program asks for no library of CUDA's when it starts, so that it runs where there is none.
# usage: test_cuda_build.sh PROGRAM SOURCE_DIR BUILD_DIR
set -euo pipefail
failures=0
fail() {
    echo "failed: $*" >&2
    failures=$((failures + 1))
}

needed=$(readelf -dW "$1" | grep NEEDED)
grep -q libc <<<"$needed" || fail "the libraries that $1 needs were not read"
grep -iE 'cuda|cudnn|cublas|nvidia|stdc\+\+' <<<"$needed" && fail "the program needs a library that may not be there"
if [ ! -e "$3/cuda/command.txt" ]; then
    [ "$failures" = 0 ] || exit 1
    echo "skipped: this build is without CUDA"
    exit 77
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/many.cu" <<'END'
__global__ void many_values(float *x) {
    float value[64];
    for (int i = 0; i < 64; i++) value[i] = x[threadIdx.x * 64 + i];
    for (int k = 0; k < 8; k++)
        for (int i = 0; i < 64; i++) value[i] = value[i] * value[(i + 1) % 64] + value[(i + 7) % 64];
    for (int i = 0; i < 64; i++) x[threadIdx.x * 64 + i] = value[i];
}
END
command=$(cat "$3/cuda/command.txt")
$command -c "$folder/many.cu" -o "$folder/many.o" >"$folder/log" 2>&1 || fail "a kernel that fits: $(cat "$folder/log")"
if $command -maxrregcount=32 -c "$folder/many.cu" -o "$folder/many.o" >"$folder/log" 2>&1; then
    fail "a kernel that spills compiles"
fi
grep -qi spill "$folder/log" || fail "a kernel that spills fails for another reason: $(cat "$folder/log")"
[ "$failures" = 0 ] && echo "a spilling kernel is refused; nothing of CUDA is needed to start"
exit $((failures > 0))
