# Sourced by the test scripts, with their own arguments (PROGRAM SOURCE_DIR BUILD_DIR ...). Gives $program, $source,
# $pictures (five of one subject) and $work, an empty folder that is removed at the end: in memory where a script has set
# $scratch_room and so many KiB are free there; `fail`, which counts; and `passed`, which ends a script.
program=$1 source=$2 pictures=$2/demo/blue-fox failures=0
scratch=${TMPDIR:-/tmp}
[ -n "${scratch_room:-}" ] && [ -w /dev/shm ] &&
    [ "$(df -k --output=avail /dev/shm | tail -1)" -gt "$scratch_room" ] && scratch=/dev/shm
work=$(mktemp -d -p "$scratch" pagebooth-test.XXXXXX)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "failed: $*" >&2
    failures=$((failures + 1))
}

passed() {  # what was seen: the last line of a script
    [ "$failures" = 0 ] && echo "$*"
    exit $((failures > 0))
}
