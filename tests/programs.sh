#!/bin/sh
# Installs the programs that the tests need and Debian has: MariaDB's server, the model checker spin, curl, and the
# browser Chromium.
set -eu
PATH=$PATH:/usr/sbin:/usr/local/sbin
missing=
[ -n "${PSTAMP_TEST_MYSQL:-}" ] || command -v mariadbd >/dev/null || missing="$missing mariadb-server-core"
command -v spin >/dev/null || missing="$missing spin"
command -v chromium >/dev/null || missing="$missing chromium fonts-dejavu-core"
command -v curl >/dev/null || missing="$missing curl"
command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "the tests need$missing; as root: apt-get install$missing" >&2
    echo "(instead of mariadb-server-core, PSTAMP_TEST_MYSQL=mysql://user:password@host:port/ names a server)" >&2
    exit 1
fi
echo "installing$missing"
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null; }
# shellcheck disable=SC2086 (several names)
install $missing 2>/dev/null || { apt-get update -q >/dev/null; install $missing; }
