#!/bin/sh
# Runs scenarios one after the other, each on a new chain of one node, and appends one JSON line a run. perf/README.md has the fields.
#   perf/run.sh [-o FILE] SCENARIO...
set -eu
cd "$(dirname "$0")/.."
. perf/lib.sh

usage() { echo "usage: perf/run.sh [-o FILE] SCENARIO...   (names of perf/scenarios/*.conf, or files)" >&2; exit 2; }
output=target/perf.jsonl
while getopts o: option; do
    case $option in o) output=$OPTARG ;; *) usage ;; esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || usage

# User and system time of a process so far, clock ticks. The name, in parentheses, may hold spaces.
cpu_ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }

# CPU time of the whole machine that neither the node nor this script and its children (txgen) have used so far, clock ticks. It holds
# what a hypervisor took. Its growth tells whether something else ran beside the measurement.
other_ticks() {
    machine_ticks=$(awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9 }' /proc/stat)
    own_ticks=$(sed 's/.*) //' "/proc/$$/stat" | awk '{ print $12 + $13 + $14 + $15 }')
    echo $((machine_ticks - own_ticks - $(cpu_ticks "$node")))
}

# The commit of the tree that holds the programs, and whether the node's binary was built before that commit was made.
describe_commit() {
    commit=$(git -C "$bin" rev-parse HEAD 2>/dev/null || true)
    dirty=false older=false
    [ -n "$commit" ] || return 0
    [ -z "$(git -C "$bin" status --porcelain --untracked-files=no 2>/dev/null)" ] || dirty=true
    [ "$(stat -c %Y "$bin/millrace")" -ge "$(git -C "$bin" log -1 --format=%ct)" ] || older=true
}

describe_machine() {
    jq -n --arg model "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" --argjson cores "$(nproc)" \
        --argjson memory "$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)" --arg filesystem "$(stat -f -c %T "$dir")" \
        --argjson load "$1" '{cores: $cores, cpu: $model, memory_mib: $memory, filesystem: $filesystem, load_before: $load}'
}

# The growth of the stages' counters between two texts of /metrics, workers of a stage added up.
stage_regimes() {
    awk '
        function label(name) { match($1, name "=\"[^\"]*\""); return substr($1, RSTART + length(name) + 2, RLENGTH - length(name) - 3) }
        /^millrace_stage_seconds_total\{/ { key = label("stage") "\t" label("regime"); grown[key] += FILENAME == ARGV[1] ? -$2 : $2 }
        END { for (key in grown) printf "%s\t%.6f\n", key, grown[key] }' "$1" "$2" |
        jq -R -s -c 'split("\n") | map(select(. != "") | split("\t")) | reduce .[] as $row ({}; .[$row[0]][$row[1]] = ($row[2] | tonumber))'
}

committed_by_node() { awk '/^millrace_transactions_total\{/ { sum += $2 } END { print sum + 0 }' "$1"; }

run_scenario() {
    read_scenario "$1"
    echo "== $scenario: $count $workload transactions, groups $group_list, durability $durability"
    load_before=$(cut -d ' ' -f 1 /proc/loadavg)
    start_node
    machine=$(describe_machine "$load_before")
    curl -sf "$operator/metrics" >"$dir/before"
    ticks=$(cpu_ticks "$node")
    others=$(other_ticks)
    outcome=ok
    run_load || { status=$?; [ $status -eq 124 ] && outcome=timeout || outcome=failed; }
    kill -0 "$node" 2>/dev/null || fail "the node died under load; nothing is recorded"
    ticks=$(($(cpu_ticks "$node") - ticks))
    others=$(($(other_ticks) - others))
    curl -sf "$operator/metrics" >"$dir/after" || fail "the node does not answer after the load; nothing is recorded"
    stop_node
    [ -s "$dir/load.json" ] || echo null >"$dir/load.json"
    node_transactions=$(($(committed_by_node "$dir/after") - $(committed_by_node "$dir/before")))
    describe_commit
    jq -c -n --arg time "$(date -u +%Y-%m-%dT%H:%M:%SZ)" --arg commit "$commit" --argjson dirty $dirty --argjson older $older \
        --argjson machine "$machine" --arg scenario "$scenario" --arg outcome $outcome --arg workload "$workload" --arg durability "$durability" \
        --argjson groups "$groups" --argjson count "$count" --argjson rate "$rate" --argjson accounts "$accounts" --argjson duration "$duration" \
        --argjson transactions $node_transactions --argjson ticks $ticks --argjson others $others --argjson hertz "$(getconf CLK_TCK)" \
        --argjson stages "$(stage_regimes "$dir/before" "$dir/after")" --slurpfile load "$dir/load.json" -f perf/line.jq >"$dir/line"
    mkdir -p "$(dirname "$output")"
    cat "$dir/line" >>"$output"
    jq -r '"node        \(.node_cpu_us_per_tx // "?") us CPU a transaction; others used \(.other_cpu_s) s CPU meanwhile; outcome \(.outcome)"' "$dir/line"
    finish
    [ $outcome = ok ] || bad="$bad $scenario"
}

need_tools curl jq
trap finish EXIT
trap 'exit 130' INT TERM
bad=
for argument in "$@"; do
    run_scenario "$argument"
done
echo "$# lines appended to $output"
[ -z "$bad" ] || fail "not ok:$bad"
