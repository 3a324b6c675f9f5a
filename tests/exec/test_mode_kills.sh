#!/usr/bin/env bash
# Every format of the optimizer's state, resident and paged: the same run at other budgets has the same bytes, and so has
# one that is killed (kill -9) at random moments and goes on at a random budget each time. No checkpoint is lost.
# usage: test_mode_kills.sh PROGRAM SOURCE_DIR BUILD_DIR [KILLS of each format]
set -uo pipefail
wanted=${4:-2}
scratch_room=400000
. "$2/tests/exec/runs.sh"
swap=$(mktemp -d)
trap 'rm -rf "$work" "$swap"' EXIT
RANDOM=13
all_kills=0 losses=0
modes=(
    "16bit optimizer.states=16bit"
    "8bit optimizer.states=8bit"
    "8bit-bf16 mixed_precision=bf16 optimizer.states=8bit"
    "split16 mixed_precision=bf16 optimizer.master=split16"
    "split16-fp16 mixed_precision=fp16 optimizer.master=split16 optimizer.states=16bit"
    "split8 mixed_precision=bf16 optimizer.master=split8"
    "split8-8bit mixed_precision=fp16 optimizer.master=split8 optimizer.states=8bit"
    "none mixed_precision=bf16 optimizer.master=none"
    "none-16bit mixed_precision=bf16 optimizer.master=none optimizer.states=16bit"
)

train() { # output directory, KEY=VALUE...
    local sets=()
    for set in "${@:2}"; do sets+=(--set "$set"); done
    begin_run --set "output_dir=$1" --set max_train_steps=5 \
        --set checkpointing_steps=1 --set resume_from_checkpoint=latest "${sets[@]}"
}
same() { # output directory, what it is
    fingerprint "$1" >"$work/actual"
    cmp -s "$work/expected" "$work/actual" || fail "$2: other bytes than the resident run"
}
# What a format needs differs, so the device's budget is between the smallest that works and what the step would take.
on_host=() on_nvme=()
find_budgets() { # KEY=VALUE...
    local sets=() smallest whole
    for set in "$@"; do sets+=(--set "$set"); done
    smallest=$("$program" plan "$source/tests/fault/tiny.yaml" --set "pretrained_model_name_or_path=$work/model" \
        "${sets[@]}" --set memory.device=1KiB --set memory.host=64MiB 2>&1 |
        sed -n 's/.*smallest budget that works is \([0-9]*\) bytes.*/\1/p')
    whole=$("$program" plan "$source/tests/fault/tiny.yaml" --set "pretrained_model_name_or_path=$work/model" \
        "${sets[@]}" --json | sed -n 's/.*"peak": {"device": \([0-9]*\).*/\1/p' | head -1)
    [ -n "$smallest" ] && [ -n "$whole" ] && [ "$smallest" -lt "$whole" ] || return 1
    local middle=$(((smallest + whole) / 2))
    on_host=("memory.device=$middle" "memory.host=64MiB")
    on_nvme=("memory.device=$middle" "memory.host=64MiB" "memory.nvme=$swap" "memory.placement=nvme")
}
budget() {
    case $((RANDOM % 3)) in
    0) ;;
    1) echo "${on_host[@]}" ;;
    2) echo "${on_nvme[@]}" ;;
    esac
}

for mode in "${modes[@]}"; do
    read -ra words <<<"$mode"
    name=${words[0]} keys=("${words[@]:1}") kills=0
    : >"$work/log"
    find_budgets "${keys[@]}" || { fail "$name: no budget that pages"; continue; }
    rm -rf "$work"/{whole,host,nvme,killed}
    (train "$work/whole" "${keys[@]}") >"$work/log" 2>&1 || { fail "$name"; continue; }
    fingerprint "$work/whole" >"$work/expected"
    if [ "$wanted" -gt 2 ]; then # in `make test`, test_optimizer_modes.sh does this
        (train "$work/host" "${keys[@]}" "${on_host[@]}") >"$work/log" 2>&1 || fail "$name on the host"
        grep -q ' 0.000 GiB of the host' "$work/log" && fail "$name: everything was on the device"
        same "$work/host" "$name on the host"
        (train "$work/nvme" "${keys[@]}" "${on_nvme[@]}") >"$work/log" 2>&1 || fail "$name on NVMe"
        grep -q ' 0.000 GiB on NVMe' "$work/log" && fail "$name: nothing was in the swap file"
        same "$work/nvme" "$name on NVMe"
    fi

    while :; do
        before=$(newest "$work/killed")
        # shellcheck disable=SC2046
        (train "$work/killed" "${keys[@]}" $(budget)) >"$work/log" 2>&1 &
        pid=$!
        if [ "$kills" -lt "$wanted" ]; then
            sleep "0.$(printf %03d $((RANDOM % 1000)))"
            kill -9 "$pid" 2>/dev/null
        fi
        wait "$pid" 2>/dev/null
        status=$?
        # A checkpoint that was there before is there still, or a later one is.
        after=$(newest "$work/killed")
        [ "${after:-0}" -ge "${before:-0}" ] || { losses=$((losses + 1)); fail "$name: a checkpoint is lost"; }
        [ "$status" = 137 ] && { kills=$((kills + 1)); continue; }
        [ "$status" = 0 ] || { fail "$name: a run that went on ended with $status"; break; }
        # It came to its end before it was to be killed often enough: the next one begins afresh.
        [ "$kills" -lt "$wanted" ] || break
        same "$work/killed" "$name, killed"
        rm -rf "$work/killed"
    done
    same "$work/killed" "$name, killed $kills times"
    [ -z "$(find "$swap" -type f)" ] || fail "$name: a swap file is left"
    all_kills=$((all_kills + kills))
done
echo "${#modes[@]} formats, $all_kills kills, $losses checkpoints lost"
echo "$failures failed"
[ "$failures" = 0 ]
