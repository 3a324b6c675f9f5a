#!/usr/bin/env bash
# Does training suffer when the optimizer's state takes fewer bytes? Trains a model once per format of the state and
# seed, and prints a table: the loss on a fixed evaluation set of (picture, timestep, noise), before and after; how far
# the final weights are from fp32 state's; and the bytes of state. Everything goes to OUT, pictures of the first seed too.
# usage: scripts/fidelity.sh [CONFIG]      (configs/demo.yaml)
#   PAGEBOOTH, BENCH  the program and its bench_fidelity (build/...)
#   SEEDS, STEPS, MODES, OUT, EVALUATIONS, PICTURES  "1 2 3", the configuration's, all, fidelity-out, 64 passes, 4
set -euo pipefail
cd "$(dirname "$0")/.."
config=${1:-configs/demo.yaml}
pagebooth=${PAGEBOOTH:-build/pagebooth} bench=${BENCH:-build/tests/bench_fidelity}
seeds=${SEEDS:-1 2 3} out=${OUT:-fidelity-out} evaluations=${EVALUATIONS:-64} pictures=${PICTURES:-4}
threads=${THREADS:-auto}
value() { sed -n "s/^$1: *\([^#]*[^# ]\) *\(#.*\)\?\$/\1/p" "$config"; }
model=$(value pretrained_model_name_or_path)
steps=${STEPS:-$(value max_train_steps)}

# Each line: a name, then keys. The first of each group is what the others of the group are compared with.
all='fp32
fp32,8bit optimizer.states=8bit
fp32,16bit optimizer.states=16bit
bf16 mixed_precision=bf16
bf16,8bit mixed_precision=bf16 optimizer.states=8bit
bf16,split16 mixed_precision=bf16 optimizer.master=split16
bf16,split8 mixed_precision=bf16 optimizer.master=split8
bf16,split8,8bit mixed_precision=bf16 optimizer.master=split8 optimizer.states=8bit
bf16,none mixed_precision=bf16 optimizer.master=none
bf16,none,8bit mixed_precision=bf16 optimizer.master=none optimizer.states=8bit
fp16 mixed_precision=fp16
fp16,split16 mixed_precision=fp16 optimizer.master=split16
fp16,split8,8bit mixed_precision=fp16 optimizer.master=split8 optimizer.states=8bit'
modes=$(grep -E "^(${MODES:-.*})( |\$)" <<<"$all")

run() { # OUT KEY=VALUE...
    local sets=()
    for set in "${@:2}"; do sets+=(--set "$set"); done
    "$pagebooth" train "$config" --set "output_dir=$1" --set class_data_dir="$out/class" --set checkpoints_total_limit=1 \
        --set checkpointing_steps=1000000 --set save_precision=fp32 --set threads="$threads" "${sets[@]}" >"$1.log" 2>&1 ||
        { tail -3 "$1.log" >&2; exit 1; }
}

# The mean loss of a model in fp32 on the evaluation set: a run that learns nothing, with a seed of its own.
evaluate() { # MODEL NAME
    local kept=$out/evaluated-$2.$evaluations
    [ -f "$kept" ] && { cat "$kept"; return; }
    run "$out/evaluated-$2" pretrained_model_name_or_path="$1" learning_rate=0 max_train_steps="$evaluations" seed=987654321
    awk -F'"loss": ' '/"loss"/ {split($2, a, ","); sum += a[1]; n++} END {printf "%.6f", sum / n}' \
        "$out/evaluated-$2/metrics.jsonl" >"$kept"
    cat "$kept"
    rm -rf "$out/evaluated-$2"
}

mkdir -p "$out"
if [ -n "$(value class_prompt)" ] && [ ! -d "$out/class" ]; then
    "$pagebooth" generate "$model" --prompt "$(value class_prompt)" --steps 25 --sampler dpmpp2m --guidance 3 --seed 7 \
        --n 24 --batch 12 -o "$out/class" >/dev/null 2>&1
    rm -f "$out/class/grid.png"
fi
before=$(evaluate "$model" before)
echo "evaluation set: $evaluations passes; loss before training: $before; $steps steps; seeds: $seeds"
table=$out/table.md
echo "| state | loss, by seed | mean | against fp32 | distance of the UNet's weights to its group's first, of the way |" >"$table"
echo "|---|---|---|---|---|" >>"$table"
declare -A fp32_mean
while read -r name keys; do
    group=${name%%,*} losses=() distances=()
    for seed in $seeds; do
        folder=$out/$name-$seed
        # shellcheck disable=SC2086
        [ -f "$folder/run.json" ] || run "$folder" seed="$seed" max_train_steps="$steps" $keys
        losses+=("$(evaluate "$folder" "$name-$seed")")
        first=$out/$group-$seed
        [ "$name" = "$group" ] || [ ! -d "$first" ] || distances+=("$("$bench" \
            "$model/unet/diffusion_pytorch_model.safetensors" "$first/unet/diffusion_pytorch_model.safetensors" \
            "$folder/unet/diffusion_pytorch_model.safetensors")")
        rm -rf "$folder"/checkpoint-*
    done
    mean=$(printf '%s\n' "${losses[@]}" | awk '{s += $1} END {printf "%.6f", s / NR}')
    [ "$name" = fp32 ] && fp32_mean[0]=$mean
    against=$(awk -v a="$mean" -v b="${fp32_mean[0]:-}" 'BEGIN {if (b) printf "%+.2f%%", 100 * (a / b - 1); else print "-"}')
    line="| $name | ${losses[*]} | $mean | $against | ${distances[*]:--} |"
    echo "$line" | tee -a "$table"
done <<<"$modes"

# Pictures of the first seed: rows are formats.
[ "$pictures" -gt 0 ] || exit 0
read -r seed _ <<<"$seeds"
files=()
while read -r name _; do
    "$pagebooth" generate "$out/$name-$seed" --prompt "$(value instance_prompt)" --steps 25 --sampler dpmpp2m --guidance 4 \
        --seed 1 --n "$pictures" --batch "$pictures" -o "$out/pictures/$name" >/dev/null 2>&1
    files+=("$out/pictures/$name"/picture-*.png)
done <<<"$modes"
"$pagebooth" grid -o "$out/pictures.png" -c "$pictures" -g 1 "${files[@]}"
echo "$table, $out/pictures.png (rows: $(cut -d' ' -f1 <<<"$modes" | tr '\n' ' '))"
