#!/usr/bin/env bash
# Teaches the small model under demo/ a character that it has never seen, and shows what it makes of a few prompts before
# and after: eight fixed seeds, nothing picked. Everything goes to demo/out.
# usage: scripts/demo.sh [PROGRAM]
set -euo pipefail
cd "$(dirname "$0")/.."
pagebooth=${1:-./pagebooth}
base=demo/emoji-sd
out=demo/out
seeds=8
prompts=(
    "a picture of a sks fox"
    "a picture of a sks fox on a green background"
    "a picture of a sks fox on a pink background"
    "a picture of a sks fox on a black background"
    "a picture of a fox"
    "a picture of a fox on a yellow background"
)

picture() { # MODEL PROMPT FOLDER
    "$pagebooth" generate "$1" --prompt "$2" --steps 25 --sampler dpmpp2m --guidance 4 --seed 1 --n $seeds --batch $seeds \
        -o "$3" >/dev/null 2>&1
}

rm -rf $out
mkdir -p $out
SECONDS=0
echo "class pictures: 24 foxes by the model itself"
# With a gentler guidance than training's own top-up has: the class keeps its colours (docs/demo.md).
"$pagebooth" generate $base --prompt "a picture of a fox" --steps 25 --sampler dpmpp2m --guidance 3 --seed 7 --n 24 \
    --batch 12 -o $out/class >/dev/null 2>&1
rm $out/class/grid.png

begun=$SECONDS
"$pagebooth" train configs/demo.yaml
echo "training: $((SECONDS - begun)) s"

echo "pictures before and after"
files=()
for i in "${!prompts[@]}"; do
    picture $base "${prompts[i]}" "$out/before/$i"
    picture $out/model "${prompts[i]}" "$out/after/$i"
    files+=("$out/before/$i"/picture-*.png "$out/after/$i"/picture-*.png)
done
"$pagebooth" grid -o $out/before_after.png -c $((2 * seeds)) -g 1 "${files[@]}"
echo "$out/before_after.png: left before, right after; rows:"
printf '    %s\n' "${prompts[@]}"
echo "the demo took $SECONDS s"
