"""A message with Anthropic's SDK: BASE_URL, then ``plain`` or ``stream``."""

import sys

from anthropic import Anthropic

client = Anthropic(base_url=sys.argv[1], max_retries=0, timeout=20)
ask = {
    "model": "test",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "What did I send?"}],
}
if sys.argv[2] == "plain":
    raw = client.messages.with_raw_response.create(**ask)
    print(raw.headers.raw)
    print(raw.http_response.content)
    print(raw.parse().content[0].text)
else:
    with client.messages.stream(**ask) as stream:
        print(stream.response.headers.raw)
        for event in stream:
            print(event.model_dump_json())
        print(stream.get_final_text())
