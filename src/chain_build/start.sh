#!/bin/bash
# Starts the node of this directory and waits until it serves.
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

cd "$directory" || exit 1
pid=$(node_pid)
if [ -n "$pid" ]; then
    echo " $node is running, pid is $pid."
    exit 0
fi

touch nohup.out
before=$(wc -c < nohup.out)
nohup "$program" run -c config.ini >> nohup.out 2>&1 &
started=$!
for _ in $(seq 1 120); do
    if tail -c +$((before + 1)) nohup.out | grep -q "running"; then
        echo " $node start successfully pid=$started"
        exit 0
    fi
    kill -0 "$started" 2>/dev/null || break
    sleep 0.5
done
if kill -0 "$started" 2>/dev/null; then
    echo " $node is still starting, pid is $started; see $directory/nohup.out"
    exit 0
fi
echo " $node did not start:"
tail -c +$((before + 1)) nohup.out | tail -n 20
exit 1
