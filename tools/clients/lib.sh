# Sourced by the client runners from the repository root: finds the network to test, or starts one, and takes it down again.
# Invariant: after `finish`, which the runners trap, no process and no directory of a network that was started here is left.
# shellcheck shell=sh

bin=${MILLRACE_BIN:-target/release}
cache=${CLIENTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace-clients}
base_port=${CLIENTS_PORT:-14700}
rpc='' channel='' certificates='' groups=1,2
network='' node=''

fail() { echo "$(basename "$0"): $*" >&2; exit 1; }

# A client that cannot be had on this machine is no failure of the node.
skip() { echo "$(basename "$0"): skipped: $*"; exit 0; }

# Reads --rpc, --channel, --certificates and --groups.
read_endpoints() {
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $1 in
            --rpc) rpc=$2 ;;
            --channel) channel=$2 ;;
            --certificates) certificates=$(cd "$2" && pwd) || fail "no directory $2" ;;
            --groups) groups=$2 ;;
            *) fail "unknown option $1; there are --rpc URL, --channel HOST:PORT, --certificates DIR, --groups 1,2" ;;
        esac
        shift 2
    done
    case "$rpc,$channel,$certificates" in
        ,,) ;;
        ,* | *,, | *,) fail "give all of --rpc, --channel and --certificates, or none to have a network started" ;;
    esac
}

# Starts a network unless one was named.
need_network() {
    [ -z "$rpc" ] || return 0
    [ -x "$bin/millrace" ] || fail "$bin/millrace is missing; run 'make build', or name its directory in MILLRACE_BIN"
    mkdir -p target
    network=$(mktemp -d target/clients.XXXXXX)
    "$bin/millrace" devnet --groups 2 --dir "$network/net" --json --rpc-port "$base_port" --channel-port $((base_port + 20)) \
        --p2p-port $((base_port + 40)) --nodes "${CLIENTS_NODES:-1}" >"$network/ready.json" 2>"$network/log" &
    node=$!
    tries=0
    while [ ! -s "$network/ready.json" ]; do
        kill -0 $node 2>/dev/null || { cat "$network/log" >&2; fail "the network did not start"; }
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "the network is not ready after 60 s; its log is $network/log"
        sleep 0.1
    done
    rpc=http://127.0.0.1:$base_port
    channel=127.0.0.1:$((base_port + 20))
    certificates=$(cd "$network/net/sdk" && pwd)
}

# After a failed check: whether the network still runs, and what it said.
explain_failure() {
    [ -n "$node" ] || return 0
    mkdir -p "$cache"
    cp "$network/log" "$cache/network.log"
    state='runs'
    kill -0 "$node" 2>/dev/null || state='has ended'
    answer=$(curl -s -m 5 --data '{"jsonrpc":"2.0","id":1,"method":"getBlockNumber","params":[1]}' "$rpc" || true)
    echo "the network $state, says '$answer' at $rpc, and its log is $cache/network.log" >&2
}

# Takes down what need_network started.
finish() {
    if [ -n "$node" ]; then
        kill -INT "$node" 2>/dev/null || true
        wait "$node" 2>/dev/null || true
        node=
    fi
    [ -z "$network" ] || rm -rf "$network"
    network=
}
