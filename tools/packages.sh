#!/bin/sh
# Makes sure that Debian packages are installed: installs missing ones when run as root, otherwise prints the command that does.
set -eu
missing=
for package in "$@"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "these packages are needed and this is not a Debian system; install their equivalents:$missing" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "these packages are missing; install them with:" >&2
    echo "    sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
apt-get update -qq
# shellcheck disable=SC2086 # one word a package
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
