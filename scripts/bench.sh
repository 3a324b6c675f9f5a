#!/usr/bin/env bash
# Seconds per training step of the SD 1.4 UNet at 256 x 256, fp32 and bf16; and, where a Python with PyTorch and diffusers
# is named (PYTHON=...), theirs on the same machine, the two by turns. usage: scripts/bench.sh BUILD_DIR [ROUNDS]
set -euo pipefail
build=$1 rounds=${2:-1}
source=$(cd "$(dirname "$0")/.." && pwd)
for dtype in fp32 bf16; do
    for ((round = 0; round < rounds; round++)); do
        "$build/tests/bench_step" --preset sd14 --dtype $dtype --batch 1 --size 256 --steps 4
        [ -z "${PYTHON:-}" ] || "$PYTHON" "$source/tests/bench/pytorch_step.py" --dtype $dtype --batch 1 --size 256 --steps 4
    done
done
