# Sourced by the scripts in this directory.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
started=

# Stops only the processes that this script has started.
finish() {
    for pid in $started; do kill "$pid" 2>/dev/null || true; done
    for pid in $started; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

skip() {
    echo "skipped: $1"
    exit 0
}

# venv FOLDER PACKAGE…: creates a Python environment below target/ and keeps it for the next run.
venv() {
    venv=$root/target/$1
    shift
    python3 -c 'import venv' 2>/dev/null || skip "no Python with venv"
    [ -e "$venv/complete" ] && return
    rm -rf "$venv"
    python3 -m venv "$venv" || skip "python3 -m venv does not work here"
    "$venv/bin/pip" install --quiet "$@" || skip "pip can't install $*: no package index?"
}

# Starts the router with three stand-in nodes. Its address is in $url.
demo() {
    HOST=127.0.0.1 PORT=0 RATELIMIT_REQS_PER_MIN=0 REFRESH_INTERVAL=2 \
        "$root/target/demo" "$root/target/debug/infernet-router" > "$work/demo.log" 2>&1 &
    started="$started $!"
    for _ in $(seq 100); do
        url=$(sed -n 's/.*serving: .*url="\(http:[^"]*\)".*/\1/p' "$work/demo.log")
        [ -n "$url" ] && return
        sleep 0.1
    done
    cat "$work/demo.log"
    echo "the demo does not serve" >&2
    exit 1
}
