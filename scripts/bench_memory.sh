#!/usr/bin/env bash
# Step time, peaks and bytes moved against the device budget, for two models of random weights: a tiny and a medium one.
# Takes two minutes; on a quiet machine. Writes memory_tiny.svg and memory_medium.svg (docs/results.md shows them) and
# their figures as JSON. usage: scripts/bench_memory.sh BUILD_DIR [FOLDER] [STEPS]
#   PROFILE=this.yaml   what `pagebooth bench --profile` has measured of this machine; else it is measured first
set -euo pipefail
program=$1/pagebooth folder=${2:-docs} steps=${3:-8}
source=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
profile=${PROFILE:-$work/this.yaml}
mkdir "$work/swap"
[ -f "$profile" ] || "$program" bench --profile "$profile" --nvme "$work/swap" --quick

bench() {  # preset, resolution, host memory, budgets
    "$program" init --preset "$1" --seed 1 "$work/$1" >/dev/null
    echo "== $1"
    "$program" bench --memory "$source/tests/fault/tiny.yaml" --set "pretrained_model_name_or_path=$work/$1" \
        --set "instance_data_dir=$source/demo/blue-fox" --set "resolution=$2" --set train_batch_size=1 --set threads=auto \
        --set train_text_encoder=false --set "memory.profile=$profile" --set "memory.host=$3" --set "memory.nvme=$work/swap" \
        --budgets "$4" --steps "$steps" -o "$work/out" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
    cp "$work/out/memory.svg" "$folder/memory_$1.svg"
    cp "$work/out/memory.json" "$folder/memory_$1.json"
}
bench tiny 64 8MiB 12MiB,10MiB,8MiB,6MiB,4MiB,2MiB,1MiB
bench medium 256 1GiB 3GiB,2GiB,1536MiB,1GiB,512MiB,256MiB,128MiB
