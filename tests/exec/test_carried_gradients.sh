#!/usr/bin/env bash
# Gradients that are made again in the next step rather than kept (src/graph/carry.h) change nothing: the same bytes as
# of a run that has everything resident, on the host and on NVMe, in the formats whose weights live on and in fp16 and
# bf16 with masters; with steps that overflow; with validation pictures; and where the run is killed and resumed. Links that are said to be slow make the planner choose that way.
# usage: test_carried_gradients.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
. "$2/tests/exec/runs.sh"
cases=0

cat >"$work/slow.yaml" <<'END'
name: slow links
device_bytes: 8589934592
host_bytes: 8589934592
nvme_bytes: 8589934592
upload: 50e6
download: 50e6
copy_both: 60e6
dram: 20e9
nvme_read: 10e6
nvme_write: 10e6
nvme_both: 12e6
host_adamw: 1e9
shared_cores: true
overhead: 1e-6
ops:
  all: {fp32: [50e9, 20e9], fp16: [50e9, 20e9], bf16: [50e9, 20e9]}
END
common=(--set train_batch_size=1 --set max_train_steps=4 --set checkpointing_steps=1 --set checkpoints_total_limit=2
    --set resume_from_checkpoint=latest)

train() {  # output directory, then --set KEY=VALUE...
    local out=$1
    shift
    (begin_run "${common[@]}" --set "output_dir=$out" "$@") >"$work/log" 2>&1
}
# Whether the plan of these keys makes gradients again, so that the case shows something.
carries() {
    (exec "$program" plan "$source/tests/fault/tiny.yaml" --json --set "pretrained_model_name_or_path=$work/model" \
        --set "instance_data_dir=$source/demo/blue-fox" "${common[@]}" "$@") 2>"$work/log" |
        grep -q '"gradients_again": [1-9]'
}
same() {  # output directory, what it is
    cases=$((cases + 1))
    fingerprint "$1" | cmp -s "$work/expected" - || fail "$2: other bytes than the run that has everything resident"
    rm -rf "$1"
}
budget=()
at() {  # device, host, MiB; a disk besides
    budget=(--set "memory.device=$1MiB" --set "memory.host=$2MiB" --set "memory.nvme=$work/swap"
        --set "memory.profile=$work/slow.yaml")
}
# Runs of KEYS, resident and then at each budget; at each also killed after a step and resumed.
compare() {  # name, "device host" budgets separated by commas, keys...
    local name=$1 budgets=$2 key sets=() one
    shift 2
    for key in "$@"; do sets+=(--set "$key"); done
    train "$work/resident" "${sets[@]}" || { fail "$name, resident"; return; }
    fingerprint "$work/resident" >"$work/expected"
    rm -rf "$work/resident"
    while read -r -d, one; do
        at $one
        carries "${sets[@]}" "${budget[@]}" || fail "$name at $one: no gradient is made again, so that shows nothing"
        train "$work/paged" "${sets[@]}" "${budget[@]}" && same "$work/paged" "$name at $one" || fail "$name at $one"
        train "$work/killed" "${sets[@]}" "${budget[@]}" &
        kill_at $! "$work/killed/checkpoint-2/manifest.json"
        train "$work/killed" "${sets[@]}" "${budget[@]}" && same "$work/killed" "$name at $one, killed and resumed" ||
            fail "$name at $one, killed and resumed"
    done <<<"$budgets,"
}

compare fp32 "7 8,5 6,5 4" mixed_precision=no
compare split16 "6 4" mixed_precision=bf16 optimizer.master=split16
compare stochastic-8bit "4 4" mixed_precision=bf16 optimizer.master=none optimizer.states=8bit
compare fp16 "6 5" mixed_precision=fp16
compare bf16 "4 4" mixed_precision=bf16
# A large prior weight makes the gradients of fp16 infinite.
compare overflow "7 6,4 4" mixed_precision=fp16 with_prior_preservation=true "class_data_dir=$source/demo/blue-fox" \
    "class_prompt=a picture of a fox" num_class_images=5 prior_loss_weight=30000
grep -q '"overflow": true' "$work/expected" || fail "no step overflowed, so that case shows nothing"
compare validation "7 8" mixed_precision=no "validation_prompt=a picture of a fox" validation_steps=1

echo "$((cases - failures)) passed, $failures failed"
[ "$failures" -eq 0 ]
