# Sourced by run.sh, kill.sh and flame.sh from the repository root: reads scenarios, starts and stops the nodes of a temporary network.
# Invariant: after `finish`, which the callers trap, no process and no directory of the run is left.
# shellcheck shell=sh disable=SC2034 # variables are read by the scripts that source this

bin=${MILLRACE_BIN:-target/release}
base_port=${PERF_PORT:-18600}
dir=
node=
load=
proxy=

fail() { echo "$(basename "$0"): $*" >&2; exit 1; }

need_tools() {
    for program in millrace txgen; do
        [ -x "$bin/$program" ] || fail "$bin/$program is missing; run 'make build', or name its directory in MILLRACE_BIN"
    done
    tools/packages.sh "$@"
}

# number NAME VALUE MIN MAX: a whole number in range, or an end with a message.
number() {
    case $2 in '' | *[!0-9]* | ??????????*) fail "scenario $scenario: $1='$2' must be a whole number from $3 to $4" ;; esac
    { [ "$2" -ge "$3" ] && [ "$2" -le "$4" ]; } || fail "scenario $scenario: $1=$2 must be from $3 to $4"
}

# Sets the variables that README.md lists, and group_list; an argument with a slash is a file.
read_scenario() {
    case $1 in */*) file=$1 ;; *) file=perf/scenarios/$1.conf ;; esac
    [ -r "$file" ] || fail "no scenario $1; there are: $(for known in perf/scenarios/*.conf; do basename "$known" .conf; done | tr '\n' ' ')"
    scenario=$(basename "$file" .conf)
    nodes=1 groups=1 workload=transfer transport=http-batch count=20000 rate=0 rate_of='' rate_percent=70 connections=8 batch=100 in_flight=5000
    durability=power state=storage accounts=1000 duration=0 limit=60 window=0 delay=0 consensus=pbft kill='' kills=10
    keys='nodes|groups|workload|transport|count|rate|rate_of|rate_percent|connections|batch|in_flight|durability|state|accounts|duration|limit|window|delay|consensus|kill|kills'
    unknown=$(grep -vE "^(#.*|($keys)=[a-z0-9,-]+|)\$" "$file" | head -n 1 || true)
    [ -z "$unknown" ] || fail "scenario $scenario: this line is not a known key=value: $unknown"
    case $file in /*) ;; *) file=./$file ;; esac
    # shellcheck disable=SC1090 # checked above to hold assignments only
    . "$file"
    nodes=${PERF_NODES:-$nodes} duration=${PERF_DURATION:-$duration}
    number nodes "$nodes" 1 16
    number groups "$groups" 1 64
    number count "$count" 1 20000000
    number rate "$rate" 0 1000000
    number rate_percent "$rate_percent" 1 1000
    number connections "$connections" 1 1024
    number batch "$batch" 1 10000
    number in_flight "$in_flight" 1 1000000
    number accounts "$accounts" 2 1000000
    number duration "$duration" 0 3600
    number limit "$limit" 1 7200
    number window "$window" 0 64
    number delay "$delay" 0 10000
    number kills "$kills" 1 1000
    case $durability in power | process) ;; *) fail "scenario $scenario: durability=$durability must be power or process" ;; esac
    case $state in storage | mpt) ;; *) fail "scenario $scenario: state=$state must be storage or mpt" ;; esac
    case $kill in '' | one | all) ;; *) fail "scenario $scenario: kill=$kill must be one or all" ;; esac
    group_list=$(seq -s , "$groups")
    last=$((nodes - 1)) last_loaded=$((nodes - 1))
}

# Ports of node $1 of at most 16.
rpc_port() { echo $((base_port + $1)); }
operator_port() { echo $((base_port + 16 + $1)); }
channel_port() { echo $((base_port + 32 + $1)); }
p2p_port() { echo $((base_port + 48 + $1)); }
proxy_port() { echo $((base_port + 64 + $1)); }

rpc_of() { echo "http://127.0.0.1:$(rpc_port "$1")"; }
operator_of() { echo "http://127.0.0.1:$(operator_port "$1")"; }
config_of() { echo "$dir/chain/127.0.0.1/node$1/config.ini"; }
pid_of() { cat "$dir/pid.$1"; }

# each FUNCTION: what it prints for node 0, 1, ..., separated by commas; each_loaded: for the nodes that txgen is given.
each() { for index in $(seq 0 "$last"); do "$1" "$index"; done | paste -sd , -; }
each_loaded() { for index in $(seq 0 "$last_loaded"); do "$1" "$index"; done | paste -sd , -; }

channel_of() { echo "127.0.0.1:$(channel_port "$1")"; }

# call NODE METHOD PARAMETERS: the result, if it is a text.
call() {
    curl -s -m 5 -X POST --data "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"$2\",\"params\":$3}" "$(rpc_of "$1")" |
        sed -n 's/.*"result":"\([^"]*\)".*/\1/p'
}

# setting FILE KEY VALUE: changes a key that the file has.
setting() {
    sed -i "s/^\( *$2 *=\).*/\1$3/" "$1"
    grep -q "^ *$2 *=$3\$" "$1" || fail "$1 has no $2 that could be set to $3"
}

# Builds a chain of `nodes` nodes. Each node is a process of its own, so that each can be measured and killed.
build_chain() {
    mkdir -p target
    dir=$(mktemp -d "${PERF_DIR:-target}/perf.XXXXXX")
    rpc=$(rpc_of 0)
    operator=$(operator_of 0)
    for index in $(seq 0 "$last"); do
        curl -s -o /dev/null "$(rpc_of "$index")" && fail "something answers at $(rpc_of "$index") already; stop it, or name other ports in PERF_PORT"
    done
    "$bin/millrace" chain build -l "127.0.0.1:$nodes" --groups "$groups" --state "$state" --consensus "$consensus" -o "$dir/chain" \
        -p "$(p2p_port 0),$(channel_port 0),$(rpc_port 0)" >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
    for index in $(seq 0 "$last"); do
        config=$(config_of "$index")
        setting "$config" durability "$durability"
        setting "$config" operator_listen_port "$(operator_port "$index")"
        [ "$window" -eq 0 ] || sed -i "/^\[millrace\]/a\    window=$window" "$config"
    done
    [ "$delay" -eq 0 ] || delay_links
}

# Puts a proxy before each P2P port and leads all nodes to the proxies: every byte between two nodes comes `delay` milliseconds later.
delay_links() {
    set --
    for index in $(seq 0 "$last"); do
        set -- "$@" --listen "127.0.0.1:$(proxy_port "$index")" --to "127.0.0.1:$(p2p_port "$index")"
        for other in $(seq 0 "$last"); do
            sed -i "s/^\( *node\.[0-9]* *= *127\.0\.0\.1:\)$(p2p_port "$index")\$/\1$(proxy_port "$index")/" "$(config_of "$other")"
        done
    done
    "$bin/txgen" delay-proxy "$@" --delay-ms "$delay" 2>>"$dir/log" &
    proxy=$!
}

start_node() {
    "$bin/millrace" run -c "$(config_of "$1")" >>"$dir/log.$1" 2>&1 &
    echo $! >"$dir/pid.$1"
}

await_node() {
    tries=0
    until curl -sf -o /dev/null "$(operator_of "$1")/readyz"; do
        kill -0 "$(pid_of "$1")" 2>/dev/null || { tail "$dir/log.$1" >&2; fail "node $1 did not start"; }
        tries=$((tries + 1))
        [ $tries -lt 300 ] || { tail "$dir/log.$1" >&2; fail "node $1 is not ready after 30 s"; }
        sleep 0.1
    done
}

start_nodes() {
    build_chain
    for index in $(seq 0 "$last"); do start_node "$index"; done
    for index in $(seq 0 "$last"); do await_node "$index"; done
    node=$(pid_of 0)
}

# As a power failure of the process: nothing is written any more.
kill_node() {
    kill -9 "$(pid_of "$1")" 2>/dev/null || true
    wait "$(pid_of "$1")" 2>/dev/null || true
}

# Transactions in group 1 so far, as node 0 knows.
transactions() {
    printf '%d' "$(curl -s -m 5 -X POST --data '{"jsonrpc":"2.0","id":1,"method":"getTotalTransactionCount","params":[1]}' "$rpc" |
        sed -n 's/.*"txSum":"\([^"]*\)".*/\1/p' | grep . || echo 0)"
}

# await_load BEFORE: until measured transactions are committed, which is after those that make the accounts. BEFORE: those before the load.
await_load() {
    tries=0
    until [ "$(transactions)" -gt $(($1 + accounts + 100)) ]; do
        kill -0 "$load" 2>/dev/null || { cat "$dir/load.txt" >&2; fail "the load ended before it began"; }
        tries=$((tries + 1))
        [ $tries -lt 3000 ] || fail "the load did not begin within 300 s"
        sleep 0.1
    done
}

# Runs txgen on all groups for at most `limit` seconds; its results are in $dir/load.json. The status is its own, 124 when out of time.
# More options of txgen may be given.
run_load() {
    set -- --rpc "$(each_loaded rpc_of)" --channel "$(each_loaded channel_of)" --certificates "$dir/chain/127.0.0.1/sdk" --transport "$transport" \
        --group "$group_list" --workload "$workload" --count "$count" --accounts "$accounts" --connections "$connections" --batch "$batch" \
        --in-flight "$in_flight" --measure-recovery --json "$dir/load.json" "$@"
    [ "$rate" -eq 0 ] || set -- "$@" --rate "$rate"
    [ "$duration" -eq 0 ] || set -- "$@" --duration "$duration"
    timeout --kill-after 5 $((limit + duration)) "$bin/txgen" "$@" &
    echo $! >"$dir/load.pid"
    wait $!
}

# Stops the nodes in order; one that takes longer than 20 s is killed.
stop_nodes() {
    [ -n "$dir" ] || return 0
    for file in "$dir"/pid.*; do
        [ ! -e "$file" ] || kill -INT "$(cat "$file")" 2>/dev/null || true
    done
    for file in "$dir"/pid.*; do
        [ -e "$file" ] || continue
        pid=$(cat "$file")
        tries=0
        while kill -0 "$pid" 2>/dev/null && [ $tries -lt 200 ]; do
            tries=$((tries + 1))
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null && echo "a node did not stop within 20 s and was killed" >&2
        wait "$pid" 2>/dev/null || true
        rm -f "$file"
    done
    [ -z "$proxy" ] || kill "$proxy" 2>/dev/null || true
    node='' proxy=''
}

finish() {
    # `load` may be a shell that waits for txgen, which would go on.
    [ ! -s "$dir/load.pid" ] || kill "$(cat "$dir/load.pid")" 2>/dev/null || true
    [ -z "$load" ] || kill "$load" 2>/dev/null || true
    stop_nodes
    [ -z "$dir" ] || rm -rf "$dir"
    dir=
}
