#!/usr/bin/env bash
# Losses of training runs against those of diffusers' train_dreambooth.py (training.py made training.txt): every forward
# pass within 1e-5.
# usage: test_training.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
program=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0 cases=0

"$program" init --preset tiny --seed 1 "$work/model" >/dev/null || exit 1
mkdir "$work/turned" && cp "$source"/tests/golden/images/exif_[1-8].jpg "$work/turned"
cat >"$work/base.yaml" <<YAML
pretrained_model_name_or_path: $work/model
instance_data_dir: $source/demo/blue-fox
instance_prompt: a photo of sks fox
class_data_dir: $source/demo/blue-fox
class_prompt: a photo of a fox
learning_rate: 1e-4
YAML

while IFS='|' read -r left expected; do
    read -r name keys <<<"$left"
    sets=(--set "output_dir=$work/$name")
    for key in $keys; do sets+=(--set "$key"); done
    [ "$name" = crops ] && sets+=(--set "instance_data_dir=$work/turned")
    cases=$((cases + 1))
    if ! "$program" train "$work/base.yaml" "${sets[@]}" >"$work/log" 2>&1; then
        echo "failed: $name: $(cat "$work/log")" >&2
        failures=$((failures + 1))
        continue
    fi
    # One number a line: the passes' losses where gradients are accumulated, else the step's.
    sed -n 's/.*"micro_losses": \[\(.*\)\].*/\1/p; t; s/.*"loss": \([^,]*\),.*/\1/p' "$work/$name/metrics.jsonl" |
        tr -d ' ' | tr ',' '\n' >"$work/actual"
    tr ' ' '\n' <<<"$expected" | sed '/^$/d' >"$work/expected"
    paste "$work/expected" "$work/actual" | awk -v name="$name" '
        NF != 2 || !($2 > 0) { print "failed: " name ": pass " NR ": " $0; bad = 1; next }
        { e = ($2 - $1) / $1; if (e < 0) e = -e; if (e > worst) worst = e }
        END { printf "%s: %d passes, worst relative difference %.1e\n", name, NR, worst; exit bad || worst > 1e-5 || !NR }' ||
        failures=$((failures + 1))
done <"$source/tests/golden/training.txt"

[ "$cases" -ge 6 ] || { echo "failed: only $cases cases" >&2; failures=1; }
exit $((failures > 0))
