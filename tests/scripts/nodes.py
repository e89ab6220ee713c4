"""Runs N stand-in nodes from 127.2.0.1 on. Prints their ips.txt and exits when its input closes.

All of 127.0.0.0/8 is this machine, so one listener serves all nodes. Each reports one service as infernet-ml 2.0.0
does, with about 6 KiB as measured on a real node.
"""

import asyncio
import ipaddress
import json
import sys

HARDWARE = [{"id": core, "frequency": 2596.1, "max_frequency": None, "min_frequency": None} for core in range(64)]
ENTRY = {
    "version": "0.1.0",
    "service_id": "classifier",
    "hardware_capabilities": [{"capability_id": "base", "cpu_info": {"num_cores": 64, "cores": HARDWARE}}],
    "compute_capability": [{"id": "ml", "type": "onnx", "task": [], "models": []}],
}
ANSWERS = {
    "/info": {"containers": [{"id": "classifier"}], "pending": {"offchain": 0, "onchain": 0}},
    "/resources": {"classifier": ENTRY},
    "/resources?": {"classifier": {"supported": True}},
}


async def answer(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    target = head.split(b" ")[1].decode()
    key = target.split("?")[0] + ("?" if "?" in target else "")
    body = json.dumps(ANSWERS[key]).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(answer, "0.0.0.0", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    first = ipaddress.ip_address("127.2.0.1")
    print("".join(f"{first + node}:{port}\n" for node in range(int(sys.argv[1]))), end="", flush=True)
    print(flush=True)
    await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
