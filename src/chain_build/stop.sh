#!/bin/bash
# Stops the node of this directory in order and waits until it has ended.
directory=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program="$directory/../millrace"
node=$(basename "$directory")

# The process whose argv[0] is this node's program path: each node names the program through its own directory.
node_pid() {
    local entry first
    for entry in /proc/[0-9]*; do
        first=
        IFS= read -r -d '' first 2>/dev/null < "$entry/cmdline"
        if [ "$first" = "$program" ]; then
            echo "${entry#/proc/}"
            return
        fi
    done 2>/dev/null
}

pid=$(node_pid)
if [ -z "$pid" ]; then
    echo " $node isn't running."
    exit 0
fi
kill "$pid"
for _ in $(seq 1 300); do
    if ! kill -0 "$pid" 2>/dev/null; then
        echo " stop $node success."
        exit 0
    fi
    sleep 0.1
done
echo " $node (pid $pid) has not ended after 30 seconds; see $directory/log"
exit 1
