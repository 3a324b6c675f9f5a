#!/usr/bin/env bash
# Lines and branches of the parsers that tests and fuzz corpora reach, by gcov. usage: scripts/coverage.sh BUILD_DIR
set -euo pipefail
build=$(cd "$1" && pwd)
source=$(cd "$(dirname "$0")/.." && pwd)
find "$build" -name '*.gcda' -delete
# Whatever else fails is for `make test` to say; here it only counts less.
(cd "$build" && ctest -j "$(nproc)" -R '^(test_|fuzz_)' -E 'house|hardening|shims' >ctest.log) || tail -n 20 "$build/ctest.log"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
printf '%-32s %8s %8s\n' file lines branches
for data in $(find "$build" -path '*pb_*' -name '*.gcda' | sort); do
    file=$(sed 's,.*\.dir/,,; s,\.gcda$,,' <<<"$data")
    case $file in
    src/io/* | src/base/json* | src/base/fs* | src/nn/config* | src/train/checkpoint* | src/train/dataset*) ;;
    *) continue ;;
    esac
    # gcov reports headers as well: what follows "File '...file'" is this file's own.
    gcov -b -n "$data" 2>/dev/null | awk -v file="$source/$file" '
        /^File/ { own = index($0, "\x27" file "\x27") }
        own && /^Lines executed/ { split($0, l, "[:%]") }
        own && /^Taken at least once/ { split($0, b, "[:%]") }
        END { n = split(file, parts, "src/"); printf "%-32s %7.1f%% %7.1f%%\n", "src/" parts[n], l[2], b[2] }'
done
