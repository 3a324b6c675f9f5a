#!/usr/bin/env bash
# Does training suffer when the optimizer's state takes fewer bytes? Trains two models (the demo's, and one of twice its
# width, which has four times its parameters) once per format of the state and seed, and makes of each: a table of the
# loss on a fixed evaluation set of (picture, timestep, noise), before and after, and of how far the final weights are
# from fp32 state's; loss curves; pictures. All of it is in OUT; what is there already is not made again.
# usage: scripts/fidelity.sh [CONFIG...]      (configs/demo.yaml, and the wider model with the same data)
#   PAGEBOOTH, BENCH    the program and the folder of bench_fidelity, bench_widen and bench_curves (build/...)
#   SEEDS               "1 2 3"
#   MODES               short, the formats of docs/fidelity.md; all; or a pattern of names below
#   STEPS, MEDIUM_STEPS 160, 80; with CONFIGs, their own
#   EVALUATIONS         32 passes
#   PICTURES            4 in a row; 0: none
#   THREADS             1: the two models train side by side, and their sums do not depend on the machine; auto
#   OUT                 fidelity-out
# As it is, it makes what docs/fidelity.md has, in one to two hours of two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
pagebooth=${PAGEBOOTH:-build/pagebooth} bench=${BENCH:-build/tests}
seeds=${SEEDS:-1 2 3} all_out=${OUT:-fidelity-out} evaluations=${EVALUATIONS:-32} pictures=${PICTURES:-4}
threads=${THREADS:-1}

# Each line: a name, then keys. The first of each group (what is before the comma) differs from fp32 in its arithmetic
# alone; the others of the group are compared with it, too. fp32,nudged has a learning rate that is a millionth larger
# than the demo's: how far it ends from fp32 is how much the end depends on anything at all.
all='fp32
fp32,nudged learning_rate=1.000001e-4
fp32,8bit optimizer.states=8bit
fp32,16bit optimizer.states=16bit
bf16 mixed_precision=bf16
bf16,8bit mixed_precision=bf16 optimizer.states=8bit
bf16,split16 mixed_precision=bf16 optimizer.master=split16
bf16,split8 mixed_precision=bf16 optimizer.master=split8
bf16,none mixed_precision=bf16 optimizer.master=none
bf16,split8,8bit mixed_precision=bf16 optimizer.master=split8 optimizer.states=8bit
bf16,none,8bit mixed_precision=bf16 optimizer.master=none optimizer.states=8bit
fp16 mixed_precision=fp16
fp16,split16 mixed_precision=fp16 optimizer.master=split16
fp16,split8,8bit mixed_precision=fp16 optimizer.master=split8 optimizer.states=8bit'
short='fp32|fp32,nudged|fp32,8bit|bf16|bf16,split16|bf16,split8|bf16,none'
case ${MODES:-short} in
    short) names=$short ;;
    all) names='.*' ;;
    *) names=$MODES ;;
esac
modes=$(grep -E "^($names)( |\$)" <<<"$all")

value() { sed -n "s/^$1: *\([^#]*[^# ]\) *\(#.*\)\?\$/\1/p" "$config"; }

run() { # OUT KEY=VALUE...
    local sets=()
    for set in "${@:2}"; do sets+=(--set "$set"); done
    "$pagebooth" train "$config" --set "output_dir=$1" --set class_data_dir="$all_out/class" \
        --set checkpoints_total_limit=1 --set checkpointing_steps=1000000 --set save_precision=fp32 \
        --set threads="$threads" "${sets[@]}" >"$1.log" 2>&1 || { tail -n 3 "$1.log" >&2; exit 1; }
}

# The mean loss of a model in fp32 on the evaluation set: a run that learns nothing, with a seed of its own.
evaluate() { # MODEL NAME
    local kept=$out/evaluated-$2.$evaluations
    [ -f "$kept" ] && { cat "$kept"; return; }
    run "$out/evaluated-$2" pretrained_model_name_or_path="$1" learning_rate=0 max_train_steps="$evaluations" seed=987654321
    awk -F'"loss": ' '/"loss"/ {split($2, a, ","); sum += a[1]; n++} END {printf "%.6f", sum / n}' \
        "$out/evaluated-$2/metrics.jsonl" >"$kept"
    cat "$kept"
    rm -rf "$out/evaluated-$2" "$out/evaluated-$2.log"
}

# How far the UNet of $2 is from that of $1, of the way that $1 has gone.
distance() {
    local file=unet/diffusion_pytorch_model.safetensors
    "$bench/bench_fidelity" "$model/$file" "$1/$file" "$2/$file"
}

# A model of twice the width, which computes the same function.
widen() { # FROM TO
    [ -f "$2/model_index.json" ] && return
    mkdir -p "$2.part"
    cp -r "$1"/. "$2.part"
    rm "$2.part"/unet/*
    awk '/"block_out_channels"/ { inside = 1 }
         inside && match($0, /[0-9]+/) {
             $0 = substr($0, 1, RSTART - 1) 2 * substr($0, RSTART, RLENGTH) substr($0, RSTART + RLENGTH) }
         /\]/ { inside = 0 }
         { print }' "$1/unet/config.json" >"$2.part/unet/config.json"
    "$bench/bench_widen" "$1/unet/diffusion_pytorch_model.safetensors" \
        "$2.part/unet/diffusion_pytorch_model.safetensors" >/dev/null
    mv "$2.part" "$2"
}

study() { # NAME CONFIG STEPS
    local name keys group seed mean against
    config=$2 out=$all_out/$1
    model=$(value pretrained_model_name_or_path)
    local steps=${3:-$(value max_train_steps)} table=$all_out/$1.md fp32=
    mkdir -p "$out"
    echo "$1: evaluation set of $evaluations passes, loss before training $(evaluate "$model" before)," \
        "$steps steps, seeds $seeds" | tee "$table"
    {
        echo
        echo "| state | loss, by seed | mean | against fp32 | UNet's distance to fp32's, of the way | to its group's first |"
        echo "|---|---|---|---|---|---|"
    } >>"$table"
    local curves=()
    while read -r name keys; do
        group=${name%%,*}
        local losses=() far=() near=() files=
        for seed in $seeds; do
            local folder=$out/$name-$seed
            # shellcheck disable=SC2086
            if [ ! -f "$folder/model_index.json" ]; then
                rm -rf "$folder"
                run "$folder" seed="$seed" max_train_steps="$steps" $keys
            fi
            losses+=("$(evaluate "$folder" "$name-$seed")")
            [ "$name" = fp32 ] || [ ! -d "$out/fp32-$seed" ] || far+=("$(distance "$out/fp32-$seed" "$folder")")
            [ "$name" = "$group" ] || [ "$group" = fp32 ] || [ ! -d "$out/$group-$seed" ] ||
                near+=("$(distance "$out/$group-$seed" "$folder")")
            files+=,$folder/metrics.jsonl
            rm -rf "$folder"/checkpoint-*
        done
        mean=$(printf '%s\n' "${losses[@]}" | awk '{s += $1} END {printf "%.6f", s / NR}')
        [ "$name" = fp32 ] && fp32=$mean
        against=$(awk -v a="$mean" -v b="$fp32" 'BEGIN {if (b) printf "%+.2f%%", 100 * (a / b - 1); else print "-"}')
        [ "$name" = fp32 ] && against=-
        echo "| $name | ${losses[*]} | $mean | $against | ${far[*]:--} | ${near[*]:--} |" | tee -a "$table"
        curves+=("$name=${files#,}")
    done <<<"$modes"
    "$bench/bench_curves" "$all_out/$1.svg" "$1: training loss, mean of seeds $seeds" "${curves[@]}"
    [ "$pictures" -gt 0 ] || return 0

    # Pictures: the model as it was, and then a row for each format, of the first seed.
    read -r seed _ <<<"$seeds"
    local grid=()
    while read -r name _; do
        local from=$out/$name-$seed
        [ "$name" = before ] && from=$model
        "$pagebooth" generate "$from" --prompt "$(value instance_prompt)" --steps 25 --sampler dpmpp2m --guidance 4 \
            --seed 1 --n "$pictures" --batch "$pictures" -o "$out/pictures/$name" >/dev/null 2>&1
        grid+=("$out/pictures/$name"/picture-*.png)
    done <<<"before
$modes"
    "$pagebooth" grid -o "$all_out/$1.png" -c "$pictures" -g 1 "${grid[@]}"
    echo "$table, $1.svg, $1.png (rows: before $(cut -d' ' -f1 <<<"$modes" | tr '\n' ' '))"
}

mkdir -p "$all_out"
config=${1:-configs/demo.yaml}
if [ -n "$(value class_prompt)" ] && [ ! -d "$all_out/class" ]; then
    "$pagebooth" generate "$(value pretrained_model_name_or_path)" --prompt "$(value class_prompt)" --steps 25 \
        --sampler dpmpp2m --guidance 3 --seed 7 --n 24 --batch 12 -o "$all_out/class" >/dev/null 2>&1
    rm -f "$all_out/class/grid.png"
fi
if [ $# -gt 0 ]; then
    for config in "$@"; do study "$(basename "$config" .yaml)" "$config" "${STEPS:-}"; done
    exit
fi

model=$(value pretrained_model_name_or_path)
widen "$model" "$all_out/medium-sd"
sed "s,^pretrained_model_name_or_path:.*,pretrained_model_name_or_path: $all_out/medium-sd,
     s,^train_batch_size:.*,train_batch_size: 1," configs/demo.yaml >"$all_out/medium.yaml"
trap 'trap - INT TERM; kill 0' INT TERM # what runs in the background does not hear of Ctrl-C
study demo configs/demo.yaml "${STEPS:-160}" &
demo=$!
study medium "$all_out/medium.yaml" "${MEDIUM_STEPS:-${STEPS:-80}}" &
medium=$!
failed=0
wait "$demo" || failed=1
wait "$medium" || failed=1
exit "$failed"
