"""Queries a router by the real client, which has a timeout of 3 s: `resources.py URL NODES MODEL_ID`."""

import asyncio
import sys
import time

from aiohttp import ClientSession
from infernet_client import RouterClient

# Maximum nodes in a response, which the client cannot change, and nodes that are queried for a model within 2 s.
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
    # The router queries nodes soon after their first probe, 50 per second.
    while await known(url) < count:
        await asyncio.sleep(0.1)
    client = RouterClient(url)
    assert await timed(f"resources of {count}", client.get_resources()) == min(count, MAX_NODES)
    found = await timed(f"check-model of {count}", client.check_model_support(model_id))
    assert min(count, 10) <= found <= MAX_ASKED
    await timed("once more", client.check_model_support(model_id))


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
