"""GET and a chunked POST with httpx; the URL is the argument, the placeholder in API_KEY."""

import os
import sys

import httpx

headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
with httpx.Client(timeout=20) as client:
    for answer in (
        client.get(sys.argv[1], headers=headers),
        client.post(sys.argv[1], headers=headers, content=iter([b"one", b"two"])),
    ):
        answer.raise_for_status()
        print(answer.headers.raw)
        print(answer.text)
