#!/bin/sh
# Runs two replicas behind HAProxy, nginx, Caddy and Envoy, if installed. Skipped without a proxy or without Python.
. "$(dirname "$0")/lib.sh"
PATH=$PATH:/usr/sbin
command -v haproxy > /dev/null || command -v nginx > /dev/null || command -v caddy > /dev/null ||
    command -v envoy > /dev/null || skip "no proxy"
command -v python3 > /dev/null || skip "no python3"
python3 "$root/tests/scripts/proxy.py" "$root" "$@"
