#!/usr/bin/env bash
# tests/gpu/run without a GPU: it says so and exits with 77, also where there is a driver that is too old; rehearsed on the
# CPU it goes through its parts, writes a JSON file that is whole, and goes on where an earlier run ended; and on programs
# that only pretend to find a GPU, parts that fail, hang or die keep no other part from being run, and leave behind what
# they said. usage: test_gpu_run.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
run=$2/tests/gpu/run
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
    echo "failed: $*" >&2
    failures=$((failures + 1))
}
is_json() { # FILE
    [ "$(tr -cd '{' <"$1" | wc -c)" = "$(tr -cd '}' <"$1" | wc -c)" ] || fail "not whole: $(cat "$1")"
    if command -v python3 >/dev/null; then python3 -m json.tool "$1" >/dev/null || fail "no JSON: $(cat "$1")"; fi
}

CUDA_VISIBLE_DEVICES= "$run" --kit "$3" --out "$work" >"$work/log" 2>&1
status=$?
[ $status = 77 ] || fail "without a GPU: exit $status"
grep -q 'no GPU here' "$work/log" || fail "it does not say that there is no GPU: $(cat "$work/log")"
[ -z "$(ls "$work" | grep json)" ] || fail "results without a GPU"

# A driver of CUDA 12's.
if [ -f "$3/tests/pretended/old/libcuda.so.1" ]; then
    LD_LIBRARY_PATH=$3/tests/pretended/old "$run" --kit "$3" --out "$work" >"$work/log" 2>&1
    status=$?
    [ $status = 77 ] || fail "with an old driver: exit $status"
    grep -q 'the NVIDIA driver is for CUDA 12.8 and this program needs one for 1[3-9]\.' "$work/log" ||
        fail "with an old driver: $(cat "$work/log")"
fi

# Earlier results are taken over, those that passed are not repeated, those that failed are.
mkdir "$work/first" "$work/out"
cat >"$work/first/rehearsal-cpu.json" <<'JSON'
{"card": "cpu", "commit": "x", "date": "2026-01-01T00:00:00Z",
 "results": [
  {"name": "resume", "passed": false, "at": 3, "error": "a \"word\""},
  {"name": "placement-5MiB", "passed": true, "at": 5, "plan": "an earlier one"},
  {"name": "graphs-true-auto", "passed": true, "at": 9, "seconds_per_step": 1}
 ]}
JSON
"$run" --kit "$3" --out "$work/out" --device cpu --only doctor,placement,resume,profile,graphs \
    --done "$work/first/rehearsal-cpu.json" >"$work/log" 2>&1 || fail "the rehearsal: $(cat "$work/log")"
json=$work/out/rehearsal-cpu.json
[ "$(grep -c '"passed": true' "$json")" -ge 7 ] || fail "too few results: $(cat "$json" "$work/log")"
for name in doctor resume profile placement-5MiB graphs-true-auto graphs-false-auto graphs-true-4GiB graphs-false-4GiB; do
    [ "$(grep -c "\"name\": \"$name\", \"passed\": true" "$json")" = 1 ] || fail "not one $name that passed: $(cat "$json")"
done
grep -q 'an earlier one' "$json" || fail "what had passed was repeated"
! grep -q '"passed": false' "$json" || fail "what had failed was not"
[ -s "$work/out/rehearsal-cpu.yaml" ] || fail "no profile"
grep -q '"prediction_error": ' "$json" || fail "no prediction is held against what was measured"
is_json "$json"

# Programs that only say that there is a GPU. One fails, one dies, one hangs, a plan is refused, and `train` ends in an
# error of CUDA's.
mkdir -p "$work/kit/bin" "$work/bad"
cat >"$work/kit/bin/pagebooth" <<'SH'
#!/bin/sh
case $1 in
--version) echo "pagebooth of a test" ;;
doctor)
    printf 'CUDA\n  driver   for CUDA 13.0\n  GPU 0    NVIDIA Test "9" 1, sm_90, 1.0 GiB, 0.9 GiB of it free\n'
    printf '  cuDNN    not found\nTo change\n  cuDNN 9 was not found: install it\n' ;;
init) for last; do :; done; mkdir -p "$last" ;;
train)
    case "$*" in *=4GiB*) echo "error: does not fit; the smallest is 5 GiB" ;; *device=cpu*) exit 0 ;;
    *) echo "a line before"; echo "error: GPU 0: an error of the test's" ;; esac
    exit 1 ;;
*) echo "error: no $1 here"; exit 1 ;;
esac
SH
printf '#!/bin/sh\necho "op.c:1: failed: linear"; echo "1 checks, 1 failed"; exit 1\n' >"$work/kit/bin/test_gpu_ops"
printf '#!/bin/sh\nkill -SEGV $$\n' >"$work/kit/bin/test_gpu_choices"
printf '#!/bin/sh\necho "before it hangs"; exec sleep 600\n' >"$work/kit/bin/test_gpu_device"
chmod +x "$work"/kit/bin/*
"$run" --kit "$work/kit" --out "$work/bad" --only doctor,ops,loss,choices,headline,cap,profile,resume,placement >"$work/log" 2>&1
[ $? = 1 ] || fail "with failures: $(cat "$work/log")"
json=$work/bad/gpu-test-9-1.json
grep -q 'cuDNN 9 was not found' "$work/log" || fail "it does not say first what is missing"
for name in ops loss-fp16 loss-bf16 loss-no choices headline-batch1-auto cap-8GiB profile resume placement; do
    grep -q "\"name\": \"$name\", \"passed\": false" "$json" || fail "$name: $(cat "$json" "$work/log")"
done
grep -q '"name": "headline-batch1-4GiB", "passed": true, "at": [0-9]*, "refused"' "$json" || fail "a refusal: $(cat "$json")"
is_json "$json"
for words in 'failed: linear' 'ended by signal 11' 'a line before' "GPU 0: an error of the test's" 'no bench here'; do
    grep -q "$words" "$work/bad/gpu-test-9-1.log" || fail "no \"$words\" in the log: $(cat "$work/bad/gpu-test-9-1.log")"
done
# What hangs is ended when the time is up, and then nothing is said of it.
timeout 300 "$run" --kit "$work/kit" --out "$work/bad" --only device,ops --minutes 15s >"$work/log" 2>&1
[ $? != 124 ] || fail "a part that hangs was not ended"
grep -q 'ended for lack of time: device' "$work/log" || fail "what hangs: $(cat "$work/log")"
grep -q 'before it hangs' "$work/bad/gpu-test-9-1.log" || fail "no log of what hung"

"$run" --nonsense x >/dev/null 2>&1
[ $? = 2 ] || fail "an unknown option is not refused"
"$run" --done "$work/nothing" --device cpu >/dev/null 2>&1
[ $? = 1 ] || fail "an earlier result that is not there"
exit $((failures > 0))
