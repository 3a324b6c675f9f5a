#!/usr/bin/env bash
# What pagebooth plan says of budgets that cannot work: the one that it names works, a few percent less does not, and a
# micro-batch that it names would fit as it is.
# usage: test_plan_refusals.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
. "$2/tests/prelude.sh"

plan() {
    "$program" plan --machine rtx3090 --set mixed_precision=fp16 --json "$@" 2>&1
}

# refused KEY ARGUMENT...: with ARGUMENTs the named budget of KEY works, and 0.93 of it does not.
refused() {
    local key=$1 said named
    shift
    said=$(plan "$@") && fail "$*: not refused"
    named=$(grep -oE 'the smallest budget that works is [0-9]+' <<<"$said" | grep -oE '[0-9]+$')
    [ -n "$named" ] || { fail "$*: $said" && return; }
    grep -q "$key allows" <<<"$said" || fail "$*: not about $key: $said"
    plan "$@" --set "$key=$named" >/dev/null || fail "$*: $named does not work"
    plan "$@" --set "$key=$((named * 93 / 100))" >/dev/null && fail "$*: less than $named works as well"
    micro=$(grep -oE 'memory.micro_batch: [0-9]+' <<<"$said" | grep -oE '[0-9]+$')
}

refused memory.device --preset sd14 --set resolution=512 --set train_batch_size=1 --set memory.device=48MiB
# Gradients are summed up here: weights that are their own masters are read before they are updated, others are not.
refused memory.device --preset sd21 --set resolution=768 --set train_batch_size=4 --set memory.device=256MiB \
    --set memory.nvme_size=none
[ "$micro" = 2 ] || fail "no micro-batch of 2 is named"
plan --preset sd21 --set resolution=768 --set train_batch_size=4 --set memory.device=256MiB \
    --set memory.nvme_size=none --set memory.micro_batch=2 >/dev/null || fail "the micro-batch that was named does not fit"
refused memory.host --preset sd14 --set resolution=512 --set train_batch_size=1 --set memory.device=4GiB \
    --set memory.host=2GiB --set memory.nvme_size=none
passed "budgets: the smallest that works is named"
