#!/usr/bin/env bash
# The driver must find the bug planted in canary.c with three seeds of three, each within 50,000 mutations, and must
# keep the input that shows it; without the bug the same mutations find nothing.
# usage: canary.sh PLANTED CLEAN CORPUS
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for seed in 1 2 3; do
    if "$1" --executions 50000 --seed $seed --keep "$work/found" "$3" >"$work/log" 2>&1; then
        echo "failed: seed $seed did not find the planted bug: $(cat "$work/log")" >&2
        exit 1
    fi
    grep -q 'ERROR: AddressSanitizer' "$work/log" || { cat "$work/log" >&2; exit 1; }
    ! "$1" --executions 0 "$work/found" >/dev/null 2>&1 || { echo "failed: what was kept is harmless" >&2; exit 1; }
    "$2" --executions 0 "$work/found" >/dev/null
done
"$2" --executions 50000 --seed 1 "$3"
echo "found with three seeds"
