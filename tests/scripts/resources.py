"""Asks a router of so many nodes by the real client, which gives an answer 3 s: `resources.py URL NODES MODEL_ID`."""

import asyncio
import sys
import time

from aiohttp import ClientSession
from infernet_client import RouterClient

# Nodes in an answer, which the client has no way to raise, and those that are asked about a model within 2 s.
MAX_NODES = 100
MAX_ASKED = 20


async def known(url):
    async with ClientSession() as session:
        async with session.get(f"{url}/api/v1/resources?n=0") as response:
            return int(response.headers["X-Total-Count"])


async def timed(what, call):
    begin = time.monotonic()
    nodes = len(await call)
    print(f"{what}: {nodes} nodes in {(time.monotonic() - begin) * 1000:.0f} ms")
    return nodes


async def main(url, count, model_id):
    # They are asked for them soon after they came up, 50 a second.
    while await known(url) < count:
        await asyncio.sleep(0.1)
    client = RouterClient(url)
    assert await timed(f"resources of {count}", client.get_resources()) == min(count, MAX_NODES)
    found = await timed(f"check-model of {count}", client.check_model_support(model_id))
    assert min(count, 10) <= found <= MAX_ASKED
    await timed("once more", client.check_model_support(model_id))


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
