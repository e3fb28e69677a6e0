#!/bin/sh
# Throughput with 1, 2, 4 and 8 heights in flight while every byte between two nodes is late by `delay` milliseconds.
#   perf/window.sh [-o FILE] [SCENARIO]     (default: window)
set -eu
cd "$(dirname "$0")/.."

usage() { echo "usage: perf/window.sh [-o FILE] [SCENARIO]" >&2; exit 2; }
output=target/window.jsonl
while getopts o: option; do
    case $option in o) output=$OPTARG ;; *) usage ;; esac
done
shift $((OPTIND - 1))
[ $# -le 1 ] || usage
file=perf/scenarios/${1:-window}.conf
[ -r "$file" ] || { echo "window.sh: no scenario ${1:-window}" >&2; exit 1; }
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
for window in ${WINDOWS:-1 2 4 8}; do
    { grep -v '^window=' "$file"; echo "window=$window"; } >"$made/window-$window.conf"
    perf/run.sh -o "$output" "$made/window-$window.conf"
done
tail -n "$(echo "${WINDOWS:-1 2 4 8}" | wc -w)" "$output" |
    jq -r '"window \(.parameters.window), delay \(.parameters.delay_ms) ms: \(.steady_tps) tx/s, p50 \(.latency_ms.p50) ms, p99 \(.latency_ms.p99) ms"'
