# Sourced by the scripts that compare whole training runs of the tiny model: the prelude, the model in $work/model, and
# what they do with runs, whose last log is in $work/log. $scratch_room: KiB that $work shall have, in memory if it can be.
. "$2/tests/prelude.sh"
"$program" init --preset tiny --seed 1 "$work/model" >/dev/null || exit 1

# Becomes a run of the tiny model; what is common to all of them comes first.
begin_run() {  # --set KEY=VALUE...
    exec "$program" train "$source/tests/fault/tiny.yaml" --set "pretrained_model_name_or_path=$work/model" \
        --set "instance_data_dir=$source/demo/blue-fox" --set threads=2 "$@"
}

fail() {
    echo "failed: $*" >&2
    sed 's/^/    /' "$work/log" >&2
    failures=$((failures + 1))
}

fingerprint() {  # output directory: every byte of the result, and what the steps said but for their time
    (cd "$1" && find . -name '*.safetensors' -not -path './checkpoint-*' | sort | xargs sha256sum
     sed 's/, "seconds": [0-9.]*//' metrics.jsonl)
}

kill_at() {  # process, file: kills it and its children as soon as the file is there
    local pid=$1 file=$2
    for _ in $(seq 1200); do
        [ -f "$file" ] && break
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.01
    done
    pkill -9 -P "$pid" 2>/dev/null
    kill -9 "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
}

newest() {  # output directory: the last step whose checkpoint is complete
    ls -d "$1"/checkpoint-*/manifest.json 2>/dev/null | sed 's,.*checkpoint-\([0-9]*\)/.*,\1,' | sort -n | tail -1
}
