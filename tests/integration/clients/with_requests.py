"""GET and POST with requests; the URL is the argument, the placeholder in API_KEY."""

import os
import sys

import requests

headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
with requests.Session() as session:
    for answer in (
        session.get(sys.argv[1], headers=headers, timeout=20),
        session.post(sys.argv[1], headers=headers, data=b"x" * 100_000, timeout=20),
    ):
        answer.raise_for_status()
        print(answer.headers)
        print(answer.text)
