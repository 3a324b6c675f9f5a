#!/usr/bin/env bash
# Every format of the optimizer's state in whole runs of a tiny model: an interrupted run continues bit for bit, where
# the state lies makes no difference, and what a format needs is asked for.
# usage: test_optimizer_modes.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
. "$2/tests/prelude.sh"
cd "$work" || exit 1

train() { # OUT KEY=VALUE...
    local sets=()
    for set in "${@:2}"; do sets+=(--set "$set"); done
    "$program" train base.yaml --set "output_dir=$1" "${sets[@]}" >"$1.log" 2>&1
}

result() { cat "$1"/unet/*.safetensors "$1"/text_encoder/*.safetensors | cksum; }
state() { cat "$1"/checkpoint-6/optimizer.safetensors | cksum; }
metrics() { sed 's/"seconds.*//' "$1/metrics.jsonl"; }

same() { # A B
    [ "$(result "$1")" = "$(result "$2")" ] || fail "$1 and $2: the weights differ"
    [ "$(state "$1")" = "$(state "$2")" ] || fail "$1 and $2: the optimizer's states differ"
    cmp -s <(metrics "$1") <(metrics "$2") || fail "$1 and $2: the metrics differ"
}

refused() { # WORD KEY=VALUE...
    train refused "${@:2}" && fail "$*: not refused"
    grep -q -- "$1" refused.log || fail "$*: no \"$1\" in: $(cat refused.log)"
}

"$program" init --preset tiny --seed 1 model >/dev/null || { fail "no model"; exit 1; }
cat >base.yaml <<YAML
pretrained_model_name_or_path: model
instance_data_dir: $pictures
instance_prompt: a photo of sks fox
resolution: 32
center_crop: true
train_batch_size: 2
train_text_encoder: true
learning_rate: 1e-3
max_train_steps: 6
checkpointing_steps: 3
checkpoints_total_limit: 0
save_precision: fp32
seed: 3
YAML

train wide || fail "wide: $(cat wide.log)"
modes=(
    "eight optimizer.states=8bit"
    "sixteen optimizer.states=16bit"
    "split16 mixed_precision=bf16 optimizer.master=split16"
    "split8 mixed_precision=bf16 optimizer.master=split8 optimizer.states=8bit"
    "split8h mixed_precision=fp16 optimizer.master=split8"
    "none mixed_precision=bf16 optimizer.master=none optimizer.states=16bit"
)
for mode in "${modes[@]}"; do
    read -ra words <<<"$mode"
    name=${words[0]} keys=("${words[@]:1}")
    train "$name" "${keys[@]}" || { fail "$name: $(cat "$name.log")"; continue; }
    [ "$(result "$name")" != "$(result wide)" ] || fail "$name: it makes no difference"
    cp -r "$name" "resumed_$name"
    rm -r "resumed_$name/checkpoint-6" "resumed_$name/run.json"
    train "resumed_$name" "${keys[@]}" resume_from_checkpoint=latest || fail "resumed $name: $(cat "resumed_$name.log")"
    same "$name" "resumed_$name"
    train "host_$name" "${keys[@]}" memory.device=4MiB memory.host=64MiB || fail "host $name: $(cat "host_$name.log")"
    same "$name" "host_$name"
    grep -q ' 0.000 GiB of the host' "host_$name.log" && fail "host $name: everything was on the device"
    mkdir "swap_$name"
    train "nvme_$name" "${keys[@]}" memory.device=4MiB memory.host=6MiB "memory.nvme=swap_$name" \
        memory.nvme_size=64MiB memory.placement=nvme checkpoint_format=portable ||
        fail "nvme $name: $(cat "nvme_$name.log")"
    same "$name" "nvme_$name"
    grep -q ' 0.000 GiB on NVMe' "nvme_$name.log" && fail "nvme $name: nothing was in the swap file"
done

# A run without a seed of its own goes on with the bits that it drew.
train drawn mixed_precision=bf16 optimizer.master=none seed=null || fail "drawn: $(cat drawn.log)"
cp -r drawn resumed_drawn
rm -r resumed_drawn/checkpoint-6 resumed_drawn/run.json
train resumed_drawn mixed_precision=bf16 optimizer.master=none seed=null resume_from_checkpoint=latest
same drawn resumed_drawn

train short use_8bit_adam=true || fail "short: $(cat short.log)"
same short eight
wide_bytes=$(stat -c %s wide/checkpoint-6/optimizer.safetensors)
eight_bytes=$(stat -c %s eight/checkpoint-6/optimizer.safetensors)
[ $((2 * eight_bytes)) -lt "$wide_bytes" ] || fail "8-bit states take $eight_bytes bytes, fp32 states $wide_bytes"

refused "mixed_precision: bf16" optimizer.master=none
refused "mixed_precision: fp16 or bf16" optimizer.master=split8
refused "stands for" use_8bit_adam=true optimizer.states=16bit
rm -rf eight/run.json
train eight optimizer.states=fp32 resume_from_checkpoint=latest && fail "a checkpoint of another format is taken"
grep -q '`optimizer.states` was 8bit when the checkpoint was made, and is fp32' eight.log || fail "another format: $(cat eight.log)"

passed "${#modes[@]} formats"
