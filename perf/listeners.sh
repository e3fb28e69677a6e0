#!/bin/sh
# Many channel clients that listen to blocks and events while txgen loads the group; some of them stop reading.
#   perf/listeners.sh [-o FILE] [SCENARIO]      (default: listeners; CLIENTS=1000, DEAF=200)
# One JSON line, appended to target/listeners.jsonl or FILE. The status is 0 if every client that reads got every block and every log.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=perf/lib.sh
. perf/lib.sh

usage() { echo "usage: perf/listeners.sh [-o FILE] [SCENARIO]" >&2; exit 2; }
output=target/listeners.jsonl
while getopts o: option; do
    case $option in o) output=$OPTARG ;; *) usage ;; esac
done
shift $((OPTIND - 1))
[ $# -le 1 ] || usage
[ -x "$bin/listeners" ] || fail "$bin/listeners is missing; run 'make build', or name its directory in MILLRACE_BIN"
need_tools curl
read_scenario "${1:-listeners}"
[ "$groups" -eq 1 ] || fail "scenario $scenario: listeners hear one group, so groups must be 1"
trap finish EXIT
trap 'exit 1' INT TERM
start_nodes

"$bin/listeners" --rpc "$rpc" --channel "$(channel_of 0)" --certificates "$dir/chain/127.0.0.1/sdk" --process "$node" \
    --clients "${CLIENTS:-1000}" --deaf "${DEAF:-200}" >"$dir/heard" &
load=$!
tries=0
until grep -q '^ready' "$dir/heard" 2>/dev/null; do
    kill -0 $load 2>/dev/null || fail "the listeners ended before they were ready"
    tries=$((tries + 1))
    [ $tries -lt 1200 ] || fail "the listeners are not connected after 120 s"
    sleep 0.1
done
outcome=ok
run_load >"$dir/load.out" 2>&1 || { outcome=failed; tail -n 5 "$dir/load.out" >&2; }
status=0
wait $load || status=$?
load=
mkdir -p "$(dirname "$output")"
line=$(tail -n 1 "$dir/heard")
case $line in '{'*) ;; *) fail "the listeners gave no figures" ;; esac
echo "{\"scenario\":\"$scenario\",\"rate\":$rate,\"load\":\"$outcome\",${line#?}" | tee -a "$output"
[ "$outcome" = ok ] && exit $status
exit 1
