#!/bin/sh
# Flame graph of a loaded node: runs a scenario, samples the node meanwhile, writes an SVG.
#   perf/flame.sh [-o FILE.svg] [SCENARIO]     (default: target/flame.svg, transfer-1)
set -eu
cd "$(dirname "$0")/.."
. perf/lib.sh

usage() { echo "usage: perf/flame.sh [-o FILE.svg] [SCENARIO]" >&2; exit 2; }
output=target/flame.svg
while getopts o: option; do
    case $option in o) output=$OPTARG ;; *) usage ;; esac
done
shift $((OPTIND - 1))
[ $# -le 1 ] || usage

missing=
for tool in perf inferno-collapse-perf inferno-flamegraph; do
    case $tool in perf) remedy="tools/packages.sh linux-perf" ;; *) remedy="cargo install --locked inferno" ;; esac
    command -v $tool >/dev/null || missing="$missing
$tool is missing; get it with: $remedy"
done
[ -z "$missing" ] || fail "cannot make a flame graph:$missing"
paranoid=$(cat /proc/sys/kernel/perf_event_paranoid)
[ "$(id -u)" -eq 0 ] || [ "$paranoid" -le 2 ] ||
    fail "this user may not sample (kernel.perf_event_paranoid=$paranoid); run: sudo sysctl kernel.perf_event_paranoid=2"
need_tools curl

trap finish EXIT
trap 'exit 130' INT TERM
read_scenario "${1:-transfer-1}"
start_nodes
run_load &
load=$!
# The release profile has no frame pointers, so stacks are copied and unwound: a low rate keeps that from slowing the node much.
perf record --quiet -F "${FLAME_HERTZ:-199}" -e cpu-clock:u --call-graph dwarf,16384 -p "$node" -o "$dir/perf.data" 2>"$dir/perf.log" &
sampler=$!
outcome=0
wait $load || outcome=$?
load=
kill -INT $sampler 2>/dev/null || true
wait $sampler 2>/dev/null || true
stop_nodes
[ -s "$dir/perf.data" ] || { cat "$dir/perf.log" >&2; fail "perf recorded nothing"; }
[ $outcome -eq 0 ] || echo "the load ended with status $outcome; the graph shows what ran until then" >&2
echo "unwinding ..."
perf script --no-inline -i "$dir/perf.data" >"$dir/script" 2>>"$dir/perf.log" || { tail "$dir/perf.log" >&2; fail "perf script failed"; }
inferno-collapse-perf "$dir/script" >"$dir/folded" 2>>"$dir/perf.log"
[ -s "$dir/folded" ] || fail "no sample has a stack; was the node idle?"
mkdir -p "$(dirname "$output")"
inferno-flamegraph --title "millrace, $scenario" "$dir/folded" >"$dir/svg"
mv "$dir/svg" "$output"
echo "$(awk '{ sum += $NF } END { printf "%.1f", sum / 1e9 }' "$dir/folded") s of user CPU time sampled; open $output in a browser"
