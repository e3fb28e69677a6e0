#!/bin/sh
# A node that starts empty joins a chain of many full blocks under load: how fast it catches up (blocks/s, MB/s of P2P traffic), that it becomes a
# sealer whose vote is needed, and that another leaves. One JSON line; the load's checks and `db verify` of the new node are part of it.
#   perf/join.sh [-o FILE] [BLOCKS [RATE]]     (2000 blocks before it joins, 500 transactions a second while it does)
set -eu
cd "$(dirname "$0")/.."
. perf/lib.sh

usage() { echo "usage: perf/join.sh [-o FILE] [BLOCKS [RATE]]" >&2; exit 2; }
output=target/join.jsonl
while getopts o: option; do
    case $option in o) output=$OPTARG ;; *) usage ;; esac
done
shift $((OPTIND - 1))
[ $# -le 2 ] || usage
need_tools curl jq
trap finish EXIT
trap 'exit 130' INT TERM
read_scenario join
blocks=${1:-2000}
join_rate=${2:-500}
number BLOCKS "$blocks" 1 1000000
number RATE "$join_rate" 1 1000000
# The last node leaves the group in the end, so it is given no transactions.
last_loaded=$((last - 1))

height() { printf '%d' "$(call "$1" getBlockNumber '[1]' | grep . || echo 0)"; }
now_ms() { date +%s%3N; }

# await WHAT SECONDS COMMAND...
await() {
    what=$1 tries=$(($2 * 20))
    shift 2
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || fail "$what: not within its time"
        sleep 0.05
    done
}
is_at() { [ "$(height "$1")" -ge "$2" ]; }

# change_role SELECTOR ID: a transaction to the consensus contract with one text argument of 128 characters.
change_role() {
    text=$(printf '%s' "$2" | od -An -v -tx1 | tr -d ' \n')
    "$bin/millrace" tx send --rpc "$rpc" --group 1 --to 0x0000000000000000000000000000000000001003 \
        --data "0x$1$(printf '%064x%064x' 32 128)$text" --key "$dir/key.pem" >"$dir/receipt" || { cat "$dir/receipt" >&2; fail "a change of roles failed"; }
}
sealers() { curl -s -m 5 -X POST --data '{"jsonrpc":"2.0","id":1,"method":"getSealerList","params":[1]}' "$(rpc_of "$1")" | jq '.result | length'; }
has_sealers() { [ "$(sealers "$1")" -eq "$2" ]; }
metric() { curl -s -m 5 "$(operator_of "$1")/metrics" | awk -v name="$2" '$1 == name { print $2 }'; }

start_nodes
openssl ecparam -name secp256k1 -genkey -noout 2>/dev/null | openssl pkcs8 -topk8 -nocrypt -out "$dir/key.pem" 2>/dev/null ||
    fail "openssl cannot make a key"
echo "filling $blocks blocks ..."
run_load --stop-file "$dir/stop" >"$dir/load.txt" 2>&1 &
load=$!
until is_at 0 "$blocks"; do
    kill -0 "$load" 2>/dev/null || { cat "$dir/load.txt" >&2; fail "the load ended before the chain was filled"; }
    sleep 1
done
: >"$dir/stop"
wait "$load" || { cat "$dir/load.txt" >&2; fail "the load that fills the chain failed"; }
load=
mv "$dir/load.json" "$dir/fill.json"
rm "$dir/stop"

"$bin/millrace" chain add-node --chain "$dir/chain" --agency agency --groups 1 \
    --ports "$(p2p_port "$nodes"),$(channel_port "$nodes"),$(rpc_port "$nodes")" >"$dir/add" 2>&1 || { cat "$dir/add" >&2; fail "chain add-node failed"; }
setting "$(config_of "$nodes")" operator_listen_port "$(operator_port "$nodes")"
id=$(cat "$dir/chain/127.0.0.1/node$nodes/conf/node.nodeid")
for index in $(seq 0 "$last"); do
    curl -s -o /dev/null -X POST --data "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"addPeers\",\"params\":[[\"127.0.0.1:$(p2p_port "$nodes")\"]]}" "$(operator_of "$index")"
done
rate=$join_rate batch=10
before=$(transactions)
run_load --stop-file "$dir/stop" >"$dir/load.txt" 2>&1 &
load=$!
await_load "$before"
change_role 2800efc0 "$id"
before=$(height 0) begun=$(now_ms)
start_node "$nodes"
await "the new node follows" 3600 is_at "$nodes" "$before"
caught=$(($(now_ms) - begun))
bytes=$(metric "$nodes" millrace_p2p_wire_in_bytes_total)
behind=$(($(height 0) - $(height "$nodes")))
echo "$before blocks in $caught ms, then $behind behind"
change_role 89152d1f "$id"
await "five sealers" 30 has_sealers "$nodes" 5
# Of five sealers four are a quorum.
kill_node "$last_loaded"
head=$(height 0) begun=$(now_ms)
await "blocks that need the new sealer's vote" 60 is_at 0 $((head + 4))
needed=$(($(now_ms) - begun))
start_node "$last_loaded"
await_node "$last_loaded"
change_role 80599e4b "$(cat "$dir/chain/127.0.0.1/node$last/conf/node.nodeid")"
await "four sealers" 30 has_sealers "$nodes" 4
head=$(height 0)
await "blocks without the removed one" 60 is_at "$nodes" $((head + 4))
: >"$dir/stop"
outcome=ok
wait "$load" || outcome=failed
load=
stop_nodes
"$bin/millrace" db verify --dir "$dir/chain/127.0.0.1/node$nodes" --group 1 >"$dir/verify" || { cat "$dir/verify" >&2; fail "the new node's database is damaged"; }
jq -c -n --slurpfile fill "$dir/fill.json" --slurpfile load "$dir/load.json" --arg outcome $outcome --arg time "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
    --argjson blocks "$before" --argjson caught "$caught" --argjson behind "$behind" --argjson bytes "$bytes" --argjson needed "$needed" \
    --argjson rate "$join_rate" '
    { time: $time, scenario: "join", outcome: $outcome, blocks: $blocks, transactions: $fill[0].committed, fill_tps: $fill[0].tps,
      rate_meanwhile: $rate, caught_up_ms: $caught, behind_then: $behind, blocks_per_s: ($blocks * 1000 / $caught),
      transactions_per_s: ($fill[0].committed * 1000 / $caught), p2p_mb_per_s: ($bytes / 1000 / $caught),
      first_needed_votes_ms: $needed, load: ($load[0] | { committed, tps, longest_gap_ms, checks }) }' >"$dir/line"
mkdir -p "$(dirname "$output")"
cat "$dir/line" >>"$output"
jq . "$dir/line"
[ $outcome = ok ] || { cat "$dir/load.txt" >&2; fail "the checks of the load failed"; }
