"""A chat completion with OpenAI's SDK: BASE_URL, then ``plain`` or ``stream``."""

import sys

from openai import OpenAI

client = OpenAI(base_url=sys.argv[1], max_retries=0, timeout=20)
messages = [{"role": "user", "content": "What did I send?"}]
if sys.argv[2] == "plain":
    raw = client.chat.completions.with_raw_response.create(model="test", messages=messages)
    print(raw.headers.raw)
    print(raw.content)
    print(raw.parse().choices[0].message.content)
else:
    stream = client.chat.completions.create(model="test", messages=messages, stream=True)
    print(stream.response.headers.raw)
    text = ""
    for event in stream:
        print(event.model_dump_json())
        text += event.choices[0].delta.content or ""
    print(text)
