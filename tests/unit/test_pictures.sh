#!/usr/bin/env bash
# pagebooth generate and tokenize from the command line, with the demo's model.
# usage: test_pictures.sh PROGRAM SOURCE_DIR BUILD_DIR
set -euo pipefail
. "$2/tests/prelude.sh"
model=$source/demo/emoji-sd
# expect CODE TEXT COMMAND...: its exit code and a text in its message
expect() {
    local code=$1 text=$2 given=0
    shift 2
    "$@" >"$work/out" 2>"$work/err" </dev/null || given=$?
    [ "$given" = "$code" ] || fail "$* exits with $given: $(cat "$work/err")"
    grep -qF -- "$text" "$work/err" || fail "$* says: $(cat "$work/err")"
}

# --- tokenize ---
printf '%s\n' '{"text": "a photo of a fox"}' '{"text": ""}' '{"text": "A PHOTO of\ta \u0046ox"}' |
    "$program" tokenize "$model" >"$work/model.jsonl"
printf '%s\n' '{"text": "a photo of a fox"}' '{"text": ""}' '{"text": "A PHOTO of\ta \u0046ox"}' |
    "$program" tokenize "$model/tokenizer" >"$work/folder.jsonl"
cmp "$work/model.jsonl" "$work/folder.jsonl" || fail "a model and its tokenizer differ"
[ "$(wc -l <"$work/model.jsonl")" = 3 ] || fail "not a line of ids for each text"
[ "$(sed -n 1p "$work/model.jsonl")" = "$(sed -n 3p "$work/model.jsonl")" ] || fail "case and white space matter"
[ "$(sed -n 2p "$work/model.jsonl" | grep -o '[0-9]\+' | wc -l)" = 32 ] || fail "not model_max_length ids"
[ "$(sed -n 2p "$work/model.jsonl" | cut -c 1-22)" = '{"ids": [8190, 8191, 8' ] || fail "an empty text is BOS and EOS"
printf '{"text": 1}\n' >"$work/bad"
"$program" tokenize "$model" <"$work/bad" >"$work/out" 2>"$work/err" && fail "a number was taken for a text"
grep -q 'line 1.*"text"' "$work/err" || fail "tokenize says: $(cat "$work/err")"
expect 1 "$work/none" "$program" tokenize "$work/none"

# --- generate ---
settings=(--prompt "a photo of a fox" --steps 2 --seed 7)
"$program" generate "$model" "${settings[@]}" --n 3 -o "$work/three" --save-latents "$work/three.safetensors" >"$work/list"
[ "$(sort "$work/list" | tr '\n' ' ')" = "$work/three/grid.png $work/three/picture-000.png $work/three/picture-001.png \
$work/three/picture-002.png " ] || fail "generate wrote $(cat "$work/list")"
for text in "a photo of a fox" negative_prompt guidance_scale ddim seed; do
    grep -qa "$text" "$work/three/picture-001.png" || fail "\"$text\" is not in the picture's texts"
done
grep -qa '"latents":{"dtype":"F32","shape":\[3,4,16,16\]' "$work/three.safetensors" || fail "no latents"
# The same noise, one picture at a time.
"$program" generate "$model" "${settings[@]}" --n 3 --batch 1 -o "$work/again" >/dev/null
cmp "$work/three/picture-002.png" "$work/again/picture-002.png" || fail "--batch changes the pictures"
"$program" generate "$model" "${settings[@]}" --sampler euler --size 32x48 -o "$work/one" >/dev/null
[ "$(ls "$work/one")" = picture-000.png ] || fail "a grid of one"

# The model's own scheduler may be one that we do not have, or have options that we do not; the message says what to do.
cp -r "$model" "$work/other"
for edit in 's/"_class_name": "[A-Za-z]*"/"_class_name": "UniPCMultistepScheduler"/' \
    's/"_class_name": "[A-Za-z]*"/"_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": true/'; do
    sed "$edit" "$model/scheduler/scheduler_config.json" >"$work/other/scheduler/scheduler_config.json"
    class=$(sed -n 's/.*"_class_name": "\([A-Za-z]*\)".*/\1/p' "$work/other/scheduler/scheduler_config.json")
    sed "s/DDIMScheduler/$class/" "$model/model_index.json" >"$work/other/model_index.json"
    expect 1 "--sampler ddim" "$program" generate "$work/other" "${settings[@]}" -o "$work/x"
    [ ! -e "$work/x" ] || fail "a refused command leaves a folder"
    "$program" generate "$work/other" "${settings[@]}" --sampler ddim -o "$work/x" >/dev/null
    rm -r "$work/x"
done
# The class in model_index.json is the one that counts, as for diffusers.
cp "$model/model_index.json" "$work/other"
sed 's/"_class_name": "[A-Za-z]*"/"_class_name": "PNDMScheduler"/' "$model/scheduler/scheduler_config.json" \
    >"$work/other/scheduler/scheduler_config.json"
"$program" generate "$work/other" "${settings[@]}" -o "$work/x" --save-latents "$work/x.safetensors" >/dev/null
"$program" generate "$model" "${settings[@]}" -o "$work/own" --save-latents "$work/own.safetensors" >/dev/null
cmp "$work/x.safetensors" "$work/own.safetensors" || fail "scheduler_config.json goes before model_index.json"
rm -r "$work/x"
# A sample_size below 64 from before diffusers 0.9 means 64, of latents.
size_of() { od -An -tx1 -j16 -N8 "$1" | tr -d ' \n'; }
sed 's/"_diffusers_version": "[^"]*"/"_diffusers_version": "0.8.1"/' "$model/unet/config.json" >"$work/other/unet/config.json"
"$program" generate "$work/other" --prompt x --steps 1 --sampler ddim -o "$work/old" >/dev/null
[ "$(size_of "$work/old/picture-000.png")" = 0000010000000100 ] || fail "sample_size of before diffusers 0.9"
[ "$(size_of "$work/one/picture-000.png")" = 0000002000000030 ] || fail "--size"

expect 2 "--prompt" "$program" generate "$model" -o "$work/x"
expect 2 "-o DIR" "$program" generate "$model" --prompt x
expect 2 "dpmpp2m" "$program" generate "$model" --prompt x -o "$work/x" --sampler dpm
expect 2 "--dtype" "$program" generate "$model" --prompt x -o "$work/x" --dtype fp8
expect 2 "multiples of 4" "$program" generate "$model" --prompt x -o "$work/x" --size 30x32
expect 2 "from 1 to 1000" "$program" generate "$model" --prompt x -o "$work/x" --steps 1001
expect 1 "$work/none" "$program" generate "$work/none" --prompt x -o "$work/x"
expect 1 "a smaller --batch or --size needs less" "$program" generate "$model" --prompt x -o "$work/x" \
    --size 16384x16384 --n 8 --batch 8
! grep -q "train_batch_size\|memory.device" "$work/err" || fail "generate says: $(cat "$work/err")"
expect 2 'no weights named `fp16`' "$program" generate "$model" --prompt x -o "$work/x" --variant fp16
[ ! -e "$work/x" ] || fail "a refused command leaves a folder"
: >"$work/file"
expect 1 "$work/file" "$program" generate "$model" --prompt x -o "$work/file"
passed "pictures and ids"
