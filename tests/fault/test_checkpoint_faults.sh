#!/usr/bin/env bash
# Whatever happens to a write, an fsync or a rename of a run, checkpoints and the result included: the run ends well or
# with a message, never with a crash; and the run that is started again afterwards ends with the very bytes of one that
# nothing happened to, and leaves nothing behind. (io_fault.c makes the faults.)
# usage: test_checkpoint_faults.sh PROGRAM SOURCE_DIR BUILD_DIR [all|short [paged]]
#   paged: the run keeps its state in a swap file, which becomes the checkpoints' (test_swap_checkpoint_faults.sh).
#   all: every operation with every fault, which takes an hour or two (`make faults`). Else: of calls that follow one another on
#   the same file the one in the middle, with one fault after the other.
set -euo pipefail
shim=$3/tests/fault/io_fault.so
[ -f "$shim" ] || { echo "skipped: no preload libraries in a build with sanitizers"; exit 77; }
extent=${4:-short} budget=${5:-resident}
# In memory where there is room: a disk's fsync is most of the time, and what is tested is the order of calls.
scratch_room=200000
. "$2/tests/prelude.sh"
"$program" init --preset tiny --seed 1 "$work/model" >/dev/null
cases=0

train() {  # output directory
    local memory=()
    [ "$budget" = resident ] || memory=(--set memory.device=8MiB --set memory.host=14MiB --set memory.placement=nvme
        --set "memory.nvme=$1/swap")
    "$program" train "$source/tests/fault/tiny.yaml" --set "pretrained_model_name_or_path=$work/model" \
        --set "instance_data_dir=$source/demo/blue-fox" --set "output_dir=$1" --set resolution=16 --set train_batch_size=1 \
        --set train_text_encoder=false --set max_train_steps=3 --set checkpointing_steps=1 \
        --set resume_from_checkpoint=latest "${memory[@]}" >"$work/log" 2>&1
}
# What must be equal: every byte of the result, and the losses of all steps.
fingerprint() {  # output directory
    (cd "$1" && find . -name '*.safetensors' -not -path './checkpoint-*' | sort | xargs sha256sum
     sed 's/, "seconds": [0-9.]*//' metrics.jsonl)
}
listing() {
    (cd "$1" && find . | sort)
}
fail() {
    echo "failed: $*" >&2
    sed 's/^/    /' "$work/log" >&2
    failures=$((failures + 1))
}

mkdir "$work/whole" "$work/count"
train "$work/whole"
expected=$(fingerprint "$work/whole")
files=$(listing "$work/whole")
[ "$(wc -l <"$work/whole/metrics.jsonl")" = 3 ]
[ "$budget" = resident ] || [ -f "$work/whole/checkpoint-3/state.swap" ]
LD_PRELOAD=$shim PB_FAULT_DIR=$work/count PB_FAULT_LOG=$work/operations train "$work/count"
operations=$(wc -l <"$work/operations")
# The first and the last number of each run of equal calls (temporary names have the process's id). Of a paged run only
# what has to do with checkpoints and the swap file: the rest is the same.
of_interest=.
[ "$budget" = resident ] || of_interest='checkpoint-|/swap/'
groups=$(sed 's/[0-9]*-[0-9]*\.tmp/TMP/' "$work/operations" |
    awk '{call = $2 " " $3} call != last {if (NR > 1) print first, NR - 1, last; first = NR; last = call}
         END {print first, NR, last}' | grep -E "$of_interest" | cut -d' ' -f1,2)
[ "$operations" -gt 1000 ] && [ "$(wc -l <<<"$groups")" -gt 90 ]

try() {  # kind, operation
    local out=$work/out code=0
    rm -rf "$out"
    mkdir "$out"
    cases=$((cases + 1))
    LD_PRELOAD=$shim PB_FAULT_DIR=$out PB_FAULT_KIND=$1 PB_FAULT_AT=$2 train "$out" || code=$?
    case $1:$code in
    *:0) [ "$(fingerprint "$out")" = "$expected" ] || fail "$1 at $2 was not noticed" ;;
    kill:137 | late-kill:137) ;;
    *:1) grep -q '^pagebooth: error: .' "$work/log" || fail "$1 at $2: no message" ;;
    *) fail "$1 at $2: exit code $code" ;;
    esac
    if [ -d "$out/checkpoint-1" ] && [ ! -f "$out/checkpoint-1/manifest.json" ]; then
        fail "$1 at $2: half a checkpoint"
    fi
    train "$out" || { fail "$1 at $2: starting again failed"; return 0; }
    [ "$(fingerprint "$out")" = "$expected" ] || fail "$1 at $2: another result"
    # An old checkpoint that could not be deleted is deleted after the next one; half of one is not left.
    if [ "$(listing "$out")" != "$files" ] && [ "$(rm -rf "$out/checkpoint-1" && listing "$out")" != "$files" ]; then
        fail "$1 at $2: other files: $(listing "$out" | diff - <(echo "$files") | tr '\n' ' ')"
    fi
}

kinds=(enospc eio kill short eintr late-kill)
turn=0
while read -r first last; do
    if [ "$extent" = all ]; then
        for ((operation = first; operation <= last; operation++)); do
            for kind in "${kinds[@]}"; do try $kind $operation; done
        done
    else
        try "${kinds[turn++ % 6]}" $(((first + last) / 2))
    fi
done <<<"$groups" 2> >(grep -v Killed >&2)
echo "$operations operations, $cases cases, $failures failures"
exit $((failures > 0))
