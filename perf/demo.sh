#!/bin/sh
# `make demo`: starts a network, loads both groups, prints what was committed, and says where to look next.
set -eu
cd "$(dirname "$0")/.."
bin=${MILLRACE_BIN:-target/release}
dir=${DEMO_DIR:-target/demo}
count=${DEMO_COUNT:-20000}
NODES=${NODES:-4}
ready=$dir.json

rm -rf "$dir" "$ready"
mkdir -p "$(dirname "$dir")"
plural=s
[ "$NODES" -ne 1 ] || plural=
echo "starting $NODES node$plural with 2 groups in $dir ..."
# shellcheck disable=SC2086 # options of devnet, split on purpose
"$bin/millrace" devnet --nodes "$NODES" --groups 2 --dir "$dir" --json ${DEMO_OPTIONS:-} >"$ready" 2>"$dir.log" &
network=$!
trap 'kill -INT $network 2>/dev/null || true; wait $network 2>/dev/null || true' EXIT INT TERM

tries=0
while [ ! -s "$ready" ]; do
    kill -0 $network 2>/dev/null || { echo "the network did not start:" >&2; cat "$dir.log" >&2; exit 1; }
    tries=$((tries + 1))
    [ $tries -lt 600 ] || { echo "the network is not ready after 60 s; its log is $dir.log" >&2; exit 1; }
    sleep 0.1
done
# The values of a field in the order of the nodes, each once, separated by commas: the first node's are repeated for the network.
fields() { grep -o "\"$1\":\"[^\"]*\"" "$ready" | sed 's/^[^:]*:"//; s/"$//' | awk '!seen[$0]++' | paste -sd , -; }
rpc=$(fields rpc)
operator=$(fields operator | cut -d , -f 1)
first=$(echo "$rpc" | cut -d , -f 1)

echo
echo "1. transfers of the DagTransfer contract in groups 1 and 2, $count transactions"
"$bin/txgen" --rpc "$rpc" --group 1,2 --workload transfer --count "$count" --json "$dir.transfer.json"
echo
echo "2. an ERC-20 token written in Solidity, $count transactions"
"$bin/txgen" --rpc "$rpc" --group 1,2 --workload token --count "$count" --json "$dir.token.json"
echo
echo "what is in the chain now:"
for group in 1 2; do
    for url in $(echo "$rpc" | tr , ' '); do
        body="{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"getTotalTransactionCount\",\"params\":[$group]}"
        echo "   group $group at $url: $(curl -s -X POST --data "$body" "$url")"
    done
done
kill -INT $network
wait $network || true
trap - EXIT INT TERM
for node in $(seq 0 $((NODES - 1))); do
    for group in 1 2; do
        echo "   node $node, group $group: checking every block, signature and state value ..."
        "$bin/millrace" db verify --dir "$dir/127.0.0.1/node$node" --group $group
    done
done
cat <<END

where to look next:
   the same network again      $bin/millrace devnet --nodes $NODES --groups 2 --dir $dir
   load it                     $bin/txgen --rpc $rpc --group 1 --workload token --count 100000
   what each thread does       curl -s $operator/metrics | grep stage_seconds
   blocks of a group           curl -s $first -d '{"jsonrpc":"2.0","id":1,"method":"getBlockNumber","params":[1]}'
   the pipeline                $bin/millrace topology
   production directories      $bin/millrace chain build --help
   how it is built             ARCHITECTURE.md
END
