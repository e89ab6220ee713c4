#!/bin/sh
# Two replicas behind HAProxy. Skipped where HAProxy or Python is absent.
. "$(dirname "$0")/lib.sh"
PATH=$PATH:/usr/sbin
command -v haproxy > /dev/null || skip "no haproxy"
command -v python3 > /dev/null || skip "no python3"
python3 "$root/tests/scripts/proxy.py" "$root"
