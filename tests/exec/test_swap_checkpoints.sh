#!/usr/bin/env bash
# Checkpoints of runs whose state lies in a swap file: the file becomes the checkpoint's and the run goes on in another.
# They are resumed at any budget and in every format of the state with the same bytes; damage, links and full disks are
# named; and nobody's file goes missing under a run that still reads it.
# usage: test_swap_checkpoints.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
. "$2/tests/exec/runs.sh"
cases=0
nvme="memory.device=8MiB memory.host=14MiB memory.placement=nvme memory.nvme=$work/swap"
smaller="memory.device=7MiB memory.host=16MiB memory.placement=nvme memory.nvme=$work/other"
host="memory.device=9MiB memory.host=64MiB"

become() {  # output directory, KEY=VALUE...
    local out=$1 sets=() key
    shift
    for key in "$@"; do sets+=(--set "$key"); done
    begin_run --set "output_dir=$out" --set max_train_steps=4 \
        --set checkpointing_steps=1 --set resume_from_checkpoint=latest "${sets[@]}" >"${log:-$work/log}" 2>&1
}
train() {
    (become "$@")
}
check() {  # what it is, command...
    local what=$1
    shift
    cases=$((cases + 1))
    "$@" || fail "$what"
}
same() {  # output directory, what it is
    check "$2: other bytes" cmp -s <(fingerprint "$1") "$work/expected"
}
says() {  # word, ...: the log of a run has each of them
    local word
    for word in "$@"; do check "no \"$word\" in the log" grep -qaF -- "$word" "$work/log"; done
}

# --- Every format, resumed everywhere ---
for format in "mixed_precision=no" "mixed_precision=bf16 optimizer.states=8bit optimizer.master=split8" \
    "mixed_precision=fp16 optimizer.states=16bit" "mixed_precision=bf16 optimizer.master=none"; do
    # shellcheck disable=SC2086
    train "$work/whole" $format || fail "$format, resident"
    fingerprint "$work/whole" >"$work/expected"
    rm -rf "$work/whole"
    # shellcheck disable=SC2086
    train "$work/half" $format $nvme max_train_steps=2 || fail "$format, first half"
    check "$format: no swap file in the checkpoint" [ -f "$work/half/checkpoint-2/state.swap" ]
    for rest in "seed=7" "$host" "$smaller" "$nvme"; do
        cp -r "$work/half" "$work/rest"
        # shellcheck disable=SC2086
        train "$work/rest" $format $rest || fail "$format, resumed with $rest"
        says "goes on from $work/rest/checkpoint-2"
        # Where everything lies as it did, nothing of the swap file is copied.
        [ "$rest" != "$nvme" ] || says "takes the swap file of $work/rest/checkpoint-2 over"
        same "$work/rest" "$format, resumed with $rest"
        rm -rf "$work/rest"
    done
    rm -rf "$work/half"
done

# --- Accumulated gradients and activations lie in the swap file as well, and are not kept ---
bf16=mixed_precision=bf16
sums="$bf16 train_batch_size=1 gradient_accumulation_steps=2"
# shellcheck disable=SC2086
train "$work/whole" $sums || fail "accumulation, resident"
fingerprint "$work/whole" >"$work/expected"
rm -rf "$work/whole"
for sizes in "memory.device=4MiB memory.host=4MiB" "memory.device=3MiB memory.host=4MiB"; do
    # shellcheck disable=SC2086
    train "$work/sums" $sums $sizes "memory.nvme=$work/swap" max_train_steps=2 || fail "accumulation at $sizes"
    swap=$work/sums/checkpoint-2/state.swap
    [ -f "$swap" ] || { fail "no swap file is kept at $sizes"; continue; }
    kept=$((1024 * $(du -k "$swap" | cut -f1)))
    check "what nobody needs is kept at $sizes" [ "$kept" -lt "$(stat -c %s "$swap")" ]
    # shellcheck disable=SC2086
    train "$work/sums" $sums $sizes "memory.nvme=$work/swap" || fail "accumulation at $sizes, resumed"
    same "$work/sums" "accumulation at $sizes"
    rm -rf "$work/sums"
done

# --- The key checkpoint_format; from memory to NVMe; what is private ---
train "$work/whole" $bf16 || fail "resident"
fingerprint "$work/whole" >"$work/expected"
check "a resident run's checkpoints are portable" [ -f "$work/whole/checkpoint-4/optimizer.safetensors" ]
train "$work/raw" $bf16 checkpoint_format=swap max_train_steps=2 || fail "swap without NVMe"
check "no state in memory" [ -f "$work/raw/checkpoint-2/state.safetensors" -a ! -e "$work/raw/checkpoint-2/state.swap" ]
# shellcheck disable=SC2086
train "$work/raw" $bf16 $nvme || fail "resumed on NVMe"
same "$work/raw" "from memory to NVMe"
check "mode of state.swap" [ "$(stat -c %a "$work/raw/checkpoint-4/state.swap")" = 600 ]
check "a swap file is left" [ -z "$(find "$work/swap" "$work/other" -type f 2>/dev/null)" ]
# shellcheck disable=SC2086
train "$work/portable" $bf16 $nvme checkpoint_format=portable || fail "portable"
check "portable" [ -f "$work/portable/checkpoint-4/unet/diffusion_pytorch_model.safetensors" ]
same "$work/portable" "portable checkpoints of a run on NVMe"

# --- Inspection and damage ---
check "inspect" grep -q '^  master .* B in state.swap' <("$program" inspect --verify "$work/raw/checkpoint-4")
check "inspect --json" grep -q '"name":"unet.conv_in.weight.master","dtype":"F32"' \
    <("$program" inspect --json "$work/raw/checkpoint-4")
cp -r "$work/raw" "$work/damaged"
offset=$(sed -n 's/^    {"offset": \([0-9]*\), "bytes".*/\1/p' "$work/raw/checkpoint-4/state.json" | sed -n 3p)
printf x | dd of="$work/damaged/checkpoint-4/state.swap" bs=1 seek=$((offset + 5000)) conv=notrunc status=none
"$program" inspect --verify "$work/damaged/checkpoint-4" >"$work/log" 2>&1 && fail "damage was not seen"
says "damaged/checkpoint-4/state.swap: damaged" "extent 2" "another checkpoint"
rm "$work/damaged/run.json"
# shellcheck disable=SC2086
train "$work/damaged" $bf16 $host resume_from_checkpoint=checkpoint-4 && fail "damage was taken"
says "checkpoint-4/state.swap: damaged" "extent 2"
# shellcheck disable=SC2086
train "$work/damaged" $bf16 $host || fail "latest passes over a damaged one"
says "goes on from $work/damaged/checkpoint-3" "passing this checkpoint over"
same "$work/damaged" "from the one before a damaged one"
rm -r "$work/damaged"
cp -r "$work/raw" "$work/linked"
rm "$work/linked/run.json"
mv "$work/linked/checkpoint-4/state.swap" "$work/elsewhere"
ln -s "$work/elsewhere" "$work/linked/checkpoint-4/state.swap"
# shellcheck disable=SC2086
train "$work/linked" $bf16 $host resume_from_checkpoint=checkpoint-4 && fail "a link was followed"
says "symbolic link"

# --- The newest checkpoint goes away under a run that still reads its file; a second run in the same directories ---
# shellcheck disable=SC2086
log=$work/robbed.log become "$work/robbed" $bf16 $nvme &
pid=$!
for _ in $(seq 3000); do
    grep -qas '^checkpoint-1: .* of the swap file' "$work/robbed.log" && break
    sleep 0.02
done
kill -STOP "$pid"
rm -rf "$work/robbed"/checkpoint-*
# shellcheck disable=SC2086
train "$work/robbed" $bf16 $smaller && fail "a second process trains into the same directory"
says "another pagebooth is training into"
# shellcheck disable=SC2086
train "$work/beside" $bf16 $nvme || fail "a second run with the same directory for swap files"
same "$work/beside" "beside another run"
kill -CONT "$pid"
wait "$pid" || { cp "$work/robbed.log" "$work/log" && fail "robbed of its checkpoint"; }
same "$work/robbed" "robbed of its checkpoint"

# --- No room for the next swap file, once a checkpoint has the last one ---
shim=$3/tests/fault/io_fault.so
if [ -f "$shim" ]; then
    mkdir "$work/count" "$work/full"
    full="memory.device=8MiB memory.host=14MiB memory.placement=nvme"
    # shellcheck disable=SC2086
    (export LD_PRELOAD=$shim PB_FAULT_DIR=$work/count PB_FAULT_LOG=$work/operations
     become "$work/count" $bf16 $full "memory.nvme=$work/count/swap") || fail "counting"
    # The third allocation is that of the file that follows the second checkpoint.
    at=$(awk '$2 == "fallocate" && ++found == 3 {print $1}' "$work/operations")
    # shellcheck disable=SC2086
    (export LD_PRELOAD=$shim PB_FAULT_DIR=$work/full PB_FAULT_KIND=enospc PB_FAULT_AT=$at
     become "$work/full" $bf16 $full "memory.nvme=$work/full/swap") && fail "a full disk was not noticed"
    says "the last checkpoint, which is whole" "free some space" "resume from that checkpoint"
    check "the last checkpoint is not whole" "$program" inspect --verify "$work/full/checkpoint-2" >/dev/null
    check "something is half written" [ -z "$(find "$work/full" -name '.partial*' -o -path '*/swap/*')" ]
    # shellcheck disable=SC2086
    train "$work/full" $bf16 $full "memory.nvme=$work/full/swap" || fail "after a full disk"
    says "goes on from $work/full/checkpoint-2"
    same "$work/full" "after a full disk"
else
    echo "no preload libraries in a build with sanitizers: a full disk in the middle of a run was not tried"
fi

# --- No room for what is to come: refused before the first step ---
mkdir "$work/disk"
export program source work bf16 nvme
export -f train become begin_run
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
    check "a small disk" unshare -m bash -c 'mount -t tmpfs -o size=20m tmpfs "$work/disk" &&
        ! train "$work/disk/out" $bf16 $nvme "memory.nvme=$work/disk/swap" && [ ! -e "$work/disk/out/metrics.jsonl" ]'
    says "one more in each checkpoint" "free some space"
    check "a small disk for copies" unshare -m bash -c 'mount -t tmpfs -o size=20m tmpfs "$work/disk" &&
        ! train "$work/disk/out" $bf16 $nvme && [ ! -e "$work/disk/out/metrics.jsonl" ]'
    says "it lies on another disk" "free some space"
else
    echo "not root: small disks were not tried"
fi

check "a swap file is left" [ -z "$(find "$work/swap" "$work/other" -type f 2>/dev/null)" ]
echo "$cases checks, $failures failed"
[ "$failures" = 0 ]
