#!/usr/bin/env bash
# Placement never changes the numbers: the same run at several budgets, resident, on host and on NVMe, ends with the
# same bytes and the same losses; in fp32, fp16 and bf16, with and without the text encoder, with accumulation, with
# steps that overflow, and across a stop and a resume at another budget, also where the run is killed.
# usage: test_placement_exact.sh PROGRAM SOURCE_DIR BUILD_DIR [all]
#   all: more budgets, random ones, and more kills (`make faults`).
set -uo pipefail
extent=${4:-short}
. "$2/tests/exec/runs.sh"
cases=0 paged=0

train() {  # output directory, then --set KEY=VALUE...
    local out=$1
    shift
    (begin_run --set "output_dir=$out" --set max_train_steps=3 \
        --set resume_from_checkpoint=latest "$@") >"$work/log" 2>&1
}
same() {  # output directory, what it is
    cases=$((cases + 1))
    fingerprint "$1" >"$work/actual"
    cmp -s "$work/expected" "$work/actual" || fail "$2: other bytes than the run that has everything resident"
    rm -rf "$1"
}
# A run of KEYS with everything resident, and then at each budget: "device host nvme".
compare() {  # name, budgets separated by commas, keys...
    local name=$1 budgets=$2
    shift 2
    local sets=()
    for key in "$@"; do sets+=(--set "$key"); done
    train "$work/resident" "${sets[@]}" || { fail "$name, resident"; return; }
    fingerprint "$work/resident" >"$work/expected"
    rm -rf "$work/resident"
    local IFS=,
    for budget in $budgets; do
        IFS=' ' read -r device host nvme <<<"$budget"
        local at=(--set "memory.device=$device" --set "memory.host=$host" --set "memory.placement=$nvme")
        [ "$nvme" = host ] || at+=(--set "memory.nvme=$work/swap")
        if train "$work/paged" "${sets[@]}" "${at[@]}"; then
            paged=$((paged + 1))
            same "$work/paged" "$name at $budget"
        else
            fail "$name at $budget"
        fi
        rm -rf "$work/paged"
    done
    [ -z "$(find "$work/swap" -type f 2>/dev/null)" ] || fail "$name: a swap file is left"
}

compare fp32 "9MiB 64MiB host,8MiB 13MiB auto" mixed_precision=no
compare bf16 "8MiB 64MiB auto,7MiB 16MiB nvme" mixed_precision=bf16
compare fp16 "8MiB 16MiB auto" mixed_precision=fp16
compare unet "7MiB 64MiB host,6MiB 16MiB nvme" mixed_precision=bf16 train_text_encoder=false
# Working copies that are made again of masters that stay on the device (RECAST).
for precision in fp16 bf16; do
    "$program" plan "$source/tests/fault/tiny.yaml" --program --set "pretrained_model_name_or_path=$work/model" \
        --set "instance_data_dir=$source/demo/blue-fox" --set "mixed_precision=$precision" --set memory.device=9MiB \
        --set memory.host=64MiB >"$work/log" 2>&1
    [ "$(grep -c ' RECAST cast .*:F32@.* -> ' "$work/log")" -gt 20 ] || fail "$precision: no copy is made again"
    compare "copies-$precision" "9MiB 64MiB auto,11000KiB 64MiB auto" "mixed_precision=$precision"
done
compare accumulation "9MiB 64MiB host,9MiB 18MiB auto" train_batch_size=1 gradient_accumulation_steps=2
compare accumulation-fp16 "8MiB 18MiB auto" train_batch_size=1 gradient_accumulation_steps=2 mixed_precision=fp16
# Steps that overflow: the loss scale starts at 65536, and a large prior weight makes the gradients of fp16 infinite.
compare overflow "8MiB 64MiB host,8MiB 24MiB auto" mixed_precision=fp16 train_batch_size=1 with_prior_preservation=true \
    "class_data_dir=$source/demo/blue-fox" "class_prompt=a picture of a fox" num_class_images=5 prior_loss_weight=30000
grep -q '"overflow": true' "$work/expected" || fail "no step overflowed, so that case shows nothing"

# Budgets that nobody picked.
if [ "$extent" = all ]; then
    RANDOM=7
    for round in $(seq 20); do
        budgets=""
        for _ in 1 2 3 4 5; do
            budgets+="$((8192 + RANDOM % 16384))KiB $((14336 + RANDOM % 32768))KiB auto,"
        done
        precisions=(no bf16 fp16)
        compare "random $round" "${budgets%,}" "mixed_precision=${precisions[$((round % 3))]}" "seed=$round" \
            "train_text_encoder=$([ $((round % 2)) = 0 ] && echo true || echo false)"
    done
fi

# Killed after one step on NVMe, after two on the host, ended resident.
train "$work/resident" --set max_train_steps=4 --set checkpointing_steps=1 || fail "resident"
fingerprint "$work/resident" >"$work/expected"
budgets=("memory.device=8MiB memory.host=14MiB memory.nvme=$work/swap" "memory.device=9MiB memory.host=64MiB" "seed=7")
for stop in 1 2 3; do
    sets=()
    for key in ${budgets[$((stop - 1))]}; do sets+=(--set "$key"); done
    if [ "$stop" = 3 ]; then
        train "$work/moved" --set max_train_steps=4 --set checkpointing_steps=1 "${sets[@]}" || fail "resumed resident"
    else
        train "$work/moved" --set max_train_steps=4 --set checkpointing_steps=1 "${sets[@]}" &
        kill_at $! "$work/moved/checkpoint-$stop/manifest.json"
    fi
done
same "$work/moved" "killed twice and resumed at other budgets"

echo "$cases cases, $paged of them paged"
echo "$((cases - failures)) passed, $failures failed"
[ "$failures" -eq 0 ]
