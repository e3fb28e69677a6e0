#!/bin/sh
# Kills nodes of a loaded chain again and again with kill -9 and starts them again; says how long commits paused each time. The run is good
# if the load's checks are (nothing lost or doubled, all nodes agree), blocks that clients saw are kept, and `db verify` is clean.
#   perf/kill.sh [-o FILE] [SCENARIO [ROUNDS]]     (kill-single, kill-one, kill-all; default kill-single)
set -eu
cd "$(dirname "$0")/.."
. perf/lib.sh

usage() { echo "usage: perf/kill.sh [-o FILE] [SCENARIO [ROUNDS]]" >&2; exit 2; }
output=target/kill.jsonl
while getopts o: option; do
    case $option in o) output=$OPTARG ;; *) usage ;; esac
done
shift $((OPTIND - 1))
[ $# -le 2 ] || usage
need_tools curl jq
trap finish EXIT
trap 'exit 130' INT TERM

read_scenario "${1:-kill-single}"
[ -n "$kill" ] || fail "scenario $scenario says nothing of kill=one or kill=all"
kills=${2:-$kills}
number kills "$kills" 1 1000

height() { printf '%d' "$(call "$1" getBlockNumber '[1]' | grep . || echo 0)"; }

# await_height NODE HEIGHT WHAT: within 60 s.
await_height() {
    tries=0
    until [ "$(height "$1")" -ge "$2" ]; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "$3: node $1 is at block $(height "$1") after 60 s, not at $2"
        sleep 0.1
    done
}

start_nodes
# Enough for all rounds; the load is told to end when they are over.
limit=$((kills * 120 + 120))
run_load --stop-file "$dir/stop" >"$dir/load.txt" 2>&1 &
load=$!
await_load 0
: >"$dir/kills"
for round in $(seq "$kills"); do
    victim=$(((round - 1) % nodes))
    await_height "$victim" $(($(height "$victim") + 3)) "round $round"
    seen=$(call "$victim" getBlockNumber '[1]')
    hash=$(call "$victim" getBlockHashByNumber "[1,\"$((seen))\"]")
    victims=$victim
    [ "$kill" = one ] || victims=$(seq 0 "$last")
    date +%s%3N >>"$dir/kills"
    for index in $victims; do kill -9 "$(pid_of "$index")" 2>/dev/null || true; done
    for index in $victims; do wait "$(pid_of "$index")" 2>/dev/null || true; done
    # The others go on without it for a while, so that the pause is that of a lost node and not of a restart.
    [ "$kill" = all ] || sleep 3
    for index in $victims; do start_node "$index"; done
    for index in $victims; do await_node "$index"; done
    after=$(call "$victim" getBlockHashByNumber "[1,\"$((seen))\"]")
    [ "$hash" = "$after" ] || fail "round $round: block $((seen)) was $hash, is $after"
    await_height "$victim" $((seen + 3)) "round $round, after the restart"
    kill -0 "$load" 2>/dev/null || { cat "$dir/load.txt" >&2; fail "round $round: the load ended"; }
    echo "round $round: killed $(echo "$victims" | tr '\n' ' '), block $((seen)) kept, head now $(height "$victim")"
done
sleep 3
: >"$dir/stop"
outcome=ok
wait "$load" || outcome=failed
load=
[ -s "$dir/load.json" ] || { cat "$dir/load.txt" >&2; fail "the load left no figures"; }
stop_nodes
for index in $(seq 0 "$last"); do
    for group in $(seq "$groups"); do
        "$bin/millrace" db verify --dir "$dir/chain/127.0.0.1/node$index" --group "$group" >"$dir/verify" ||
            { cat "$dir/verify" >&2; fail "node $index, group $group is damaged"; }
    done
done
# A kill's pause is the longest that ended between it and the next kill, 20 s at most; null: none of the run's 20 longest does.
jq -c -n --rawfile kills "$dir/kills" --slurpfile load "$dir/load.json" --arg scenario "$scenario" --arg outcome $outcome --argjson nodes "$nodes" \
    --argjson groups "$groups" --arg time "$(date -u +%Y-%m-%dT%H:%M:%SZ)" '
    $load[0] as $run
    | def pauses($from; $to): [$run.per_group[] | .started_unix_ms as $start | [.gaps[] | ($start + .at_s * 1000) as $at
        | select($at + .ms > $from and $at + .ms <= $to) | .ms] | max];
    [$kills | split("\n")[] | select(. != "") | tonumber] as $times |
    { time: $time, scenario: $scenario, outcome: $outcome, nodes: $nodes, groups: $groups, tps: $run.tps, committed: $run.committed,
      resent: $run.resent, unknown: $run.unknown, checks: $run.checks, longest_gap_ms: $run.longest_gap_ms,
      kills: [range($times | length) as $index | $times[$index] | {
        at_s: ((. - $run.started_unix_ms) / 1000), gap_ms_of_groups: pauses(.; [. + 20000, $times[$index + 1] // infinite] | min) }] }' >"$dir/line"
mkdir -p "$(dirname "$output")"
cat "$dir/line" >>"$output"
jq -r '.kills[] | "killed at \(.at_s) s: commits paused for \(.gap_ms_of_groups | map(. // 0 | round | tostring) | join(" and ")) ms"' "$dir/line"
[ $outcome = ok ] || { cat "$dir/load.txt" >&2; fail "the checks of the load failed"; }
echo "$kills rounds, nothing lost; one line appended to $output"
