#!/usr/bin/env bash
# tests/gpu/run without a GPU: it says so and exits with 77; rehearsed on the CPU it goes through its parts and writes a
# JSON file that is whole. usage: test_gpu_run.sh PROGRAM SOURCE_DIR BUILD_DIR
set -uo pipefail
run=$2/tests/gpu/run
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
    echo "failed: $*" >&2
    failures=$((failures + 1))
}
CUDA_VISIBLE_DEVICES= "$run" --kit "$3" --out "$work" >"$work/log" 2>&1
status=$?
[ $status = 77 ] || fail "without a GPU: exit $status"
grep -q 'no GPU here' "$work/log" || fail "it does not say that there is no GPU: $(cat "$work/log")"
[ -z "$(ls "$work" | grep json)" ] || fail "results without a GPU"

"$run" --kit "$3" --out "$work" --device cpu --only doctor,placement,resume,profile,graphs >"$work/log" 2>&1 ||
    fail "the rehearsal: $(cat "$work/log")"
json=$work/rehearsal-cpu.json
[ "$(grep -c '"passed": true' "$json")" -ge 4 ] || fail "too few results: $(cat "$json" "$work/log")"
for name in resume profile graphs-true-auto graphs-false-4GiB; do
    grep -q "\"name\": \"$name\"" "$json" || fail "no $name"
done
grep -q '"prediction_error": ' "$json" || fail "no prediction is held against what was measured"
[ "$(tr -cd '{' <"$json" | wc -c)" = "$(tr -cd '}' <"$json" | wc -c)" ] || fail "not whole: $(cat "$json")"
if command -v python3 >/dev/null; then python3 -m json.tool "$json" >/dev/null || fail "no JSON: $(cat "$json")"; fi
"$run" --nonsense x >/dev/null 2>&1
[ $? = 2 ] || fail "an unknown option is not refused"
exit $((failures > 0))
