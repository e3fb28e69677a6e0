#!/bin/sh
# FISCO-BCOS/nodejs-sdk, unmodified, against a node: the SDK's own tests and every command of its command line, in each group.
#   tools/clients/nodejs.sh DIR_OF_SDK                           starts a network of one node with two groups
#   tools/clients/nodejs.sh DIR_OF_SDK --rpc URL --channel HOST:PORT --certificates DIR [--groups 1,2]
# DIR_OF_SDK is a checkout of https://github.com/FISCO-BCOS/nodejs-sdk (v2); it is copied, not written to, and its compilers of the
# national algorithms are not needed. What it requires is installed from npm into CLIENTS_CACHE (~/.cache/millrace-clients), outside the
# repository. Two checks need a network of several nodes: CLIENTS_NODES=4. Last line: N passed, N failed, N skipped.
set -eu
cd "$(dirname "$0")/../.."
. tools/clients/lib.sh
[ $# -ge 1 ] && [ -f "$1/packages/cli/cli.js" ] || fail "usage: tools/clients/nodejs.sh DIR_OF_SDK [--rpc URL --channel HOST:PORT --certificates DIR --groups 1,2]"
sdk=$(cd "$1" && pwd)
shift
read_endpoints "$@"

for program in node npm; do
    command -v $program >/dev/null || skip "there is no $program"
done
space=$cache/nodejs
rm -rf "$space/sdk"
mkdir -p "$space/sdk"
(cd "$sdk" && tar --exclude=node_modules --exclude=.git -cf - .) | tar -xf - -C "$space/sdk"

# Installs what the package.json of a part asks for, and what it forgets to ask for, and links it into the copy.
install_part() {
    part=$1
    shift
    home=$space/modules/$part
    mkdir -p "$home"
    if ! cmp -s "$sdk/$part/package.json" "$home/installed.json"; then
        echo "installing what $part of the SDK requires from npm ..."
        cp "$sdk/$part/package.json" "$home/package.json"
        (cd "$home" && npm install --no-audit --no-fund --loglevel=error "$@" >npm.log 2>&1) || skip "npm cannot install it; see $home/npm.log"
        cp "$sdk/$part/package.json" "$home/installed.json"
    fi
    ln -sfn "$home/node_modules" "$space/sdk/$part/node_modules"
}
install_part packages/api
install_part packages/api/compile/compilers/solc-0.4
install_part packages/api/compile/compilers/solc-0.5
install_part packages/cli isarray@2.0.5
install_part test mocha@7.2.0
trap finish EXIT
trap 'exit 1' INT TERM
need_network

# OpenSSL 3 in Node 17 and later does not offer secp256k1 in TLS 1.3 and gives up before it sees that the node speaks 1.2.
export NODE_OPTIONS="--tls-max-v1.2 ${NODE_OPTIONS:-}"
root=$PWD
passed=0 failed=0 skipped=0
for group in $(echo "$groups" | tr , ' '); do
    for file in packages/cli/conf/config.json test/conf/config.json; do
        node tools/clients/nodejs/configure.js "$space/sdk/$file" "$channel" "$certificates" "$group"
    done
    out=$space/tests-$group.log
    (cd "$space/sdk/test" && timeout --kill-after 10 "${CLIENTS_LIMIT:-300}" node_modules/.bin/mocha --reporter tap --timeout 30000 --exit './test_*.js' >"$out" 2>&1) || true
    grep -q '^# tests' "$out" || echo "not ok 0 the SDK's tests did not come to their end; see $out" >>"$out"
    grep '^not ok' "$out" | sed "s/^/group $group: /" || true
    passed=$((passed + $(grep -c '^ok' "$out" || true)))
    failed=$((failed + $(grep -c '^not ok' "$out" || true)))
    out=$space/commands-$group.log
    (cd "$space/sdk/packages/cli" && timeout --kill-after 10 "${CLIENTS_LIMIT:-300}" node "$root/tools/clients/nodejs/checks.js" "$group" >"$out" 2>&1) || true
    grep -q '^end$' "$out" || echo "FAIL the commands did not come to their end; see $out" >>"$out"
    grep -E '^(FAIL|SKIP)' "$out" | sed "s/^/group $group: /" || true
    passed=$((passed + $(grep -c ^PASS "$out" || true)))
    failed=$((failed + $(grep -c ^FAIL "$out" || true)))
    skipped=$((skipped + $(grep -c ^SKIP "$out" || true)))
done
[ "$failed" -eq 0 ] || explain_failure
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
