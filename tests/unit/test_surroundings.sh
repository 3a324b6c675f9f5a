#!/usr/bin/env bash
# A machine that does not wish us well: streams that are closed, limits on the size of files, a disk that is too small,
# signals, names and links that somebody has planted, weights that are not finite.
# usage: test_surroundings.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
. "$2/tests/prelude.sh"
cd "$work" || exit 1

# says CODE WORD COMMAND...: the exit code, and a word of the only message.
says() {
    local code=0 wanted=$1 word=$2
    shift 2
    timeout 60 "$@" >out 2>err </dev/null || code=$?
    [ "$code" = "$wanted" ] || fail "$*: exit code $code: $(cat err)"
    [ -z "$word" ] || grep -q -- "$word" err || fail "$*: no \"$word\" in: $(cat err)"
    [ "$wanted" != 1 ] || [ "$(grep -c '^pagebooth: error' err)" = 1 ] || fail "$*: not one error: $(cat err)"
}

"$program" init --preset tiny --seed 1 model >/dev/null || { fail "no model"; exit 1; }
cat >base.yaml <<YAML
pretrained_model_name_or_path: model
instance_data_dir: $pictures
instance_prompt: a photo of sks fox
resolution: 32
center_crop: true
train_batch_size: 2
max_train_steps: 4
checkpointing_steps: 2
seed: 3
YAML

# Progress never lands in a file that has got the number of a closed stream.
"$program" train base.yaml --set output_dir=closed <&- >&- 2>&- || fail "train with closed streams"
"$program" train base.yaml --set output_dir=mute 2>&- || fail "train without stderr"
for out in closed mute; do
    [ -s $out/.lock ] && fail "$out: something was written into .lock: $(head -1 $out/.lock)"
    [ "$(grep -c '"loss"' $out/metrics.jsonl)" = 4 ] || fail "$out: metrics.jsonl has not 4 steps"
done
"$program" inspect model >&- 2>/dev/null && fail "inspect did not miss stdout"
"$program" tokenize model <&- 2>/dev/null && fail "tokenize did not miss stdin"

# A reader of the progress that goes away.
"$program" train base.yaml --set output_dir=unread 2> >(head -c 1 >/dev/null) || fail "the run ended with its reader"
[ -f unread/model_index.json ] || fail "unread: no model"

# Under nohup, the terminal goes and the run stays; without, it stops in good order.
for how in nohup env; do
    $how "$program" train base.yaml --set output_dir=$how --set max_train_steps=100000 --set checkpointing_steps=100000 \
        >/dev/null 2>$how.log &
    pid=$!
    for _ in $(seq 300); do
        [ -s $how/metrics.jsonl ] && break
        sleep 0.1
    done
    steps=$(wc -l <$how/metrics.jsonl)
    kill -HUP $pid
    if [ $how = nohup ]; then
        for _ in $(seq 300); do
            [ "$(wc -l <$how/metrics.jsonl)" -gt $((steps + 3)) ] && break
            sleep 0.1
        done
        kill -TERM $pid || fail "nohup did not keep the run"
    fi
    wait $pid
    [ $? = 130 ] || fail "$how: $(tail -1 $how.log)"
done

# Files that may not grow, and disks that are too small. (The limit is in KiB; the messages go through a pipe.)
limited() { # CODE WORD COMMAND...
    local wanted=$1 word=$2
    shift 2
    text=$( (ulimit -f 100; exec "$@") 2>&1 | cat; exit "${PIPESTATUS[0]}")
    [ $? = "$wanted" ] && grep -q -- "$word" <<<"$text" || fail "$*: under ulimit -f: $text"
}
limited 1 "ulimit -f" "$program" train base.yaml --set output_dir=limited
[ -z "$(find limited -name '.p*' -o -name '*.tmp' -o -name 'checkpoint-*')" ] || fail "limited: $(find limited)"
limited 1 "ulimit -f" "$program" init --preset tiny limited-model
limited 1 "ulimit -f" "$program" codec 8bit --inputs model/unet/diffusion_pytorch_model.safetensors --outputs limited.st
[ -z "$(ls -d limited?* 2>/dev/null)" ] || fail "left: $(ls -d limited?*)"
disk() { # SIZE OUT KEY=VALUE...: a run on a disk of its own
    local size=$1 out=$2 sets=()
    shift 2
    for set in "$@"; do sets+=(--set "$set"); done
    mkdir -p disk
    unshare -rm bash -c 'mount -t tmpfs -o size='"$size"' tmpfs disk && touch mounted && "$@" 2>err; code=$?
        find disk -name "checkpoint-*" -o -name "*.tmp" -o -name unet >left; exit $code' \
        - "$program" train base.yaml --set "output_dir=disk/$out" "${sets[@]}" 2>/dev/null
}
disk 4m small
if [ -f mounted ]; then
    grep -q "left, but a checkpoint needs" err || fail "a disk too small for a checkpoint: $(cat err)"
    grep -q "^step [0-9]" err && fail "it trained before it noticed"
    disk 1m small checkpointing_steps=100
    grep -q "left, but the finished pipeline needs" err || fail "a disk too small for the result: $(cat err)"
    [ -s left ] && fail "left on the disk: $(cat left)"
fi

# A timeline that cannot be written costs nothing: not a run, and never its result.
says 1 "cannot make the directory /proc" "$program" train base.yaml --set output_dir=untimed --timeline /proc/none
grep -q "^step [0-9]" err && fail "it trained before it noticed: $(cat err)"
mkdir -p timeline/step.json
says 1 "is the fine-tuned pipeline, but its timeline" "$program" train base.yaml --set output_dir=timed --timeline timeline
[ -f timed/model_index.json ] || fail "timed: the result was lost"

# What is planted in the folder of a run, or at its name.
mkdir planted elsewhere && mkfifo planted/metrics.jsonl
says 1 "no regular file; remove it" "$program" train base.yaml --set output_dir=planted
rm planted/metrics.jsonl && head -c 100 /dev/urandom >planted/run.json
says 1 "run.json.*" "$program" train base.yaml --set output_dir=planted
grep -q "damaged; remove it" err || fail "run.json: $(cat err)"
rm planted/run.json && ln -s ../elsewhere planted/validation
says 1 "is no folder; remove it" "$program" train base.yaml --set output_dir=planted --set validation_prompt=x
ln -s elsewhere link
says 1 "symbolic link" "$program" train base.yaml --set output_dir=link/
[ -z "$(ls -A elsewhere)" ] || fail "something was written through a link"
says 1 "would replace it" "$program" train base.yaml --set output_dir=model/../model/

# Names that would clear the screen, and a suggestion that would be another command.
mkdir names && cp "$pictures"/0.png names/$'a\nb\xff.png' && echo text >names/$'note\e[2J\n.txt'
"$program" train base.yaml --set output_dir=named --set instance_data_dir=names 2>err || fail "names: $(cat err)"
grep -q 'skipped names/note\\x1b\[2J\\n.txt' err || fail "names: $(cat err)"
printf 'RIFF1234WEBPVP8 0123456789abcdef' >"it's.webp"
says 1 "dwebp 'FILE'" "$program" grid "it's.webp" -o grid.png
header='{"a\u001b[2J":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}'
printf '%b%s1234' "\\x$(printf %x ${#header})\\0\\0\\0\\0\\0\\0\\0" "$header" >names.safetensors
says 1 'tensor "a\\x1b\[2J"' "$program" inspect names.safetensors
says 1 "^pagebooth: error: instance_prompt: the text is not UTF-8" \
    "$program" train base.yaml --set $'instance_prompt=\xff' --set output_dir=latin

# What people take for a pipeline.
mkdir lora single && cp model/unet/*.safetensors lora/pytorch_lora_weights.safetensors
cp model/unet/*.safetensors single/v1-5-pruned.safetensors
says 1 "lora is a LoRA" "$program" inspect lora
says 1 "from_single_file(FILE)" "$program" train base.yaml --check --set pretrained_model_name_or_path=single
says 1 "from_single_file(FILE)" "$program" generate single/v1-5-pruned.safetensors --prompt x -o pictures
says 1 "model/unet is one part of a pipeline: name the directory that it lies in" "$program" inspect model/unet
says 1 "there is no model at CompVis/sd in $PWD, nor in the cache.*huggingface-cli download CompVis/sd" \
    "$program" train base.yaml --check --set pretrained_model_name_or_path=CompVis/sd
says 1 "nothing is downloaded; name a directory" \
    "$program" train base.yaml --check --set pretrained_model_name_or_path=https://example.org/model
mkdir flux && cp -r model/text_encoder model/vae flux
echo '{"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}' >flux/model_index.json
says 1 "is a FluxPipeline; this program trains" "$program" train base.yaml --check --set pretrained_model_name_or_path=flux
"$program" inspect flux >out || fail "inspect flux"
grep -q "transformer: FluxTransformer2DModel, not looked into" out && grep -q "(flux is a FluxPipeline; this program" out ||
    fail "inspect flux: $(cat out)"
"$program" inspect model | grep -q "not looked\|this program" && fail "inspect model: $("$program" inspect model)"

# A model that cannot make pictures.
cp -r model channels && sed -i 's/"out_channels": 3/"out_channels": 1/' channels/vae/config.json
says 1 "pictures have 3 channels" "$program" generate channels --prompt x --steps 1 -o pictures
cp -r model damaged
size=$(stat -c %s damaged/unet/diffusion_pytorch_model.safetensors)
printf '\0\0\300\177' | dd of=damaged/unet/diffusion_pytorch_model.safetensors bs=1 seek=$((size - 4)) conv=notrunc status=none
says 1 "damaged: its pictures in F32 are not finite" "$program" generate damaged --prompt x --steps 1 -o pictures
[ ! -e pictures ] || fail "pictures of a damaged model were written"

# What stands in the place of weights, and what the result could not take over, is said before anything is made.
refuses() { # WORD MODEL: neither looked at nor trained, and nothing left
    for check in "" --check; do
        says 1 "$1" "$program" train base.yaml $check --set "pretrained_model_name_or_path=$2" --set output_dir=no/where
        [ ! -e no ] || fail "$2: left: $(find no)"
    done
}
cp -r model changed
weights=changed/unet/diffusion_pytorch_model.safetensors
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n' >$weights
refuses "is a Git LFS pointer, not the weights: fetch them with .git lfs pull" changed
echo '<!DOCTYPE html><title>Sign in</title>' >$weights
refuses "is a web page, not the weights" changed
sed 's/"F32","shape":\[16,4,3,3\]/"I32","shape":[16,4,3,3]/' model/unet/diffusion_pytorch_model.safetensors >$weights
refuses "the tensor conv_in.weight is I32, and weights are read in F32" changed
rm $weights && ln -s nowhere $weights
refuses "diffusion_pytorch_model.safetensors: it is a symbolic link that leads nowhere" changed
rm -r changed && cp -r model changed && mkdir changed/safety_checker && ln -s nowhere changed/safety_checker/model.safetensors
sed -i 's/"safety_checker": \[null, null\]/"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]/' changed/model_index.json
refuses "safety_checker/model.safetensors: it is a symbolic link that leads nowhere" changed
rm -r changed && cp -r damaged changed
says 1 "step 1: .*not finite.*nothing was learned before it: weights of the model are damaged" \
    "$program" train base.yaml --set pretrained_model_name_or_path=changed --set output_dir=infinite

# A model that goes away while it is trained costs nothing: what was learned is in a checkpoint, and the result is made of it.
rm -r changed && cp -r model changed
vanish=(train base.yaml --set pretrained_model_name_or_path=changed --set max_train_steps=120 --set checkpointing_steps=1000)
"$program" "${vanish[@]}" --set output_dir=stays 2>/dev/null || fail "stays"
"$program" "${vanish[@]}" --set output_dir=vanishes 2>vanishes.log &
pid=$!
for _ in $(seq 300); do
    [ -s vanishes/metrics.jsonl ] && break
    sleep 0.02
done
kill -STOP $pid && mv changed/scheduler aside && kill -CONT $pid
wait $pid
[ $? = 1 ] && grep -q "error: .*what was trained is in vanishes/checkpoint-120: with resume_from" vanishes.log ||
    fail "vanishes: $(tail -1 vanishes.log)"
mv aside changed/scheduler
"$program" "${vanish[@]}" --set output_dir=vanishes --set resume_from_checkpoint=latest 2>vanishes.log || fail "vanishes: $(cat vanishes.log)"
cmp stays/unet/diffusion_pytorch_model.safetensors vanishes/unet/diffusion_pytorch_model.safetensors || fail "vanishes: another result"

# Checkpoints that are damaged are named, whatever of them is; where none is whole, nothing is begun over them.
resume=(train base.yaml --set output_dir=closed --set max_train_steps=6 --set resume_from_checkpoint=latest)
echo x >>closed/checkpoint-4/trainer.json
says 0 "closed/checkpoint-4/trainer.json: damaged: .*passing this checkpoint over" "$program" "${resume[@]}" --check
grep -q "goes on from closed/checkpoint-2, after step 2 of 6 (its large files are compared" out || fail "closed: $(cat out)"
: >closed/checkpoint-2/manifest.json
for check in --check ""; do
    says 1 "none of the checkpoints in closed is whole, of 2; to start afresh" "$program" "${resume[@]}" $check
done
[ -d closed/checkpoint-2 ] && [ -d closed/checkpoint-4 ] || fail "closed: checkpoints are gone"

# Memory: `auto` for the host is what it has where the plan may take what it likes of the device.
says 0 "" "$program" plan base.yaml --set memory.placement=host --json
says 1 "set a smaller memory.device" "$program" plan base.yaml --set memory.placement=host --set memory.device=900TiB
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    chmod 755 "$work" && chmod 700 model/unet
    says 1 "model/unet/config.json: Permission denied" \
        setpriv --reuid=65534 --clear-groups "$program" plan base.yaml --json
fi

passed "surroundings: survived"
