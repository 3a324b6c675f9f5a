#!/usr/bin/env bash
# A campaign of libFuzzer: every target in turn, with what it finds kept for the next campaign.
# usage: scripts/fuzz.sh BUILD_DIR MINUTES [NAME]...     (all targets where no name is given)
set -euo pipefail
build=$1 minutes=$2
shift 2
source=$(cd "$(dirname "$0")/.." && pwd)
[ $# -gt 0 ] || set -- $(cd "$source/tests/fuzz" && ls fuzz_*.c | sed 's/^fuzz_//; s/\.c$//')
failed=
for name in "$@"; do
    target=$build/tests/fuzz_$name
    [ -x "$target" ] || { echo "fuzz: there is no target $name" >&2; exit 2; }
    found=$build/fuzzing/$name
    mkdir -p "$found/corpus"
    echo "fuzz: $name, $minutes minutes; log: $found/log"
    # -timeout: what is slower than a second without sanitizers has ten here. -rss_limit_mb: AddressSanitizer's own share
    # included.
    "$target" -max_total_time=$((minutes * 60)) -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        -artifact_prefix="$found/" "$found/corpus" "$source/tests/fuzz/corpus/$name" >"$found/log" 2>&1 || failed="$failed $name"
    grep -E 'stat::number_of_executed_units|stat::peak_rss_mb|ERROR|SUMMARY' "$found/log" | sed 's/^/    /' || true
done
[ -z "$failed" ] || { echo "fuzz: failures in$failed; the inputs lie in $build/fuzzing/NAME/" >&2; exit 1; }
echo "fuzz: nothing found"
