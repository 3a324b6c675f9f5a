#!/usr/bin/env bash
# File systems that share blocks between files (btrfs, xfs): a checkpoint of a run with a swap file is a clone of it, takes
# next to no room, and is resumed with the same bytes; and the store's own tests of copies hold there. A small file
# system is made in a file, and mounted where nobody else sees it.
# usage: test_shared_blocks.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
build=$3
# shellcheck disable=SC2034
scratch_room=800000
. "$2/tests/exec/runs.sh"
cases=0 tried=""

train() {  # output directory, then --set KEY=VALUE...
    local out=$1
    shift
    (begin_run --set "output_dir=$out" --set checkpointing_steps=2 --set resume_from_checkpoint=latest \
        --set max_train_steps=4 "$@") >"$work/log" 2>&1
}
check() {  # what it is, command...
    local what=$1
    shift
    cases=$((cases + 1))
    "$@" || fail "$what"
}

# Within the namespace: the file system in $work/$1.image, on $work/disk.
on_disk() {  # btrfs or xfs
    local disk=$work/disk out=$work/disk/out
    local paged=(--set memory.device=8MiB --set memory.host=14MiB --set memory.placement=nvme
        --set "memory.nvme=$disk/swap")
    mount -o loop "$work/$1.image" "$disk" 2>"$work/log" || return 77
    head -c 65536 /dev/urandom >"$disk/a"
    cp --reflink=always "$disk/a" "$disk/b" 2>"$work/log" || return 77
    train "$out" "${paged[@]}" || fail "$1: a run that pages"
    check "$1: checkpoints are not shared" [ "$(grep -c '^checkpoint-.* GiB of the swap file shared' "$work/log")" = 2 ]
    fingerprint "$out" | cmp -s - "$work/expected" || fail "$1: other bytes than the run that has everything resident"
    check "$1: a checkpoint is not whole" "$program" inspect --verify "$out/checkpoint-2" >/dev/null
    # Gone back to the first of the two checkpoints, elsewhere in the memory.
    rm -r "$out/checkpoint-4" "$out/run.json"
    train "$out" --set memory.device=9MiB --set memory.host=64MiB || fail "$1: resumed from a clone"
    check "$1: not resumed" grep -q "goes on from $out/checkpoint-2" "$work/log"
    fingerprint "$out" | cmp -s - "$work/expected" || fail "$1: other bytes after a resume from a clone"
    for test in test_store_copy test_store_renew; do
        [ -x "$build/tests/$test" ] || continue
        cases=$((cases + 2))
        TMPDIR=$disk "$build/tests/$test" >"$work/log" 2>&1 || fail "$1: $test"
        grep -q 'shares no blocks' "$work/log" && fail "$1: $test has not cloned"
    done
    echo "$cases $failures" >"$work/counts"
    umount "$disk"
}

if [ "$(id -u)" != 0 ] || ! unshare -m true 2>/dev/null; then
    echo "skipped: only root can make and mount a file system that shares blocks"
    exit 77
fi
mkdir "$work/disk"
train "$work/resident" || fail "the run that has everything resident"
fingerprint "$work/resident" >"$work/expected"
export program source work build cases failures
export -f on_disk train check begin_run fail fingerprint
for kind in btrfs xfs; do
    command -v "mkfs.$kind" >/dev/null || continue
    truncate -s 400M "$work/$kind.image"
    "mkfs.$kind" -q "$work/$kind.image" >"$work/log" 2>&1 || continue
    code=0
    unshare -m bash -c "on_disk $kind" || code=$?
    [ "$code" = 77 ] && continue
    tried="$tried $kind"
    read -r cases failures <"$work/counts"
    export cases failures
done
[ -n "$tried" ] || { echo "skipped: neither btrfs nor xfs can be made and mounted here: $(head -1 "$work/log")"; exit 77; }
passed "$cases checks on$tried"
