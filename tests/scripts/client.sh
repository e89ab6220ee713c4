#!/bin/sh
# Runs the real Python client against the router. Skipped without Python or a package index.
. "$(dirname "$0")/lib.sh"
# A plain install of the client is broken: it installs incompatible releases of its dependencies.
venv infernet-client infernet-ml==2.0.0 'aiohttp<4' 'click<9' 'quart<1' 'web3>=6.19,<7'
[ -e "$venv/complete" ] || "$venv/bin/pip" install --quiet --no-deps infernet-client==1.4.0
touch "$venv/complete"
demo
export ROUTER_URL="$url"
client=$venv/bin/infernet-client

# expect WHAT WANTED COMMAND…: the whole output must match the extended regular expression.
expect() {
    what=$1 wanted=$2
    shift 2
    got=$("$@" 2>&1 | tr -s ' \n' ' ')
    echo "$what: $got"
    printf '%s' "$got" | grep -Eqx "$wanted ?" || { echo "expected $wanted" >&2; exit 1; }
}

node='127\.1\.0\.[123]:[0-9]+'
expect containers '.*classifier.*hello-world.*summarizer.*' "$client" containers
expect 'find, one container' ".*$node.*$node.*" "$client" find -c hello-world
expect 'find, two containers' ".*127\.1\.0\.3:[0-9]+.*127\.1\.0\.1:[0-9]+.*" "$client" find -c hello-world -c summarizer
expect 'find, the second of two' ".*127\.1\.0\.1:[0-9]+.*" "$client" find -c hello-world -c summarizer -n 1 --skip 1

# until_known COUNT COMMAND…: waits, because the router queries the resources of a node soon after its first probe.
until_known() {
    count=$1
    shift
    for _ in $(seq 50); do
        [ "$("$@" 2>&1 | grep -oE "\"$node\"" | wc -l)" = "$count" ] && return
        sleep 0.2
    done
    "$@"
    echo "expected $count nodes" >&2
    exit 1
}

until_known 2 "$client" resources
engine='"compute_capability": \[ \{ [^}]*"type": "onnx" \} \]'
expect resources "\\{ \"$node\": \\{ \"summarizer\": .*\"$node\": \\{ \"classifier\": .*$engine.*" "$client" resources
model=huggingface/Ritual-Net/iris-classification:iris.onnx
until_known 2 "$client" check-model -m "$model"
one="\"$node\": \\{ \"summarizer\": \\{ \"supported\": false \\} \\}"
two="\"$node\": \\{ \"classifier\": \\{ \"supported\": true \\}, \"summarizer\": \\{ \"supported\": false \\} \\}"
expect check-model "\\{ $one, $two \\}" "$client" check-model -m "$model"

for count in 1 10 1000; do
    mkdir "$work/$count"
    mkfifo "$work/$count/input"
    python3 "$root/tests/scripts/nodes.py" "$count" < "$work/$count/input" > "$work/$count/ips.txt" &
    started="$started $!"
    exec 9> "$work/$count/input"
    while ! grep -sqx '' "$work/$count/ips.txt"; do sleep 0.1; done
    (cd "$work/$count" && HOST=127.0.0.1 PORT=0 RATELIMIT_REQS_PER_MIN=0 exec "$root/target/debug/infernet-router" 2> log) &
    started="$started $!"
    while ! url=$(grep -som1 'http://127.0.0.1:[0-9]*' "$work/$count/log"); do sleep 0.1; done
    "$venv/bin/python" "$root/tests/scripts/resources.py" "$url" "$count" "$model"
done
echo "the Python client works"
