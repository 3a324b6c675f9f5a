#!/usr/bin/env bash
# The program is linked as hardened as the compiler can: position independent, relocations read only and bound at
# start, no executable stack, stack protector, fortified C library calls, no search path of libraries.
# usage: test_hardening.sh PROGRAM SOURCE_DIR BUILD_DIR
set -euo pipefail
if ! grep -q '^PB_SANITIZE:STRING=$' "$3/CMakeCache.txt" || ! grep -q '^CMAKE_BUILD_TYPE:.*=Release$' "$3/CMakeCache.txt"; then
    echo "skipped: only release builds without sanitizers are hardened"
    exit 77
fi
failures=0

has() {
    grep -qE "$2" <<<"$3" || { echo "failed: no $1" >&2; failures=$((failures + 1)); }
}
has_not() {
    ! grep -qE "$2" <<<"$3" || { echo "failed: $1" >&2; failures=$((failures + 1)); }
}

header=$(readelf -hW "$1")
segments=$(readelf -lW "$1")
dynamic=$(readelf -dW "$1")
symbols=$(readelf -W --dyn-syms "$1")
has "position independent executable" 'Type: *DYN' "$header"
has "PIE flag" 'FLAGS_1.*PIE' "$dynamic"
has "RELRO segment" 'GNU_RELRO' "$segments"
has "BIND_NOW" 'BIND_NOW|FLAGS_1.*NOW' "$dynamic"
has "stack that is not executable" 'GNU_STACK.* RW +0x' "$segments"
has "stack protector" '__stack_chk_fail' "$symbols"
has "fortified call" '__(v?snprintf|fprintf|printf|memcpy|read|pread)_chk' "$symbols"
has_not "a relocation in the text" 'TEXTREL' "$dynamic"
has_not "a search path of libraries" 'R(UN)?PATH' "$dynamic"
[ "$failures" = 0 ] && echo "hardened"
exit $((failures > 0))
