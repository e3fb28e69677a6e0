#!/bin/sh
# `make demo`: starts a network, loads both groups, prints what was committed, and says where to look next.
set -eu
cd "$(dirname "$0")/.."
bin=target/release
dir=${DEMO_DIR:-target/demo}
count=${DEMO_COUNT:-20000}
ready=$dir.json

rm -rf "$dir" "$ready"
mkdir -p "$(dirname "$dir")"
echo "starting 1 node with 2 groups in $dir ..."
"$bin/millrace" devnet --nodes 1 --groups 2 --dir "$dir" --json >"$ready" 2>"$dir.log" &
node=$!
trap 'kill -INT $node 2>/dev/null || true; wait $node 2>/dev/null || true' EXIT INT TERM

tries=0
while [ ! -s "$ready" ]; do
    kill -0 $node 2>/dev/null || { echo "the node did not start:" >&2; cat "$dir.log" >&2; exit 1; }
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { echo "the node is not ready after 30 s; its log is $dir.log" >&2; exit 1; }
    sleep 0.1
done
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" "$ready" | head -n 1; }
rpc=$(field rpc)
operator=$(field operator)

echo
echo "1. transfers of the DagTransfer contract in groups 1 and 2, $count transactions"
"$bin/txgen" --rpc "$rpc" --group 1,2 --workload transfer --count "$count" --json "$dir.transfer.json"
echo
echo "2. an ERC-20 token written in Solidity, $count transactions"
"$bin/txgen" --rpc "$rpc" --group 1,2 --workload token --count "$count" --json "$dir.token.json"
echo
echo "what is in the chain now:"
for group in 1 2; do
    body="{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"getTotalTransactionCount\",\"params\":[$group]}"
    echo "   group $group: $(curl -s -X POST --data "$body" "$rpc")"
done
kill -INT $node
wait $node || true
trap - EXIT INT TERM
for group in 1 2; do
    echo "   group $group: checking every block, signature and state value ..."
    "$bin/millrace" db verify --dir "$dir/127.0.0.1/node0" --group $group
done
cat <<END

where to look next:
   the same network again      $bin/millrace devnet --nodes 1 --groups 2 --dir $dir
   load it                     $bin/txgen --rpc $rpc --group 1 --workload token --count 100000
   what each thread does       curl -s $operator/metrics | grep stage_seconds
   the pipeline                $bin/millrace topology
   production directories      $bin/millrace chain build --help
   how it is built             ARCHITECTURE.md
END
