"""Two GETs at once with aiohttp; the URL is the argument, the placeholder in API_KEY."""

import asyncio
import os
import sys

import aiohttp


async def fetch(session: aiohttp.ClientSession) -> None:
    """Print one answer."""
    headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
    async with session.get(sys.argv[1], headers=headers) as answer:
        answer.raise_for_status()
        print(answer.raw_headers)
        print(await answer.text())


async def main() -> None:
    """Fetch twice, side by side."""
    async with aiohttp.ClientSession(trust_env=True) as session:
        await asyncio.gather(fetch(session), fetch(session))


asyncio.run(main())
