#!/usr/bin/env bash
# Training allocates nothing after its first step: not the program, not its libraries (alloc_count.c counts).
# usage: test_allocations.sh PROGRAM SOURCE_DIR BUILD_DIR
set -euo pipefail
shim=$3/tests/fault/alloc_count.so
[ -f "$shim" ] || { echo "skipped: no preload libraries in a build with sanitizers"; exit 77; }
. "$2/tests/prelude.sh"
"$program" init --preset tiny --seed 1 "$work/model" >/dev/null

# name, further keys: each run must report no allocation in steps 2 to 6.
check() {
    local name=$1
    shift
    local sets=()
    for key in "$@"; do sets+=(--set "$key"); done
    LD_PRELOAD=$shim PB_ALLOC_REPORT=$work/$name.report "$program" train "$source/tests/fault/tiny.yaml" \
        --set "pretrained_model_name_or_path=$work/model" --set "instance_data_dir=$source/demo/blue-fox" \
        --set "output_dir=$work/$name" --set max_train_steps=6 "${sets[@]}" >"$work/$name.log" 2>&1 ||
        { cat "$work/$name.log" >&2; exit 1; }
    [ "$(grep -c '^step' "$work/$name.report")" = 6 ] || { cat "$work/$name.report" >&2; exit 1; }
    if grep -E '^step [2-6]:' "$work/$name.report" | grep -v ': 0 allocations, 0 mappings$'; then
        grep '^first' "$work/$name.report" >&2
        echo "failed: $name allocates" >&2
        exit 1
    fi
}
check two_threads threads=2
check one_thread
check bf16 mixed_precision=bf16
check fp16 mixed_precision=fp16
check unet_only train_text_encoder=false
check random_crop center_crop=false resolution=48
check accumulation gradient_accumulation_steps=2 lr_scheduler=cosine snr_gamma=5 offset_noise=true
check prior with_prior_preservation=true "class_data_dir=$source/demo/blue-fox" "class_prompt=a fox" num_class_images=5
echo "no allocation from step 2 on"
