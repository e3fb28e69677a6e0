#!/bin/bash
# Stops every node of this machine.
directory=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
failed=0
for script in "$directory"/node*/stop.sh; do
    echo "try to stop $(basename "$(dirname "$script")")"
    bash "$script" || failed=1
done
exit $failed
