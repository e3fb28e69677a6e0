#!/bin/sh
# Hyperledger Caliper with its FISCO BCOS connector, both as npm has them, against a node: deploys a contract, writes, reads, transfers,
# and checks what the chain holds afterwards against what the workers computed.
#   tools/clients/caliper.sh                                     starts a network of one node with two groups
#   tools/clients/caliper.sh --rpc URL --channel HOST:PORT --certificates DIR [--groups 1,2]
# What is installed stays in CLIENTS_CACHE (~/.cache/millrace-clients), outside the repository. Without npm, or without its registry, it
# is skipped. The connector has chain id 1 built in. Last line: N passed, N failed, N skipped.
set -eu
cd "$(dirname "$0")/../.."
. tools/clients/lib.sh
read_endpoints "$@"

for program in node npm; do
    command -v $program >/dev/null || skip "there is no $program"
done
space=$cache/caliper
mkdir -p "$space"
cp tools/clients/caliper/package.json "$space/"
if [ ! -d "$space/node_modules/@hyperledger/caliper-fisco-bcos" ] || ! cmp -s "$space/package.json" "$space/installed.json"; then
    echo "installing Caliper from npm into $space ..."
    (cd "$space" && npm install --no-audit --no-fund --loglevel=error >npm.log 2>&1) || skip "npm cannot install Caliper; see $space/npm.log"
    cp "$space/package.json" "$space/installed.json"
fi
trap finish EXIT
trap 'exit 1' INT TERM
need_network

# OpenSSL 3 in Node 17 and later does not offer secp256k1 in TLS 1.3 and gives up before it sees that the node speaks 1.2.
export NODE_OPTIONS="--tls-max-v1.2 ${NODE_OPTIONS:-}"
passed=0 failed=0
for group in $(echo "$groups" | tr , ' '); do
    work=$space/run-$$-$group
    mkdir -p "$work"
    cp tools/clients/caliper/*.js tools/clients/caliper/*.sol tools/clients/caliper/rounds.yaml "$work/"
    cat >"$work/network.yaml" <<END
caliper: { blockchain: fisco-bcos }
fisco-bcos:
  config: { privateKey: $(openssl rand -hex 32 2>/dev/null || od -An -N32 -tx1 /dev/urandom | tr -d ' \n'), account: '0x0000000000000000000000000000000000000001' }
  network:
    nodes: [ { ip: ${channel%:*}, rpcPort: '${rpc##*:}', channelPort: '${channel##*:}' } ]
    authentication: { key: $certificates/sdk.key, cert: $certificates/sdk.crt, ca: $certificates/ca.crt }
    groupID: $group
    timeout: 100000
  smartContracts:
    - { id: ledger, path: Ledger.sol, language: solidity, version: v0 }
    - { id: transfers, address: '0x0000000000000000000000000000000000005002', language: precompiled, version: v0 }
END
    # In a session of its own, because its workers stay behind when the manager has ended.
    (cd "$space" && exec setsid timeout --kill-after 10 "${CLIENTS_LIMIT:-300}" node_modules/.bin/caliper launch manager --caliper-workspace "$work" \
        --caliper-networkconfig network.yaml --caliper-benchconfig rounds.yaml >"$work/log" 2>&1) &
    caliper=$!
    wait $caliper || true
    pkill -TERM --session "$caliper" 2>/dev/null || true
    # A round counts when it ended well and no transaction of it failed.
    good=$(sed 's/\x1b\[[0-9;]*m//g' "$work/log" | sed -n 's/.*Successful rounds: \([0-9]*\).*/\1/p' | tail -n 1)
    lost=$(sed 's/\x1b\[[0-9;]*m//g' "$work/log" | awk -F'|' '/^\| [a-z]/ && $4 + 0 > 0 { name[$2] = 1 } END { n = 0; for (k in name) n++; print n }')
    rounds=$(grep -c 'label:' "$work/rounds.yaml")
    good=$((${good:-0} - lost))
    passed=$((passed + good))
    failed=$((failed + rounds - good))
    sed 's/\x1b\[[0-9;]*m//g' "$work/log" | awk '/^\| (Name|[a-z])/ && !seen[$0]++ { print "group '"$group"' " $0 }'
    if [ "$good" -eq "$rounds" ]; then
        rm -rf "$work"
    else
        echo "group $group: the log of Caliper is $work/log" >&2
        explain_failure
    fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
