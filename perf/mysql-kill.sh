#!/bin/sh
# Kills the MariaDB below a loaded storage engine and below a loaded node again and again with kill -9 and starts it again. Good if nothing
# that was acknowledged is lost, which the tests check.
#   perf/mysql-kill.sh [ROUNDS]     (default 20)
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-20}
case $rounds in '' | *[!0-9]* | ????*) echo "usage: perf/mysql-kill.sh [ROUNDS]" >&2; exit 2 ;; esac
tools/packages.sh mariadb-server-core mariadb-client-core
MILLRACE_MYSQL_KILLS=$rounds
export MILLRACE_MYSQL_KILLS
cargo nextest run --release --workspace --no-capture server_killed_under_load
