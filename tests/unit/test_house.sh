#!/usr/bin/env bash
# The rules that the tree is kept by: who may include whom, file names, sizes, white space, calls that must not be.
# usage: test_house.sh PROGRAM SOURCE_DIR BUILD_DIR
set -euo pipefail
. "$2/tests/prelude.sh"
cd "$source"

# Reads lines from stdin; every one is a failure of the rule named.
none_of() {
    local line
    while IFS= read -r line; do fail "$1: $line"; done
}

tracked() {
    git ls-files -co --exclude-standard "$@" 2>/dev/null | while IFS= read -r file; do
        [ -f "$file" ] && echo "$file"
    done
}
[ -e .git ] || { echo "skipped: not a git checkout, so what belongs to the tree is not known"; exit 77; }
sources=$(tracked 'src/*.[ch]' 'kernels/*.[ch]' 'offload/*.[ch]' 'quant/*.[ch]' 'tests/*.[ch]' '*.cu' '*.cuh' '*.cc')
[ "$(wc -w <<<"$sources")" -gt 20 ] || fail "only these sources were found: $sources"

# Include directions (docs/design.md, "The house").
declare -A sees=(
    [base]="base"
    [graph]="graph base"
    [plan]="plan graph base"
    [nn]="nn graph base"
    [io]="io base"
    [quant]="quant base"
    [kernels]="kernels quant base"
    [offload]="offload base"
    [exec]="exec plan graph kernels offload base"
    [train]="train exec plan graph nn io kernels quant base"
    [cli]="cli train exec plan graph nn io kernels offload quant base"
)
for file in $sources; do
    case $file in
    src/*) room=${file#src/} room=${room%%/*} ;;
    kernels/*) room=kernels ;;
    offload/*) room=offload ;;
    quant/*) room=quant ;;
    *) continue ;;
    esac
    [ -n "${sees[$room]:-}" ] || { fail "$file: the room $room is not in this test's table"; continue; }
    for header in $(sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$file"); do
        case " ${sees[$room]} " in
        *" ${header%%/*} "*) ;;
        # The CUDA kernels' one door to CUDA opens, in tests, to the shim that runs them on the CPU.
        *) [ "$file $header" = "kernels/cuda/compat.h shim.h" ] || [ -f "$(dirname "$file")/$header" ] || fail "$file: a file of $room includes $header" ;;
        esac
    done
done

# Names are unique in the tree, so that a name alone says which file is meant.
names=$(printf '%s\n' $sources | sed 's,.*/,,' | sort)
none_of "two files have the name" < <(uniq -d <<<"$names")
none_of "not in snake case" < <(grep -vE '^[a-z0-9_]+\.(c|h|cu|cuh|cc)$' <<<"$names")

# Sizes and white space.
scripts=$(tracked '*.sh' '*.py' '*.cmake' '*CMakeLists.txt' '*.def')
none_of "more than 600 lines" < <(wc -l $sources $scripts | awk '$1 > 600 && $2 != "total" {print $2 ", " $1}')
none_of "more than 120 columns" < <(awk 'length > 120 {print FILENAME ":" FNR}' $sources)
none_of "trailing white space" < <(grep -nE '[[:space:]]+$' $sources $scripts)
none_of "a tab" < <(grep -nP '\t' $sources)
# Other versions of clang-format break lines elsewhere.
if command -v clang-format >/dev/null && [[ $(clang-format --version) == *" version 14."* ]]; then
    none_of "not as clang-format has it" < <(clang-format --dry-run $sources 2>&1 | sed -n 's/: warning: .*//p' | head -20)
fi
bytes=$(tracked | xargs -d '\n' stat -c %s | awk '{sum += $1} END {print sum}')
[ "$bytes" -lt $((40 << 20)) ] || fail "the tree has $bytes bytes, more than 40 MiB"

# No shell, no other program, no network, no code from a file: in the sources, and in what the program imports.
calls='system|popen|fork|vfork|exec[lv][pe]*|posix_spawnp?|socket|connect|getaddrinfo|dlopen'
# NVIDIA's libraries are opened where they are found, in one file.
code=$(printf '%s\n' $sources | grep -v '^tests/' | grep -vx kernels/cuda/cuda_libraries.c)
none_of "a call that must not be" < <(grep -nE "(^|[^a-z0-9_.>])($calls) *\(" $code)
if grep -q '^PB_SANITIZE:STRING=$' "$3/CMakeCache.txt"; then
    imports=$(nm -D --undefined-only "$1" | awk '{sub(/@.*/, "", $NF); print $NF}')
    grep -qx malloc <<<"$imports" || fail "the imports of $1 were not read"
    # The CUDA runtime, linked statically, opens the driver, and can talk to NVIDIA's own daemons.
    if grep -q '^PB_NVCC_WORKS:' "$3/CMakeCache.txt"; then calls=${calls//socket|connect|/} calls=${calls%|dlopen}; fi
    none_of "the program imports" < <(grep -xE "$calls" <<<"$imports")
fi

passed "the house is in order: $(wc -w <<<"$sources") C files, $bytes bytes in the tree"
