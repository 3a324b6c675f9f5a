#!/usr/bin/env bash
# What every command has in common: help, version, exit codes, messages; and that README names every command.
# usage: test_command_line.sh PROGRAM SOURCE_DIR BUILD_DIR
set -euo pipefail
. "$2/tests/prelude.sh"
cd "$work"

# expect CODE PATTERN ARGUMENT...: the exit code, and a pattern that stdout or stderr has.
expect() {
    local code=0 wanted=$1 pattern=$2
    shift 2
    "$program" "$@" >out 2>err </dev/null || code=$?
    [ "$code" = "$wanted" ] && grep -qE -- "$pattern" out err && return
    fail "pagebooth $*: exit code $code (wanted $wanted), and no '$pattern' in: $(cat out err)"
}

expect 0 '^pagebooth [0-9]+\.[0-9]+\.[0-9]+$' --version
expect 0 '^Usage: pagebooth COMMAND' --help
expect 0 '^Usage: pagebooth COMMAND' help
expect 2 '^pagebooth: error: a command is missing'
expect 2 'unknown command `trian`: did you mean `train`\?' trian
expect 2 'unknown command `xyzzy`' xyzzy
expect 2 'unknown command `xyzzy`' help xyzzy
commands=$("$program" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
[ "$(wc -w <<<"$commands")" -ge 7 ] || fail "only these commands: $commands"
for command in $commands; do
    expect 0 "^Usage: pagebooth $command" help $command
    expect 0 "^Usage: pagebooth $command" $command --help
    expect 2 '^pagebooth: error: unknown option --hepl: did you mean --help' $command --hepl
    grep -q "pagebooth $command" "$source/README.md" || fail "README.md lacks $command"
done
# Nothing that a command cannot use is silently ignored, and nothing is written by a command that failed.
for command in train plan inspect; do expect 2 '^pagebooth: error: .' $command; done
[ "$(ls)" = "$(printf 'err\nout')" ] || fail "files were left: $(ls)"
# Options of train_dreambooth.py.
expect 2 'unknown option --instance_data_dir .*a key of the configuration is given as --set KEY=VALUE' train \
    --instance_data_dir=x --learning_rate 1
# A full disk under stdout is an error, too.
if [ -w /dev/full ]; then
    code=0
    "$program" --help >/dev/full 2>err || code=$?
    [ "$code" = 1 ] && grep -q 'standard output' err || fail "/dev/full: $code $(cat err)"
fi
passed "$(wc -w <<<"$commands") commands"
