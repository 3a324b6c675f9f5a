#!/usr/bin/env bash
# Pictures that are made during training: they change nothing of the run, whatever it computes in and wherever its
# weights are; they are the same pictures at every budget, and those that `generate` makes of the same weights; a run
# that is stopped in the middle of them goes on to the same end; where they do not fit, the run is refused beforehand.
# usage: test_validation.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
. "$2/tests/exec/runs.sh"
cases=0
wanted=(--set "validation_prompt=a picture of a fox" --set validation_steps=2 --set num_validation_images=3)

train() {  # output directory, then --set KEY=VALUE...
    local out=$1
    shift
    (begin_run --set "output_dir=$out" --set max_train_steps=3 \
        "$@") >"$work/log" 2>&1
}
pictures() {
    (cd "$1/validation" && ls && sha256sum ./*)
}
check() {  # output directory, what it is
    cases=$((cases + 1))
    cmp -s <(fingerprint "$1") "$work/result" || fail "$2: the run has other bytes than without validation pictures"
    cmp -s <(pictures "$1") "$work/pictures" || fail "$2: other pictures"
}
# A run of KEYS without pictures, with, and with them at budgets of which everything but a part is paged.
compare() {  # name, keys...
    local name=$1 key sets=()
    shift
    for key in "$@"; do sets+=(--set "$key"); done
    rm -rf "$work/plain" "$work/with" "$work/host" "$work/nvme"
    train "$work/plain" "${sets[@]}" || { fail "$name"; return; }
    fingerprint "$work/plain" >"$work/result"
    train "$work/with" "${sets[@]}" "${wanted[@]}" || { fail "$name, with pictures"; return; }
    grep -q "step 2: 3 validation pictures in $work/with/validation (step-2-\*.png)" "$work/log" || fail "$name: no word of them"
    pictures "$work/with" >"$work/pictures"
    [ "$(cd "$work/with/validation" && echo *)" = "step-2-0.png step-2-1.png step-2-2.png" ] || fail "$name: which files"
    check "$work/with" "$name"
    train "$work/host" "${sets[@]}" "${wanted[@]}" --set memory.device=9MiB --set memory.host=64MiB || fail "$name, on the host"
    check "$work/host" "$name, on the host"
    train "$work/nvme" "${sets[@]}" "${wanted[@]}" --set memory.device=9MiB --set memory.host=18MiB \
        --set "memory.nvme=$work/swap" || fail "$name, on NVMe"
    check "$work/nvme" "$name, on NVMe"
    [ -z "$(find "$work/swap" -type f 2>/dev/null)" ] || fail "$name: a swap file is left"
}
# The last step's pictures against `generate` on the finished pipeline; the PNGs' texts differ, grids of them do not.
compare_generate() {  # dtype, keys...
    local dtype=$1 key sets=() images=()
    shift
    for key in "$@"; do sets+=(--set "$key"); done
    rm -rf "$work/with" "$work/generated"
    train "$work/with" "${sets[@]}" "${wanted[@]}" --set max_train_steps=2 || { fail "$dtype, for generate"; return; }
    "$program" generate "$work/with" --prompt "a picture of a fox" --dtype "$dtype" --sampler dpmpp2m --steps 25 --seed 7 \
        --n 3 -o "$work/generated" >"$work/log" 2>&1 || { fail "generate"; return; }
    "$program" grid "$work"/with/validation/step-2-*.png -o "$work/ours.png" >"$work/log" 2>&1 || fail "grid"
    "$program" grid "$work"/generated/picture-*.png -o "$work/theirs.png" >"$work/log" 2>&1 || fail "grid"
    cases=$((cases + 1))
    cmp -s "$work/ours.png" "$work/theirs.png" || fail "$dtype: other pictures than generate's"
}

compare fp32 mixed_precision=no
compare bf16 mixed_precision=bf16 train_batch_size=4
compare split mixed_precision=bf16 optimizer.states=8bit optimizer.master=split16 train_text_encoder=false
compare accumulation mixed_precision=fp16 train_batch_size=1 gradient_accumulation_steps=2
compare_generate fp32 mixed_precision=no
compare_generate bf16 mixed_precision=bf16 train_text_encoder=false

# Stopped while it makes pictures: after the step that it was in, with a checkpoint. Then to the end, elsewhere.
rm -rf "$work/plain" "$work/stopped"
train "$work/plain" --set mixed_precision=bf16 || fail "plain"
fingerprint "$work/plain" >"$work/result"
# (exec: so that the signal reaches the program.)
(begin_run --set "output_dir=$work/stopped" --set max_train_steps=3 \
    --set mixed_precision=bf16 --set memory.device=9MiB --set memory.host=64MiB \
    "${wanted[@]}" --set num_validation_images=4000 >"$work/log" 2>&1) &
pid=$!
for _ in $(seq 3000); do
    [ -f "$work/stopped/validation/step-2-0.png" ] && break
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.02
done
kill -TERM "$pid" 2>/dev/null
wait "$pid"
code=$?
[ "$code" = 130 ] || fail "exit code $code after a signal among the pictures"
[ -f "$work/stopped/checkpoint-2/manifest.json" ] || fail "no checkpoint after a signal among the pictures"
train "$work/stopped" --set mixed_precision=bf16 --set resume_from_checkpoint=latest || fail "going on"
cases=$((cases + 1))
cmp -s <(fingerprint "$work/stopped") "$work/result" || fail "stopped among the pictures: other bytes"

# Too little memory for the pictures, though enough for the steps.
little=(--set resolution=16 --set train_batch_size=1 --set train_text_encoder=false --set memory.device=768KiB
    --set memory.host=32MiB --check)
cases=$((cases + 1))
train "$work/refused" "${little[@]}" || fail "the steps alone"
train "$work/refused" "${little[@]}" "${wanted[@]}" && fail "not refused"
grep -q "with its validation pictures.*without validation_prompt it would fit" "$work/log" || fail "another message"
[ ! -e "$work/refused" ] || fail "something was written before the refusal"

echo "$cases cases, $failures failed"
[ "$failures" = 0 ]
