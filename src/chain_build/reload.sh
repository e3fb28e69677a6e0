#!/bin/bash
# Has the node of the directory above read its lists again, and waits until it has.
directory=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
signal="$directory/config.ini.SIGNAL"
touch "$signal" || exit 1
for _ in $(seq 1 100); do
    if [ ! -e "$signal" ]; then
        echo " $(basename "$directory") has read its lists; mistakes in them stand in its log."
        exit 0
    fi
    sleep 0.1
done
rm -f "$signal"
echo " $(basename "$directory") does not answer; is it running?"
exit 1
