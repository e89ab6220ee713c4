"""Runs two replicas behind HAProxy, nginx, Caddy and Envoy with the files of .packaging/examples. Each client has its own
rate limit through the proxy, untrusted clients see neither metrics nor status, and none of 50 requests per second is lost
while a replica is killed and while both are replaced. Skips a proxy that is not installed."""

import contextlib
import http.client
import os
import pathlib
import random
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
# Only a hang reaches this deadline.
PATIENCE_S = 30


def free_port(taken=set()):
    """A port that no other call gets and that the kernel gives to no outgoing connection."""
    first_outgoing = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(1024, max(first_outgoing, 32768)), 1000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in taken:
                taken.add(port)
                return port
    sys.exit("no free port")


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
    """A proxy with its file of .packaging/examples, with the addresses replaced."""

    def __init__(self, name, example, around, command, listen=r"^(\s*(?:listen |bind )?):?4000\b", here="127.0.0.1:{}"):
        self.name, self.example, self.around, self.command = name, example, around, command
        self.listen, self.here = listen, here
        # Debian installs servers in /usr/sbin.
        self.program = shutil.which(command[0], path=os.environ["PATH"] + ":/usr/sbin")

    def config(self, listen, replicas):
        config = (ROOT / ".packaging/examples" / self.example).read_text()
        # Envoy has address and port in separate fields.
        places = {r"10\.0\.0\.11(:|, port_value: )4000": replicas[0].port, r"10\.0\.0\.12(:|, port_value: )4000": replicas[1].port}
        for address, port in places.items():
            config, count = re.subn(address, rf"127.0.0.1\g<1>{port}", config)
            assert count == 1, address
        config, listens = re.subn(self.listen, rf"\g<1>{self.here.format(listen)}", config, flags=re.M)
        assert listens == 1, config
        return config

    def start(self, directory, config, listen):
        """Returns the process as soon as it serves. Prints its log if it does not."""
        path = pathlib.Path(directory, self.name + pathlib.Path(self.example).suffix)
        path.write_text(self.around.format(config=config, directory=directory))
        command = [self.program, *(part.format(config=path) for part in self.command[1:])]
        log = open(pathlib.Path(directory, self.name + ".log"), "w")
        environment = {"HOME": directory, "PATH": os.environ["PATH"]}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait_until(f"{self.name} serves", lambda: process.poll() is not None or answers(listen))
            assert process.poll() is None, f"{self.name} exited with {process.returncode}"
        except BaseException:
            print(pathlib.Path(log.name).read_text()[-4000:], flush=True)
            process.kill()
            raise
        return process


PROXIES = [
    Proxy("haproxy", "haproxy.cfg", "{config}", ["haproxy", "-f", "{config}"]),
    Proxy(
        "nginx",
        "nginx.conf",
        "daemon off; pid {directory}/nginx.pid; error_log stderr; events {{}}\n"
        "http {{ access_log off; client_body_temp_path {directory}/a; proxy_temp_path {directory}/b;\n"
        "fastcgi_temp_path {directory}/c; uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;\n{config} }}\n",
        ["nginx", "-e", "stderr", "-c", "{config}"],
    ),
    Proxy(
        "caddy",
        "Caddyfile",
        "{{\n admin off\n auto_https off\n}}\n{config}",
        ["caddy", "run", "--adapter", "caddyfile", "--config", "{config}"],
        # Caddy serves an address without a scheme by TLS.
        here="http://127.0.0.1:{}",
    ),
    Proxy(
        "envoy",
        "envoy.yaml",
        "{config}",
        ["envoy", "--base-id", str(os.getpid()), "--log-level", "error", "-c", "{config}"],
        listen=r"(address: )0\.0\.0\.0, port_value: 4000",
        here="127.0.0.1, port_value: {}",
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
    """Requests at a steady rate, each on a separate connection or all on one kept connection."""

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


def haproxy_limits_all_replicas(directory):
    """The commented lines of haproxy.cfg: a client above the limit keeps its share."""
    proxy = PROXIES[0]
    replicas = [Replica(directory, RATELIMIT_REQS_PER_MIN="0") for _ in range(2)]
    for replica in replicas:
        wait_until("both replicas serve", lambda: answers(replica.port))
    listen = free_port()
    config = proxy.config(listen, replicas).replace("#limit ", "").replace("http_req_rate(60s)", "http_req_rate(6s)")
    process = proxy.start(directory, config, listen)
    try:
        # A client with 15 requests in the time of 10 gets at least two thirds of them answered, permanently.
        statuses = []
        for _ in range(45):
            statuses.append(get(listen, source="127.0.0.5"))
            time.sleep(0.4)
        granted = statuses.count(200)
        print(f"one limit for all replicas: {granted} of {len(statuses)} granted at 1.5 times the limit")
        assert 200 in statuses[-15:] and granted >= 26 and set(statuses) == {200, 429}, statuses
        targets = ["//api/v1/ips?container=a", "/api/v1/%69ps?container=a", "/api/v1/ips/?container=a"] * 8
        assert 429 in [get(listen, source="127.0.0.6", target=target) for target in targets]
        connection = http.client.HTTPConnection("127.0.0.1", listen, source_address=("127.0.0.6", 0))
        connection.request("GET", TARGET)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 429 and response.headers["Retry-After"] and b'{"error":' in body, (response.status, body)
        assert get(listen, source="127.0.0.6", target="/api/v1/containers") == 200, "each endpoint has its own limit"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        for replica in replicas:
            replica.end(signal.SIGKILL)


def each_client_has_its_own_limit(port):
    def granted(source):
        forged = ({"X-Forwarded-For": f"203.0.113.{i}"} for i in range(20))
        return sum(get(port, source, headers) == 200 for headers in forged)

    first, second = granted("127.0.0.5"), granted("127.0.0.6")
    print(f"limit {LIMIT} a minute, 2 replicas, 20 requests with forged X-Forwarded-For: {first} and {second} granted")
    # Replicas share no state: each has separate buckets. One or two tokens may refill meanwhile.
    assert all(2 * LIMIT <= count <= 2 * LIMIT + 2 for count in (first, second))


def untrusted_clients_see_what_is_public(port):
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
        # HAProxy checks once per second.
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
        process = proxy.start(directory, proxy.config(listen, replicas), listen)
        try:
            if limit:
                each_client_has_its_own_limit(listen)
            else:
                untrusted_clients_see_what_is_public(listen)
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
            if proxy.name == "haproxy":
                haproxy_limits_all_replicas(directory)
        nodes.stdin.close()
        nodes.wait(PATIENCE_S)


main()
