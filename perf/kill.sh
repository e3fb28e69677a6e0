#!/bin/sh
# Kills a loaded node again and again (T2 run). After each kill every block that a client had seen must be there and `db verify` clean.
#   perf/kill.sh [rounds]
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-20}
bin=target/release
dir=$(mktemp -d)
rpc=http://127.0.0.1:18545
node=
load=
trap 'kill -9 $node $load 2>/dev/null || true; rm -rf "$dir"' EXIT

call() { curl -s -X POST --data "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"$1\",\"params\":$2}" $rpc | sed -n 's/.*"result":"\([^"]*\)".*/\1/p'; }
start() {
    : >"$dir/ready"
    "$bin/millrace" devnet --nodes 1 --groups 1 --dir "$dir/chain" --rpc-port 18545 --channel-port 18200 --p2p-port 18300 --json >"$dir/ready" 2>>"$dir/log" &
    node=$!
    until [ -s "$dir/ready" ]; do kill -0 $node || { tail "$dir/log"; exit 1; }; sleep 0.05; done
}

start
for round in $(seq "$rounds"); do
    "$bin/txgen" --rpc $rpc --group 1 --workload transfer --count 1000000 --timeout 2 >/dev/null 2>&1 &
    load=$!
    before=$(call getBlockNumber '[1]')
    until [ $(($(call getBlockNumber '[1]'))) -gt $((before + 3)) ]; do sleep 0.05; done
    seen=$(call getBlockNumber '[1]')
    hash=$(call getBlockHashByNumber "[1,\"$seen\"]")
    kill -9 $node
    wait $node 2>/dev/null || true
    kill -9 $load 2>/dev/null || true
    wait $load 2>/dev/null || true
    "$bin/millrace" db verify --dir "$dir/chain/127.0.0.1/node0" --group 1 >"$dir/verify" || { cat "$dir/verify"; exit 1; }
    start
    after=$(call getBlockHashByNumber "[1,\"$seen\"]")
    [ "$hash" = "$after" ] || { echo "round $round: block $seen was $hash, is $after"; exit 1; }
    echo "round $round: block $((seen)) kept, head $(($(call getBlockNumber '[1]'))), $(cut -d, -f1,2 "$dir/verify")"
done
echo "$rounds rounds, nothing lost"
