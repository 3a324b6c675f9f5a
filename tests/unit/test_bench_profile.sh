#!/usr/bin/env bash
# pagebooth bench --profile writes a profile that reads back, leaves nothing else, and says what is wrong with a command.
# usage: test_bench_profile.sh PROGRAM SOURCE_DIR BUILD_DIR
set -euo pipefail
. "$2/tests/prelude.sh"
build=$3
cd "$work"

"$program" bench --profile first.yaml --nvme store --quick --resolution 64 >out
"$program" bench --profile second.yaml --quick --resolution 64 >/dev/null
"$build/tests/test_machine_profile" --read first.yaml >read || fail "first.yaml does not read back: $(cat read)"
"$build/tests/test_machine_profile" --read second.yaml >/dev/null || fail "second.yaml does not read back"
[ -z "$(ls -A store)" ] || fail "the store left files: $(ls -A store)"
# What is measured differs; what is written, and in which order, does not.
keys() { sed -E 's/[-+0-9.e]+//g' "$1" | grep -v '^#' | sed 's/^\(name\|  [a-z_]*\|[a-z_]*\):.*/\1/'; }
keys first.yaml | grep -v '^  ' >a
keys second.yaml | grep -v '^  ' >b
cmp a b || fail "the two profiles have different keys"
for key in upload download copy_both dram host_adamw nvme_read nvme_write nvme_both; do
    grep -qE "^$key: [1-9]" first.yaml || fail "$key was not measured"
done
grep -qx 'nvme_bytes: 0 .*' second.yaml || fail "second.yaml has a drive that was not asked for"
grep -q '^shared_cores: true' first.yaml || fail "shared_cores is not true"
for op in linear conv2d_bwd_weight attention adamw; do
    grep -qE "^$op +fp32 .*GB/s" out || fail "the table lacks $op"
done

code=0
"$program" bench >out 2>&1 || code=$?
[ "$code" = 2 ] && grep -q -- '--profile is missing' out || fail "without --profile: $code $(cat out)"
code=0
"$program" bench --profile x.yaml --resolution 100 >out 2>&1 || code=$?
[ "$code" = 2 ] && grep -q 'multiple of 64' out || fail "--resolution 100: $code $(cat out)"
[ ! -e x.yaml ] || fail "x.yaml was written"
passed "$(cat read)"
