#!/bin/sh
# Runs scenarios one after the other, each on a new chain, and appends one JSON line a run. perf/README.md has the fields.
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

node_ticks() { cpu_ticks "$(pid_of "$1")"; }

# CPU time of the whole machine that neither the nodes nor this script and its children (txgen) have used so far, clock ticks. It holds
# what a hypervisor took. Its growth tells whether something else ran beside the measurement. The argument is the nodes' ticks.
other_ticks() {
    machine_ticks=$(awk '/^cpu / { print $2 + $3 + $4 + $7 + $8 + $9 }' /proc/stat)
    own_ticks=$(sed 's/.*) //' "/proc/$$/stat" | awk '{ print $12 + $13 + $14 + $15 }')
    echo $((machine_ticks - own_ticks - $1))
}

# Adds up or subtracts lists of numbers separated by commas.
total() { echo "$1" | awk -F , '{ for (i = 1; i <= NF; i++) sum += $i; print sum }'; }
growth() { echo "$1;$2" | awk -F ';' '{ n = split($1, a, ","); split($2, b, ","); for (i = 1; i <= n; i++) printf "%s%d", (i > 1 ? "," : ""), b[i] - a[i] }'; }

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

# Messages between nodes that node $1 has sent and received, and view changes it took part in; nothing where it does not count them.
messages_of() { curl -sf "$(operator_of "$1")/metrics" | awk '/^millrace_(p2p|network)[a-z_]*messages[a-z_]*total/ { sum += $2; seen = 1 } END { print seen ? sum : "null" }'; }
view_changes_of() { curl -sf "$(operator_of "$1")/metrics" | awk '/^millrace_[a-z_]*view_changes[a-z_]*total/ { sum += $2; seen = 1 } END { print seen ? sum : "null" }'; }

# The rate that is `rate_percent` of what the scenario `rate_of` reached in its last good run.
set_rate() {
    [ -n "$rate_of" ] || return 0
    reached=$(jq -r --arg scenario "$rate_of" 'select(.scenario == $scenario and .outcome == "ok") | .steady_tps' "$output" 2>/dev/null | tail -n 1)
    [ -n "$reached" ] || fail "scenario $scenario needs a good run of $rate_of in $output: run that first"
    rate=$(echo "$reached $rate_percent" | awk '{ print int($1 * $2 / 100) }')
    [ "$rate" -ge 1 ] || fail "scenario $scenario: $rate_of reached $reached transactions a second, too few for a rate"
}

# The load, or silence in a scenario without one.
run_work() {
    if [ "$workload" = none ]; then
        sleep "$duration"
    else
        run_load --node-pid "$(each pid_of)"
    fi
}

run_scenario() {
    read_scenario "$1"
    set_rate
    echo "== $scenario: $nodes nodes, $count $workload transactions, groups $group_list, durability $durability"
    load_before=$(cut -d ' ' -f 1 /proc/loadavg)
    start_nodes
    # A new chain's nodes still find each other.
    [ "$workload" != none ] || sleep 10
    machine=$(describe_machine "$load_before")
    curl -sf "$operator/metrics" >"$dir/before"
    messages=$(each messages_of) views=$(each view_changes_of)
    ticks=$(each node_ticks)
    others=$(other_ticks "$(total "$ticks")")
    begun=$(date +%s%3N)
    outcome=ok
    run_work || { status=$?; [ $status -eq 124 ] && outcome=timeout || outcome=failed; }
    seconds=$(($(date +%s%3N) - begun))
    for index in $(seq 0 "$last"); do
        kill -0 "$(pid_of "$index")" 2>/dev/null || fail "node $index died under load; nothing is recorded"
    done
    ticks_after=$(each node_ticks)
    others=$(($(other_ticks "$(total "$ticks_after")") - others))
    ticks=$(growth "$ticks" "$ticks_after")
    messages_after=$(each messages_of) views_after=$(each view_changes_of)
    curl -sf "$operator/metrics" >"$dir/after" || fail "the node does not answer after the load; nothing is recorded"
    stop_nodes
    data_bytes=$(du -sb "$dir/chain/127.0.0.1/node0/data" | cut -f 1)
    [ -s "$dir/load.json" ] || echo null >"$dir/load.json"
    node_transactions=$(($(committed_by_node "$dir/after") - $(committed_by_node "$dir/before")))
    describe_commit
    jq -c -n --arg time "$(date -u +%Y-%m-%dT%H:%M:%SZ)" --arg commit "$commit" --argjson dirty $dirty --argjson older $older \
        --argjson machine "$machine" --arg scenario "$scenario" --arg outcome $outcome --arg workload "$workload" --arg durability "$durability" --arg state "$state" --argjson data "$data_bytes" \
        --argjson nodes "$nodes" --argjson groups "$groups" --argjson count "$count" --argjson rate "$rate" --argjson accounts "$accounts" \
        --argjson duration "$duration" --arg transport "$transport" --argjson connections "$connections" --argjson batch "$batch" \
        --argjson in_flight "$in_flight" --argjson window "$window" --argjson delay "$delay" --argjson window_ms "$seconds" \
        --argjson messages "[[$messages],[$messages_after]]" --argjson views "[[$views],[$views_after]]" \
        --argjson transactions $node_transactions --argjson ticks "[$ticks]" --argjson others $others --argjson hertz "$(getconf CLK_TCK)" \
        --argjson stages "$(stage_regimes "$dir/before" "$dir/after")" --slurpfile load "$dir/load.json" -f perf/line.jq >"$dir/line"
    mkdir -p "$(dirname "$output")"
    cat "$dir/line" >>"$output"
    jq -r '.nodes | to_entries[] | "node \(.key)      \(.value.cpu_us_per_tx // "?") us CPU a transaction (\(.value.recoveries_per_tx // "?") recoveries), \(.value.cpu_percent) % of a core, \(.value.messages_per_s // "?") messages/s"' "$dir/line"
    jq -r '"others      \(.other_cpu_s) s CPU meanwhile; outcome \(.outcome)"' "$dir/line"
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
