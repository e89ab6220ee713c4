"""Two replicas behind HAProxy, nginx and Caddy, configured as README.md says: each client has its own limit through the
proxy, strangers see neither metrics nor status, and none of 50 requests a second is lost while a replica is killed and
while both are replaced. A proxy that is not installed is left out."""

import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(sys.argv[1])
BINARY = ROOT / "target/debug/infernet-router"
TARGET = "/api/v1/ips?container=hello-world"
REQUESTS_A_SECOND = 50
LIMIT = 5
# A deadline that only a hang reaches.
PATIENCE_S = 30


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Replica:
    def __init__(self, directory, **settings):
        self.port = free_port()
        self.directory = directory
        self.settings = {"HOST": "127.0.0.1", "PORT": str(self.port), "TRUSTED_PROXIES": "127.0.0.1", **settings}
        self.start()

    def start(self):
        self.process = subprocess.Popen([BINARY], cwd=self.directory, env=self.settings, stderr=subprocess.DEVNULL)

    def end(self, how):
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_S)


class Proxy:
    """A proxy with its configuration: the block of README.md in its language, with the addresses of this machine."""

    def __init__(self, name, block, around, command, here="127.0.0.1"):
        self.name, self.block, self.around, self.command, self.here = name, block, around, command, here
        # Debian keeps servers there.
        self.program = shutil.which(command[0], path=os.environ["PATH"] + ":/usr/sbin")

    def start(self, directory, listen, replicas):
        readme = (ROOT / "README.md").read_text()
        config = re.search(rf"```{self.block}\n(.*?)```", readme, re.DOTALL)[1]
        places = {"10.0.0.11:4000": replicas[0].port, "10.0.0.12:4000": replicas[1].port}
        for place, port in places.items():
            assert config.count(place) == 1, place
            config = config.replace(place, f"127.0.0.1:{port}")
        config, listens = re.subn(r"^(\s*(?:listen |bind )?):?4000\b", rf"\g<1>{self.here}:{listen}", config, flags=re.M)
        assert listens == 1, config
        path = pathlib.Path(directory, self.name)
        path.write_text(self.around.format(config=config, directory=directory))
        command = [self.program, *(part.format(config=path) for part in self.command[1:])]
        log = open(pathlib.Path(directory, self.name + ".log"), "w")
        environment = {"HOME": directory, "PATH": os.environ["PATH"]}
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


PROXIES = [
    Proxy("haproxy", "haproxy", "{config}", ["haproxy", "-f", "{config}"]),
    Proxy(
        "nginx",
        "nginx",
        "daemon off; pid {directory}/nginx.pid; error_log stderr; events {{}}\n"
        "http {{ access_log off; client_body_temp_path {directory}/a; proxy_temp_path {directory}/b;\n"
        "fastcgi_temp_path {directory}/c; uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;\n{config} }}\n",
        ["nginx", "-e", "stderr", "-c", "{config}"],
    ),
    Proxy(
        "caddy",
        "caddyfile",
        "{{\n admin off\n auto_https off\n}}\n{config}",
        ["caddy", "run", "--adapter", "caddyfile", "--config", "{config}"],
        # An address without a scheme is served by TLS.
        here="http://127.0.0.1",
    ),
]


def get(port, source="127.0.0.1", headers={}, target=TARGET):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(source, 0))
    connection.request("GET", target, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def wait_until(what, condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"waited for {PATIENCE_S} s until {what}")
        time.sleep(0.05)


def answers(port):
    try:
        return get(port, source="127.0.0.99") in (200, 429)
    except OSError:
        return False


class Load:
    """Requests at a steady rate: each on a connection of its own, or on one that stays open."""

    def __init__(self, port):
        self.port = port
        self.statuses, self.slowest_s, self.lost = [], 0.0, []
        self.lock = threading.Lock()
        self.stop = threading.Event()
        workers = 10
        self.threads = [
            threading.Thread(target=self.ask, args=(i, workers / REQUESTS_A_SECOND)) for i in range(workers)
        ]
        for thread in self.threads:
            thread.start()

    def ask(self, number, every_s):
        keeps = number % 2 == 0
        connection = None
        due = time.monotonic() + number * every_s / 10
        while not self.stop.wait(max(0, due - time.monotonic())):
            due += every_s
            began = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("GET", TARGET)
                answer = connection.getresponse()
                answer.read()
                outcome = answer.status
            except Exception as error:
                outcome, connection = repr(error), None
            with self.lock:
                self.statuses.append(outcome)
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                if outcome != 200:
                    self.lost.append(outcome)
            if not keeps and connection is not None:
                connection.close()
                connection = None

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def each_client_has_its_own_limit(port):
    def granted(source):
        forged = ({"X-Forwarded-For": f"203.0.113.{i}"} for i in range(20))
        return sum(get(port, source, headers) == 200 for headers in forged)

    first, second = granted("127.0.0.5"), granted("127.0.0.6")
    print(f"limit {LIMIT} a minute, 2 replicas, 20 requests with forged X-Forwarded-For: {first} and {second} granted")
    # Nothing is shared: each replica grants its own. A token or two may come back meanwhile.
    assert all(2 * LIMIT <= count <= 2 * LIMIT + 2 for count in (first, second))


def strangers_see_what_is_public(port):
    for target in ("/health", "/openapi.json", "/api/v1/containers", "//api/v1/ips?container=hello-world", "/"):
        assert get(port, target=target) == 200, target
    spellings = ["//metrics", "/%6detrics", "/%73tatus", "/status?q=a", "/./metrics", "/api/../metrics"]
    hidden = ["/metrics", "/status", "/status.json", *spellings]
    assert {get(port, target=target) for target in hidden} <= {400, 404}


def nothing_is_lost(port, replicas):
    load = Load(port)
    phases = []

    def phase(name):
        with load.lock:
            phases.append(f"{name}: {len(load.statuses)} requests, {len(load.lost)} lost")

    def until_it_serves(replica):
        wait_until("the replica serves", lambda: answers(replica.port))
        # HAProxy looks once a second.
        time.sleep(2)

    time.sleep(2)
    phase("both serve")
    replicas[0].end(signal.SIGKILL)
    time.sleep(3)
    replicas[0].start()
    until_it_serves(replicas[0])
    phase("one killed and started again")
    for replica in replicas:
        status = replica.end(signal.SIGTERM)
        assert status == 0, status
        replica.start()
        until_it_serves(replica)
    phase("both replaced by SIGTERM, one after the other")
    load.end()
    print("\n".join(phases))
    print(f"slowest answer {load.slowest_s:.2f} s")
    assert not load.lost, load.lost[:5]
    assert len(load.statuses) > 8 * REQUESTS_A_SECOND, "the load was there"


def behind(proxy, directory):
    for limit in (LIMIT, 0):
        replicas = [Replica(directory, RATELIMIT_REQS_PER_MIN=str(limit)) for _ in range(2)]
        listen = free_port()
        for replica in replicas:
            wait_until("both replicas serve", lambda: answers(replica.port))
        process = proxy.start(directory, listen, replicas)
        try:
            wait_until(f"{proxy.name} serves", lambda: answers(listen))
            if limit:
                each_client_has_its_own_limit(listen)
            else:
                strangers_see_what_is_public(listen)
                nothing_is_lost(listen, replicas)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
            for replica in replicas:
                replica.end(signal.SIGKILL)


def main():
    with tempfile.TemporaryDirectory() as directory:
        demo = [ROOT / "target/demo", "nodes"]
        nodes = subprocess.Popen(demo, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        pathlib.Path(directory, "ips.txt").write_text("".join(nodes.stdout.readline() for _ in range(3)))
        for proxy in filter(lambda proxy: proxy.program and proxy.name in (sys.argv[2:] or [proxy.name]), PROXIES):
            print(f"{proxy.name}:", flush=True)
            behind(proxy, directory)
        nodes.stdin.close()
        nodes.wait(PATIENCE_S)


main()
