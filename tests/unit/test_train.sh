#!/usr/bin/env bash
# Whole runs of `pagebooth train` on a tiny random model and the demo's pictures: what they write, that an interrupted run
# continues bit for bit, and what is refused.
# usage: test_train.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
. "$2/tests/prelude.sh"
cd "$work" || exit 1

# become OUT KEY=VALUE...: a run of the base configuration in place of this shell; its messages are in OUT.log. After
# `become ... &` the process is the program's, and can be killed.
become() {
    local sets=()
    for set in "${@:2}"; do sets+=(--set "$set"); done
    exec "$program" train base.yaml --set "output_dir=$1" "${sets[@]}" >"$1.log" 2>&1
}

train() {
    (become "$@")
}

refused() { # WORD OUT KEY=VALUE...: the run fails with a message that has WORD
    local word=$1
    shift
    train "$@" && fail "$*: not refused"
    grep -q -- "$word" "$1.log" || fail "$*: no \"$word\" in: $(cat "$1.log")"
}

same_result() { # A B
    for file in unet/diffusion_pytorch_model.safetensors text_encoder/model.safetensors; do
        cmp "$1/$file" "$2/$file" || fail "$1 and $2 differ in $file"
    done
    cmp <(sed 's/"seconds.*//' "$1/metrics.jsonl") <(sed 's/"seconds.*//' "$2/metrics.jsonl") || fail "$1, $2: metrics differ"
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
learning_rate: 1e-4
max_train_steps: 8
checkpointing_steps: 3
seed: 3
YAML

# A whole run: five pictures in batches of two are three steps an epoch.
train whole || fail "whole: $(cat whole.log)"
[ "$(grep -c '"loss"' whole/metrics.jsonl)" = 8 ] || fail "whole: metrics.jsonl does not have 8 steps"
grep -q '"step": 4, "epoch": 1,' whole/metrics.jsonl || fail "whole: step 4 is not in epoch 1"
for file in model_index.json config.yaml run.json scheduler/scheduler_config.json tokenizer/vocab.json \
    vae/diffusion_pytorch_model.safetensors unet/config.json text_encoder/config.json checkpoint-6/manifest.json; do
    [ -f "whole/$file" ] || fail "whole: no $file"
done
[ -n "$(find whole -name '.p*')" ] && fail "whole: something temporary is left: $(find whole -name '.p*')"
cmp -s whole/unet/diffusion_pytorch_model.safetensors model/unet/diffusion_pytorch_model.safetensors &&
    fail "whole: the UNet did not change"
cmp whole/vae/diffusion_pytorch_model.safetensors model/vae/diffusion_pytorch_model.safetensors || fail "the VAE changed"
train again && same_result whole again

# What config.yaml says reads back to the same run.
"$program" train whole/config.yaml --set output_dir=reread >reread.log 2>&1 && same_result whole reread

# Killed at any moment, then resumed, in the middle of an epoch as well.
for delay in 0.05 0.2 0.4 0.7; do
    rm -rf killed
    become killed &
    pid=$!
    sleep "$delay"
    { kill -9 "$pid" && wait "$pid"; } 2>/dev/null
    train killed resume_from_checkpoint=latest || fail "killed after $delay s: $(cat killed.log)"
    same_result whole killed
done

# A damaged checkpoint is noticed, and the one before it is taken.
train damaged checkpointing_steps=2 checkpoints_total_limit=0
rm damaged/run.json
printf x | dd of=damaged/checkpoint-8/optimizer.safetensors bs=1 seek=5000 conv=notrunc status=none
train damaged resume_from_checkpoint=latest checkpointing_steps=100 || fail "damaged: $(cat damaged.log)"
grep -q "goes on from damaged/checkpoint-6" damaged.log || fail "damaged: $(cat damaged.log)"
same_result whole damaged
refused damaged damaged resume_from_checkpoint=checkpoint-8
refused "no damaged/checkpoint-5" damaged resume_from_checkpoint=checkpoint-5
refused "resolution" damaged resume_from_checkpoint=checkpoint-6 resolution=64

# A finished run has nothing to do; `latest` without a checkpoint starts afresh.
train whole resume_from_checkpoint=latest || fail "finished: $(cat whole.log)"
grep -q "nothing is left to do" whole.log || fail "finished: $(cat whole.log)"
train fresh resume_from_checkpoint=latest && same_result whole fresh

# A signal ends the run after the step, with a checkpoint; a second process is turned away.
become stopped max_train_steps=100000 &
pid=$!
for _ in $(seq 100); do
    [ -s stopped/metrics.jsonl ] && break
    sleep 0.1
done
sets=(--set output_dir=stopped)
"$program" train base.yaml "${sets[@]}" >second.log 2>&1 && fail "two runs in one folder"
grep -q "another pagebooth" second.log || fail "two runs: $(cat second.log)"
kill -TERM "$pid"
wait "$pid"
[ $? = 130 ] || fail "stopped: the exit code is not 130"
step=$(sed -n 's/.*interrupted: step \([0-9]*\) of.*/\1/p' stopped.log)
[ -f "stopped/checkpoint-$step/manifest.json" ] || fail "stopped: $(cat stopped.log)"

# Variants: accumulation is the same as a larger batch but for rounding; parts of a batch likewise; low precision.
loss() { # OUT: of the last step
    sed -n '$s/.*"loss": \([^,]*\),.*/\1/p' "$1/metrics.jsonl"
}
close() { # A B TOLERANCE
    awk -v a="$(loss "$1")" -v b="$(loss "$2")" -v t="$3" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 <= (t * a) ^ 2) }' ||
        fail "$1 and $2: losses $(loss "$1") and $(loss "$2")"
}
train parts memory.micro_batch=1 && close whole parts 1e-5
train bf16 mixed_precision=bf16 && close whole bf16 1e-2
train fp16 mixed_precision=fp16 && close whole fp16 1e-2
grep -q '"loss_scale": ' fp16/metrics.jsonl || fail "fp16: no loss_scale"
train accumulated gradient_accumulation_steps=2 max_train_steps=4 || fail "accumulated: $(cat accumulated.log)"
[ "$(grep -o '"micro_losses": \[[^]]*\]' accumulated/metrics.jsonl | tr -cd ',\n' | awk '{ print length }' | xargs)" = "1 0 1 0" ] ||
    fail "accumulated: not two passes and one in turn"
train precise save_precision=fp16 || fail "precise: $(cat precise.log)"
for file in precise/unet/*.safetensors precise/vae/*.safetensors precise/text_encoder/*.safetensors; do
    "$program" inspect "$file" | grep F16 >/dev/null || fail "$file is not in fp16"
done

# Class pictures are made, and count for the length of an epoch.
train prior with_prior_preservation=true class_data_dir=class "class_prompt=a fox" num_class_images=3 max_train_steps=2 ||
    fail "prior: $(cat prior.log)"
[ "$(ls class/*.jpg | wc -l)" = 3 ] || fail "prior: not 3 class pictures"
# Where the model's own sampler is not one of ours, by another one, which is said.
cp -r model ancestral && sed -i 's/"_class_name": "[A-Za-z]*"/"_class_name": "EulerAncestralDiscreteScheduler"/' \
    ancestral/scheduler/scheduler_config.json && sed -i s/PNDMScheduler/EulerAncestralDiscreteScheduler/ ancestral/model_index.json
train ancestors pretrained_model_name_or_path=ancestral with_prior_preservation=true class_data_dir=class2 \
    "class_prompt=a fox" num_class_images=1 max_train_steps=1 || fail "ancestors: $(cat ancestors.log)"
grep -q "DDIM: .*EulerAncestral" ancestors.log || fail "ancestors: $(cat ancestors.log)"
grep -q EulerAncestral ancestors/scheduler/scheduler_config.json || fail "ancestors: the result has another scheduler"
[ "$(ls class2/*.jpg | wc -l)" = 1 ] || fail "ancestors: not 1 class picture"

# What cannot work is refused before anything is written.
mkdir stray && cp "$pictures"/0.png stray && echo text >stray/notes.txt
train strayed instance_data_dir=stray max_train_steps=1 || fail "strayed: $(cat strayed.log)"
grep -q "skipped stray/notes.txt" strayed.log || fail "strayed: $(cat strayed.log)"
refused notes.txt strict instance_data_dir=stray strict_images=true
head -c 200 "$pictures/0.png" >stray/torn.png
refused torn.png torn instance_data_dir=stray
mkdir empty
refused "no JPEG or PNG" nothing instance_data_dir=empty
refused "divisible by" odd resolution=33
refused "memory.device" small memory.device=100KB
refused "not finite" wild learning_rate=1000 adam_weight_decay=1000 max_train_steps=60
[ -e wild/model_index.json ] && fail "wild: a model was written"
mkdir elsewhere && ln -s elsewhere link
refused "symbolic link" link
[ -z "$(ls elsewhere)" ] || fail "something was written through a link"

# --check: what the run would do in output_dir and whether it could, with nothing written.
check() { # CODE WORD OUT KEY=VALUE...
    local code=0 wanted=$1 word=$2 sets=() before
    shift 2
    for set in "${@:2}"; do sets+=(--set "$set"); done
    before=$(find . | sort)
    "$program" train base.yaml --check --set "output_dir=$1" "${sets[@]}" >../check.log 2>&1 || code=$?
    [ "$code" = "$wanted" ] && grep -q -- "$word" ../check.log || fail "check $*: $code: $(cat ../check.log)"
    [ "$(find . | sort)" = "$before" ] || fail "check $*: something was written"
}
mkdir looked && mv model base.yaml again damaged whole looked && cp -r "$pictures" looked/photos && cd looked || exit 1
check 0 "^memory:" unmade
check 0 "starts afresh in unmade/deep, which will be made" unmade/deep
check 0 "goes on from damaged/checkpoint-[0-9]*, after step [0-9]* of 20" damaged resume_from_checkpoint=latest max_train_steps=20
check 0 "this run has done its 8 steps" whole resume_from_checkpoint=latest
check 0 "checkpoints of an earlier run.*latest would go on" whole
check 1 "would replace it" model
mkdir mine && cp model/model_index.json mine
check 1 "no run has left there" mine
check 1 "is no folder" base.yaml
check 1 "nothing can be written in\|left, but" /proc/none
check 1 "output_dir: cannot look at base.yaml/deep" base.yaml/deep
check 1 "no whole/checkpoint-5; there are checkpoint-6, checkpoint-3" whole resume_from_checkpoint=checkpoint-5
check 1 "\`mixed_precision\` was no when the checkpoint was made, and is bf16" damaged resume_from_checkpoint=latest \
    mixed_precision=bf16 max_train_steps=20
check 1 "\`train_text_encoder\` was true when" again resume_from_checkpoint=checkpoint-6/ train_text_encoder=false
rm photos/1.png
check 1 "1.png is gone" again resume_from_checkpoint=checkpoint-6 instance_data_dir=photos
cp -r model bare && rm bare/vae/*.safetensors
check 1 "bare/vae has no weights" unmade pretrained_model_name_or_path=bare
cp model/vae/*.safetensors bare/unet/diffusion_pytorch_model.safetensors
check 1 "bare/unet" unmade pretrained_model_name_or_path=bare
check 1 "variant: model has no weights named \`fp15\`, and none of another name" unmade variant=fp15
mv bare/unet/diffusion_pytorch_model.safetensors bare/unet/diffusion_pytorch_model.fp16.safetensors
check 1 "no weights named \`fp15\`, but has \`fp16\`" unmade pretrained_model_name_or_path=bare variant=fp15
check 1 "revision: \`v2\` names a snapshot" unmade revision=v2
check 0 "output:" unmade revision=main

# Photos as they come: --check reads them all.
check 0 "photos are smaller than the resolution, 2048, and will be enlarged" unmade instance_data_dir=photos resolution=2048
cp "$source"/tests/golden/images/{cmyk,exif_6,grey,rgb_progressive}.jpg "$source"/tests/golden/images/png_4_8.png photos
touch photos/Thumbs.db photos/.DS_Store photos/._0.png && mkdir photos/more
check 0 "skipped photos/more: it is a folder" unmade instance_data_dir=photos
grep -q "^pictures: 9 of the subject" ../check.log || fail "photos: $(cat ../check.log)"
: >photos/5.JPG
check 1 "photos/5.JPG is no picture, whatever it is called" unmade instance_data_dir=photos
head -c 300 "$source"/tests/golden/images/rgb_progressive.jpg >photos/5.JPG
check 1 "photos/5.JPG" unmade instance_data_dir=photos
printf '\0\0\0\030ftypheic\0\0\0\0mif1heic' >photos/5.JPG
check 1 "photos/5.JPG: a HEIC picture; convert it" unmade instance_data_dir=photos
rm photos/5.JPG
check 1 "the same folder as instance_data_dir" unmade instance_data_dir=photos class_data_dir=./photos/ class_prompt=x \
    with_prior_preservation=true
mkdir nested && mv photos nested
check 1 "its folders are not gone through" unmade instance_data_dir=nested

# What has changed since the checkpoint is said where it may change, and refused before anything else is done.
train again resume_from_checkpoint=checkpoint-6 checkpointing_steps=7 max_train_steps=9 "instance_prompt=another" || fail "changed: $(cat again.log)"
grep -q 'has changed: instance_prompt was "a photo of sks fox", max_train_steps was 8' again.log || fail "changed: $(cat again.log)"
refused "was 32 when the checkpoint was made, and is 64" again resume_from_checkpoint=checkpoint-7 resolution=64
grep -q "encoded" again.log && fail "it encoded the pictures before it compared: $(cat again.log)"

passed "training runs: as promised"
