#!/bin/sh
# FISCO-BCOS/python-sdk, unmodified, against a node: over HTTP and over the channel port, in each group.
#   tools/clients/python.sh DIR_OF_SDK                           starts a network of one node with two groups
#   tools/clients/python.sh DIR_OF_SDK --rpc URL --channel HOST:PORT --certificates DIR [--groups 1,2]
# DIR_OF_SDK is a checkout of https://github.com/FISCO-BCOS/python-sdk (v2); it is copied, not written to. The SDK's requirements are
# installed from PyPI into CLIENTS_CACHE (~/.cache/millrace-clients), outside the repository. Its vendored modules need Python 3.10 or
# older (inspect.getargspec); PYTHON names the interpreter. Last line: N passed, N failed, N skipped.
set -eu
cd "$(dirname "$0")/../.."
. tools/clients/lib.sh
[ $# -ge 1 ] && [ -f "$1/client/bcosclient.py" ] || fail "usage: tools/clients/python.sh DIR_OF_SDK [--rpc URL --channel HOST:PORT --certificates DIR --groups 1,2]"
sdk=$(cd "$1" && pwd)
shift
read_endpoints "$@"

python=${PYTHON:-}
for candidate in python3.10 python3.9 python3.8 "$HOME/.pyenv/versions/3.10.13/bin/python3.10"; do
    [ -n "$python" ] || ! "$candidate" -c 'import inspect; inspect.getargspec' 2>/dev/null || python=$candidate
done
[ -n "$python" ] || skip "there is no Python 3.8 to 3.10; name one in PYTHON"
space=$cache/python
mkdir -p "$space"
if [ ! -x "$space/venv/bin/python" ] || ! cmp -s "$sdk/requirements.txt" "$space/requirements.txt"; then
    echo "installing the requirements of the SDK into $space/venv ..."
    "$python" -m venv "$space/venv" && "$space/venv/bin/pip" install -q -r "$sdk/requirements.txt" >"$space/pip.log" 2>&1 ||
        skip "pip cannot install the requirements; see $space/pip.log"
    cp "$sdk/requirements.txt" "$space/requirements.txt"
fi
trap finish EXIT
trap 'exit 1' INT TERM
need_network

rm -rf "$space/sdk"
mkdir -p "$space/sdk"
cp -r "$sdk/." "$space/sdk/"
root=$PWD
passed=0 failed=0 skipped=0
for group in $(echo "$groups" | tr , ' '); do
    for door in rpc channel; do
        out=$space/$door-$group.log
        (cd "$space/sdk" && timeout --kill-after 10 "${CLIENTS_LIMIT:-300}" "$space/venv/bin/python" "$root/tools/clients/python/checks.py" \
            --door "$door" --rpc "$rpc" --channel "$channel" --certificates "$certificates" --group "$group" --groups "$groups" \
            --binary "$root/tools/txgen/contracts/Token.bin" --abi "$root/tools/clients/python/Token.abi" >"$out" 2>"$out.err") || true
        grep -q '^end$' "$out" || echo "FAIL the checks did not come to their end; see $out.err" >>"$out"
        grep -E '^(FAIL|SKIP)' "$out" | sed "s/^/$door, group $group: /" || true
        passed=$((passed + $(grep -c ^PASS "$out" || true)))
        failed=$((failed + $(grep -c ^FAIL "$out" || true)))
        skipped=$((skipped + $(grep -c ^SKIP "$out" || true)))
    done
done
[ "$failed" -eq 0 ] || explain_failure
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
