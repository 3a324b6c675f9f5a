#!/usr/bin/env bash
# What pagebooth plan says: JSON whose figures agree with one another, with the budgets and with what `train` then does;
# a table where nothing fits that did not fit into more; explanations; every kind of instruction as text. And what a run
# says at its end, its timeline, and bench --memory.
# usage: test_plan_report.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
. "$2/tests/prelude.sh"
cd "$work" || exit 1

# field FILE KEY [OBJECT]: the number or word behind "KEY": , the first one in the file or in the object "OBJECT".
field() {
    tr -d '\n' <"$1" | if [ $# = 3 ]; then sed "s/.*\"$3\": {\([^}]*\)}.*/\1/"; else cat; fi |
        grep -oE "\"$2\": [-+0-9.e]+|\"$2\": (true|false|null)|\"$2\": \"[^\"]*\"" | head -1 | sed 's/^"[^"]*": //'
}
holds() { # EXPRESSION of awk
    awk "BEGIN { exit !($1) }" || fail "$2: not $1"
}

# check_json FILE: all fields are there, classes and padding make up the peaks, peaks keep to the budgets.
check_json() {
    local key tier object sum budget
    for key in parameters flops flops_forward flops_backward kept_activations lower_bound_bytes seconds lower_bound \
        plan_seconds passes; do
        [[ $(field "$1" $key) =~ ^[0-9] ]] || fail "$1: no number $key"
    done
    for key in h2d d2h nvme_read nvme_write; do
        [[ $(field "$1" $key moved) =~ ^[0-9]+$ ]] || fail "$1: no moved.$key"
    done
    for tier in device host nvme; do
        object=peak_by_class_$tier
        [ $tier = device ] && object=peak_by_class
        sum=0
        for key in inputs weights optimizer_state gradients activations workspace padding; do
            sum=$((sum + $(field "$1" $key $object)))
        done
        [ "$sum" = "$(field "$1" $tier peak)" ] || fail "$1: the classes of $tier add up to $sum: $(cat "$1")"
        budget=$(field "$1" $tier budget)
        [ "$budget" = null ] || holds "$(field "$1" $tier peak) <= $budget" "$1"
    done
    holds "$(field "$1" seconds) >= $(field "$1" lower_bound) * 0.999999" "$1"
    holds "$(field "$1" lower_bound_bytes) <= $(field "$1" device peak)" "$1"
    holds "$(field "$1" flops) == $(field "$1" flops_forward) + $(field "$1" flops_backward)" "$1"
}

plan() { # OUT ARGUMENT...
    local out=$1
    shift
    "$program" plan "$@" >"$out" 2>"$out.log" || fail "plan $*: $(cat "$out.log")"
}

tiny=(--preset tiny --set resolution=64 --set train_batch_size=2)
paged=(--set memory.device=6MiB --set memory.host=12MiB --set memory.nvme=swap)

# Everything resident: nothing moves, and without a machine the device is as large as need be.
plan resident "${tiny[@]}" --json
check_json resident
[ "$(field resident deferred)" = false ] && [ "$(field resident device budget)" = null ] ||
    fail "resident: $(cat resident)"
[ "$(field resident h2d moved)$(field resident d2h moved)$(field resident host peak)" = 000 ] ||
    fail "resident: something moves"
plan large --preset sd14 --set train_batch_size=1 --set mixed_precision=fp16 --json
check_json large
[ "$(field large parameters)" = 859520964 ] || fail "SD 1.4 has $(field large parameters) parameters"
holds "$(field large flops) > 2.4e12 && $(field large flops) < 2.6e12" "SD 1.4"

# Paged: bytes move, and come back.
plan paged "${tiny[@]}" "${paged[@]}" --set max_train_steps=100 --json
check_json paged
[ "$(field paged deferred)" = true ] || fail "paged: nothing is deferred"
holds "$(field paged h2d moved) > 0 && $(field paged d2h moved) > 0 && $(field paged host peak) > 0" paged
[ "$(field paged parameters)" = "$(field resident parameters)" ] || fail "paged: other parameters"
[ "$(field paged flops)" = "$(field resident flops)" ] || fail "paged: other FLOPs"
plan on_nvme "${tiny[@]}" "${paged[@]}" --set memory.placement=nvme --set max_train_steps=100 --json
check_json on_nvme
holds "$(field on_nvme nvme peak) > 0 && $(field on_nvme nvme_write moved) > 0" on_nvme
[ "$(field on_nvme nvme_written)" = $((100 * $(field on_nvme nvme_write moved))) ] || fail "on_nvme: $(cat on_nvme)"

# Passes of a step are added up.
plan accumulated "${tiny[@]}" --set gradient_accumulation_steps=3 --json
check_json accumulated
[ "$(field accumulated passes)" = 3 ] || fail "accumulated: $(field accumulated passes) passes"
[ "$(field accumulated flops)" = $((3 * $(field resident flops))) ] || fail "accumulated: $(cat accumulated)"

# Another machine, whose memory `auto` takes.
plan machine --preset sd14 --set train_batch_size=1 --set mixed_precision=fp16 --machine rtx3060 --json
check_json machine
[ "$(field machine machine)" = '"rtx3060"' ] || fail "machine: $(field machine machine)"
holds "$(field machine device budget) < 12.1e9 && $(field machine seconds) < $(field large seconds)" machine

# The table: with less memory nothing fits that did not fit with more; peaks keep to the budgets.
plan table "${tiny[@]}" --table --json
grep -o '"budget": [0-9]*, "fits": [a-z]*, "peak": {"device": [0-9]*' table | tr -dc '0-9a-z\n ' >rows
[ "$(grep -c '"budget": [0-9]*, "fits"' table)" = 8 ] || fail "table: not 8 rows: $(cat table)"
awk '{ if ($2 + 0 < $6 + 0) exit 1 }' rows || fail "table: a peak above its budget: $(cat rows)"
awk -F'"fits": ' 'NF > 1 { if (seen && $2 ~ /^true/) exit 1; if ($2 ~ /^false/) seen = 1 }' table ||
    fail "table: not monotone"
plan text "${tiny[@]}" "${paged[@]}"
for word in 'Device memory at' 'Host memory at' 'bound by' 'lower bound' 'the gap is' 'host to device' \
    'Device budgets' '24 GiB' ' 1 GiB'; do
    grep -q "$word" text || fail "text: no \"$word\""
done

# Formats of the optimizer's state: SD 1.4 with 8-bit moments within 12 GiB and nothing moved; fewer bytes take less room;
# the row of the configuration's own format has the plan's figures; nothing is chosen that was not asked for.
format() { # FILE STATES MASTER KEY
    grep -A1 "\"states\": \"$2\", \"master\": \"$3\"" "$1" | tr -d '\n' | grep -oE "\"$4\": [0-9a-z.]+" | head -1 |
        sed 's/.*: //'
}
sd14=(--preset sd14 --set train_batch_size=1 --set mixed_precision=bf16 --set memory.device=12GiB)
plan once "${sd14[@]}" --json
plan formats "${sd14[@]}" --formats --json
[ "$(grep -c '"states": "' formats)" = 12 ] || fail "formats: $(grep -c '"states": "' formats) rows"
[ "$(grep -c '"chosen": true' formats)" = 1 ] && [ "$(format formats fp32 fp32 chosen)" = true ] ||
    fail "formats: not the configuration's alone"
[ "$(format formats fp32 fp32 device)" = "$(field once device peak)" ] || fail "formats: another plan: $(cat once formats)"
for states in fp32 16bit 8bit; do
    before=
    for master in fp32 split16 split8 none; do
        lasting=$(format formats $states $master lasting)
        [ -z "$before" ] || holds "$lasting < $before" "formats: $states, $master"
        before=$lasting
    done
done
holds "$(format formats 8bit fp32 device) <= 12 * 2^30" "8-bit states"
for key in h2d d2h nvme_read nvme_write; do
    [ "$(format formats 8bit fp32 $key)" = 0 ] || fail "8-bit states: $key moves"
done
plan formats "${tiny[@]}" "${paged[@]}" --set use_8bit_adam=true --formats
grep -qE '^\* 8bit +fp32 ' formats && grep -q 'need mixed_precision' formats || fail "formats: $(cat formats)"
grep -q 'Not all of it fits.*--formats' text || fail "text: nothing about --formats"
"$program" plan "${tiny[@]}" --set memory.device=1KiB --formats --json >formats 2>formats.log && fail "formats: 1 KiB fits"
grep -q '^{"fits": false, "formats"' formats && grep -q 'memory.device' formats.log || fail "formats: $(cat formats*)"

# In words.
plan words "${tiny[@]}" "${paged[@]}" --explain
for word in 'Not everything fits' 'Between two steps' 'Optimizer state' 'Moved in every step' 'Updates' \
    'Computed twice' 'A step takes'; do
    grep -q "$word" words || fail "--explain: no \"$word\""
done
plan words "${tiny[@]}" --explain
grep -q 'What fits is not moved' words || fail "--explain of a resident step: $(cat words)"
plan words --preset sd14 --machine rtx3090 --set train_batch_size=16 --set mixed_precision=fp16 \
    --set memory.device=8GiB --explain
[ "$(grep -cE '^  [0-9]+ (cheap ops|linear layers, convolutions and attentions) .*run again' words)" = 2 ] ||
    fail "--explain does not tell cheap ops from linear layers: $(cat words)"

# Every kind of instruction is printed, the same each time.
large=(--preset sd14 --set train_batch_size=1 --set mixed_precision=fp16 --set resolution=256 --set memory.device=1GiB
    --set memory.host=2GiB --machine rtx3090)
plan program "${large[@]}" --program
for word in RUN UPDATE FETCH EVICT WAIT; do
    grep -qE "^[0-9]+ [a-z]+ $word " program || fail "--program: no \"$word\""
done
for word in 'UPDATE adamw \[0, [0-9]+\) %' 'nvme#[0-9]+ -> host@[0-9]+ [0-9]+ bytes' 'host@[0-9]+ -> device@' \
    'WAIT for [0-9]+ \('; do
    grep -qE "$word" program || fail "--program: no \"$word\""
done
# Gradients that are made again go to the host's updates unit by unit: the largest has 118 MB.
plan parts --preset sd14 --set train_batch_size=1 --set mixed_precision=no --set resolution=256 --machine rtx3090 \
    --set memory.device=2GiB --set memory.host=4GiB --set "memory.nvme=$work/parts" --program
holds "$(grep -c 'host UPDATE' parts) > 100" "--program: updates of parts on the host"
holds "$(awk '/download EVICT/ && $(NF - 1) > most { most = $(NF - 1) } END { print most + 0 }' parts) < 20000000" \
    "--program: the largest that is sent to the host"

plan once "${tiny[@]}" "${paged[@]}" --program
plan again "${tiny[@]}" "${paged[@]}" --program
cmp <(grep '^[0-9]' once) <(grep '^[0-9]' again) || fail "--program: differs from one time to the next"

# What cannot work names what does, and that is true.
"$program" plan "${tiny[@]}" --set memory.device=1KiB --set memory.host=12MiB --json >refused 2>&1 &&
    fail "1 KiB: not refused"
smallest=$(sed -n 's/.*memory.device allows.*smallest budget that works is \([0-9]*\) bytes.*/\1/p' refused)
[ -n "$smallest" ] || fail "1 KiB: $(cat refused)"
plan smallest "${tiny[@]}" --set "memory.device=${smallest:-0}" --set memory.host=12MiB --json
check_json smallest

# `train` plans the same.
"$program" init --preset tiny --seed 1 model >/dev/null || fail "no model"
cat >run.yaml <<YAML
pretrained_model_name_or_path: model
instance_data_dir: $pictures
instance_prompt: a photo of sks fox
resolution: 64
center_crop: true
train_batch_size: 1
max_train_steps: 4
seed: 3
YAML
run=(--set memory.device=4MiB --set memory.host=12MiB --set memory.nvme=swap)
plan agreed run.yaml "${run[@]}" --json
"$program" train run.yaml "${run[@]}" --set output_dir=out --timeline lines >train.log 2>&1 ||
    fail "train: $(cat train.log)"
row() { # NAME COLUMN
    sed -n "s/^  $1 *\([0-9]*\) *\([0-9]*\).*/\\$2/p" train.log
}
for column in 1 2; do
    [ "$(row 'moved host to device' $column)" = "$(field agreed h2d moved)" ] &&
        [ "$(row 'moved device to host' $column)" = "$(field agreed d2h moved)" ] &&
        [ "$(row 'device bytes' $column)" = "$(field agreed device peak)" ] ||
        fail "train, column $column: $(cat agreed train.log)"
done
holds "$(row 'host bytes' 2) <= 12 * 1024 * 1024 && $(row 'device bytes' 2) <= 4 * 1024 * 1024" train
holds "$(row 'process, bytes of RAM' 2) <= $(row 'process, bytes of RAM' 1)" "the process"
grep -q 'seconds in programs .*ratio' train.log || fail "train: no seconds: $(cat train.log)"

# Its timeline: both sides in each file.
for file in step.json step.svg step.txt; do [ -s lines/$file ] || fail "timeline: no $file"; done
for word in '"traceEvents":\[' '"predicted"' '"actual"' '"pid":2' 'device bytes' '"upload GB/s"' '\]}$'; do
    grep -q -- "$word" lines/step.json || fail "step.json: no $word"
done
for word in '<svg ' '</svg>' 'Predicted: step 3' 'Actual: step 3' 'Device memory' 'Host memory' 'upload'; do
    grep -q "$word" lines/step.svg || fail "step.svg: no $word"
done
[ "$(grep -o '<g[ >]' lines/step.svg | wc -l)" = "$(grep -o '</g>' lines/step.svg | wc -l)" ] || fail "step.svg: groups"
grep -q 'predicted *actual *ratio' lines/step.txt || fail "step.txt: $(head -3 lines/step.txt)"
if command -v python3 >/dev/null; then
    python3 - paged on_nvme accumulated table lines/step.json <<'PYTHON' || fail "JSON that does not parse"
import json, sys, xml.dom.minidom
for path in sys.argv[1:]:
    json.load(open(path))
xml.dom.minidom.parse("lines/step.svg")
PYTHON
fi

# bench --memory: the same bits at every budget, and a plot.
"$program" bench --memory run.yaml --set memory.host=12MiB --set memory.nvme=swap --budgets 16MiB,6MiB,4MiB,1KiB \
    --steps 3 -o plots >bench.log 2>bench.err || fail "bench: $(cat bench.log bench.err)"
[ "$(grep -c 'same bits$' bench.log)" = 3 ] || fail "bench: $(cat bench.log)"
grep -q 'does not fit' bench.log || fail "bench: 1 KiB is not refused: $(cat bench.log)"
grep -q 'All 3 budgets that work give the same' bench.log || fail "bench: $(cat bench.log)"
grep -q '</svg>' plots/memory.svg || fail "bench: no plot"
[ "$(grep -c '"same_bits": true' plots/memory.json)" = 3 ] || fail "bench: $(cat plots/memory.json)"
grep -q 'updates alone take [0-9.]* .*; the step takes [0-9.]* times that' bench.log || fail "bench: $(cat bench.log)"
grep -q '"compute_alone": [0-9.e-]*[1-9]' plots/memory.json || fail "bench: parts are not timed: $(cat plots/memory.json)"
# The parts of a step that a drive takes part in.
"$program" bench --memory run.yaml --set memory.host=6MiB --set memory.nvme=swap --budgets 4MiB --steps 2 -o drive \
    >bench.log 2>bench.err || fail "bench with a drive: $(cat bench.log bench.err)"
grep -q 'the drive alone [0-9.]* .*; the step takes [0-9.]* times the longer' bench.log || fail "bench: $(cat bench.log)"
grep -q '"io_alone": [0-9.e-]*[1-9]' drive/memory.json || fail "bench: the drive is not timed: $(cat drive/memory.json)"
[ -e dreambooth-model ] && fail "bench: an output was written"
[ -z "$(ls -A swap 2>/dev/null)" ] || fail "something is left in swap: $(ls -A swap)"

passed "plans: as promised"
