#!/usr/bin/env bash
# The preload libraries of this folder see and do what the tests that use them rely on.
# usage: test_shims.sh PROGRAM SOURCE_DIR BUILD_DIR
set -euo pipefail
shims=$3/tests/fault
[ -f "$shims/io_fault.so" ] || { echo "skipped: no preload libraries in a build with sanitizers"; exit 77; }
. "$2/tests/prelude.sh"

expect() {  # what, wanted, got
    [ "$2" = "$3" ] || { printf 'failed: %s\nwanted:\n%s\ngot:\n%s\n' "$1" "$2" "$3" >&2; exit 1; }
}

# Every way of asking for memory is counted, in the step that it belongs to.
LD_PRELOAD=$shims/alloc_count.so PB_ALLOC_REPORT=$work/report "$shims/alloc_probe" "$work"
expect "counts" "step 1: 1 allocations, 0 mappings
step 2: 0 allocations, 0 mappings
step 3: 5 allocations, 0 mappings
step 4: 0 allocations, 2 mappings
step 5: 0 allocations, 0 mappings" "$(grep '^step' "$work/report")"
grep -q '^first after step 1: calloc from .*alloc_probe+0x.* in step 3$' "$work/report"

# Every operation can be made to fail, alone (EIO) or with those that follow (a full disk).
probe() {  # kind, number
    rm -rf "$work/files" "$work/log"
    mkdir "$work/files"
    LD_PRELOAD=$shims/io_fault.so PB_FAULT_DIR=$work/files PB_FAULT_KIND=$1 PB_FAULT_AT=$2 PB_FAULT_LOG=$work/log \
        "$shims/io_probe" "$work/files" || echo "exit $?"
}
healthy="open 0
write 10
pwrite 10
fsync 0
rename 0
mkdir 0
openat 0
unlinkat 0
rmdir 0
linkat 0
unlink 0"
expect "no fault" "$healthy" "$(probe none 1)"
expect "log" "1 open a;2 write a;3 pwrite a;4 fsync a;5 rename b;6 mkdir c;7 openat c/d;8 unlinkat c/d;9 rmdir c;10 linkat e;11 unlink b;" \
    "$(sed "s,$work/files/,," "$work/log" | tr '\n' ';')"
for number in $(seq 11); do
    call=$(sed -n "${number}p" <<<"$healthy" | cut -d' ' -f1)
    expect "EIO at $number" "$call -1 EIO" "$(probe eio $number | sed -n "${number}p")"
    before=$(head -n $((number - 1)) <<<"$healthy")
    expect "kill at $number" "$before" "$(probe kill $number 2>/dev/null | grep -v '^exit 137$' | sed '/^$/d')"
    expect "late kill at $number" "$before" "$(probe late-kill $number 2>/dev/null | grep -v '^exit 137$' | sed '/^$/d')"
done
expect "full from 2 on" "open 0;write -1 ENOSPC;pwrite -1 ENOSPC;fsync -1 ENOSPC;rename -1 ENOSPC;mkdir -1 ENOSPC;" \
    "$(probe enospc 2 | head -6 | tr '\n' ';')"
expect "short" "write 5;pwrite 10;" "$(probe short 2 | sed -n 2,3p | tr '\n' ';')"
probe kill 3 >/dev/null 2>&1
expect "bytes before the kill" 10 "$(stat -c %s "$work/files/a")"
probe late-kill 3 >/dev/null 2>&1
expect "bytes after the late kill" 20 "$(stat -c %s "$work/files/a")"
echo "the preload libraries work"
