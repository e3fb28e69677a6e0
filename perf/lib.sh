# Sourced by run.sh and flame.sh from the repository root: reads scenarios, starts and stops the one node of a temporary network.
# Invariant: after `finish`, which the callers trap, no process and no directory of the run is left.
# shellcheck shell=sh

bin=${MILLRACE_BIN:-target/release}
base_port=${PERF_PORT:-18600}
dir=
node=
load=

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
    [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] || fail "scenario $scenario: $1=$2 must be from $3 to $4"
}

# Sets scenario, groups, workload, count, rate, durability, accounts, duration and group_list; an argument with a slash is a file.
read_scenario() {
    case $1 in */*) file=$1 ;; *) file=perf/scenarios/$1.conf ;; esac
    [ -r "$file" ] || fail "no scenario $1; there are: $(cd perf/scenarios && ls ./*.conf | sed 's:^\./::; s:\.conf$::' | tr '\n' ' ')"
    scenario=$(basename "$file" .conf)
    groups=1 workload=transfer count=20000 rate=0 durability=power accounts=1000 duration=60
    unknown=$(grep -vE '^(#.*|(groups|workload|count|rate|durability|accounts|duration)=[a-z0-9]+|)$' "$file" | head -n 1 || true)
    [ -z "$unknown" ] || fail "scenario $scenario: this line is not a known key=value: $unknown"
    case $file in /*) ;; *) file=./$file ;; esac
    # shellcheck disable=SC1090 # checked above to hold assignments only
    . "$file"
    number groups "$groups" 1 64
    number count "$count" 1 10000000
    number rate "$rate" 0 1000000
    number accounts "$accounts" 2 1000000
    number duration "$duration" 1 3600
    case $durability in power | process) ;; *) fail "scenario $scenario: durability=$durability must be power or process" ;; esac
    group_list=$(seq -s , "$groups")
}

# Builds a chain of one node and starts it. Ports: JSON-RPC, operator, channel, P2P are base_port and the three after it.
start_node() {
    mkdir -p target
    dir=$(mktemp -d "${PERF_DIR:-target}/perf.XXXXXX")
    rpc=http://127.0.0.1:$base_port
    operator=http://127.0.0.1:$((base_port + 1))
    curl -s -o /dev/null "$rpc" && fail "something answers at $rpc already; stop it, or name other ports in PERF_PORT"
    "$bin/millrace" chain build -l 127.0.0.1:1 --groups "$groups" -o "$dir/chain" \
        -p "$((base_port + 3)),$((base_port + 2)),$base_port" >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
    config=$dir/chain/127.0.0.1/node0/config.ini
    sed -i "s/^\( *durability=\).*/\1$durability/; s/^\( *operator_listen_port=\).*/\1$((base_port + 1))/" "$config"
    grep -q "durability=$durability\$" "$config" || fail "cannot set durability=$durability in config.ini of the new chain"
    "$bin/millrace" run -c "$config" >>"$dir/log" 2>&1 &
    node=$!
    tries=0
    until curl -sf -o /dev/null "$operator/readyz"; do
        kill -0 $node 2>/dev/null || { tail "$dir/log" >&2; fail "the node did not start"; }
        tries=$((tries + 1))
        [ $tries -lt 300 ] || { tail "$dir/log" >&2; fail "the node is not ready after 30 s"; }
        sleep 0.1
    done
}

# Runs txgen on all groups for at most `duration` seconds; its results are in $dir/load.json. The status is its own, 124 when out of time.
run_load() {
    set -- --rpc "$rpc" --group "$group_list" --workload "$workload" --count "$count" --accounts "$accounts" --json "$dir/load.json"
    [ "$rate" -eq 0 ] || set -- "$@" --rate "$rate"
    timeout --kill-after 5 "$duration" "$bin/txgen" "$@"
}

# Stops the node in order; a node that takes longer than 20 s is killed.
stop_node() {
    [ -n "$node" ] || return 0
    kill -INT "$node" 2>/dev/null || true
    tries=0
    while kill -0 "$node" 2>/dev/null && [ $tries -lt 200 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    kill -9 "$node" 2>/dev/null && echo "the node did not stop within 20 s and was killed" >&2
    wait "$node" 2>/dev/null || true
    node=
}

finish() {
    [ -z "$load" ] || kill "$load" 2>/dev/null || true
    stop_node
    [ -z "$dir" ] || rm -rf "$dir"
    dir=
}
