#!/usr/bin/env bash
# Runs that page are killed (kill -9) at random moments and started again at random budgets, until they come to their
# end: each time the newest checkpoint that was complete is found again, and the result has the bytes of a run that
# nothing happened to. A third of the starts keep their state in memory; of the others, which have a swap file, one half
# hands it over to its checkpoints, the other, with the swap file on another file system, copies it.
# usage: test_random_kills.sh PROGRAM SOURCE_DIR BUILD_DIR [KILLS]
set -uo pipefail
wanted=${4:-10}
scratch_room=400000
. "$2/tests/exec/runs.sh"
swap=$(mktemp -d)
trap 'rm -rf "$work" "$swap"' EXIT
RANDOM=11
kills=0 runs=0 losses=0 swapped=0

train() {  # output directory, --set KEY=VALUE...
    local out=$1
    shift
    begin_run --set "output_dir=$out" --set max_train_steps=8 \
        --set mixed_precision=bf16 --set checkpointing_steps=1 --set resume_from_checkpoint=latest "$@"
}
budget() {
    local where=$work/swap
    case $((RANDOM % 6)) in
    0) return ;;
    1) echo "--set memory.device=$((7168 + RANDOM % 4096))KiB --set memory.host=64MiB" && return ;;
    2 | 3) where=$swap ;;
    esac
    echo "--set memory.device=$((8192 + RANDOM % 2048))KiB --set memory.host=$((14336 + RANDOM % 8192))KiB" \
        "--set memory.placement=nvme --set memory.nvme=$where"
}

now() {  # milliseconds
    local t=${EPOCHREALTIME/[.,]/}
    echo $((t / 1000))
}

begun=$(now)
(train "$work/whole") >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
# Kills come within `range` milliseconds: at first a half of what a whole run takes. On a machine that is busy with other
# things a start may need longer than that for its first step: where several starts in a row have come no step further,
# they get more time, and less again when they do. (With a fixed range a run that is slow is killed for ever.)
least=$((($(now) - begun) / 2))
range=$least stuck=0
fingerprint "$work/whole" >"$work/expected"

while [ "$kills" -lt "$wanted" ] && [ "$failures" = 0 ]; do
    rm -rf "$work/killed"
    runs=$((runs + 1))
    while :; do
        before=$(newest "$work/killed")
        # shellcheck disable=SC2046
        (train "$work/killed" $(budget)) >"$work/log" 2>&1 &
        pid=$!
        killed=no
        if [ "$kills" -lt "$wanted" ]; then
            delay=$(((RANDOM * 32768 + RANDOM) % range))
            sleep "$((delay / 1000)).$(printf %03d $((delay % 1000)))"
            kill -9 "$pid" 2>/dev/null && killed=yes
        fi
        wait "$pid" 2>/dev/null
        status=$?
        found=$(grep -ac 'of the swap file' "$work/log")
        swapped=$((swapped + found))
        # A checkpoint that was there before is there still, or a later one is.
        after=$(newest "$work/killed")
        [ "${after:-0}" -ge "${before:-0}" ] || { losses=$((losses + 1)); failures=1; }
        if [ "${after:-0}" -gt "${before:-0}" ]; then
            stuck=0
            [ $((range * 7 / 8)) -lt $least ] || range=$((range * 7 / 8))
        elif [ $((++stuck)) -ge 4 ]; then
            stuck=0
            range=$((range * 5 / 4))
        fi
        if [ "$status" = 137 ]; then
            kills=$((kills + 1))
            [ $((kills % 100)) != 0 ] || echo "$kills kills in $runs runs, within $range ms"
            continue
        fi
        [ "$killed" = yes ] && [ "$status" = 0 ] && continue
        [ "$status" = 0 ] && break
        echo "failed: a run that went on ended with $status:" >&2
        sed 's/^/    /' "$work/log" >&2
        failures=1
        break
    done
    fingerprint "$work/killed" >"$work/actual"
    cmp -s "$work/expected" "$work/actual" || { echo "failed: after kills, other bytes" >&2; failures=1; }
    [ -z "$(find "$swap" "$work/swap" -type f 2>/dev/null)" ] || { echo "failed: a swap file is left" >&2; failures=1; }
done
# How many, the machine's speed decides; that they are made and resumed at all, test_swap_checkpoints shows.
echo "$kills kills in $runs runs, $losses checkpoints lost; $swapped checkpoints kept a swap file"
echo "$((runs - failures)) passed, $failures failed"
[ "$failures" = 0 ]
