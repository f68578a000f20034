"""An origin that speaks enough of two LLM APIs for their SDKs, and gives away the key it saw.

OpenAI: ``POST /v1/chat/completions``; Anthropic: ``POST /v1/messages``; both plain and, with
``"stream": true``, as Server-Sent Events.  Every answer repeats the credential header of its
request: in a response header, in the answer's text, and base64-encoded.  An honest origin would
not, so whatever hides it from the client is the gateway.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterable
from typing import Any

from tests.support.origin import Origin, Request, Step, chunked, ok

JSON = b"Content-Type: application/json"
EVENTS = b"Content-Type: text/event-stream; charset=utf-8"


def credential_seen(request: Request) -> bytes:
    """Return the request's ``Authorization`` value without its scheme, or its ``x-api-key``."""
    bearer = request.header(b"authorization")
    if bearer is not None:
        return bearer.partition(b" ")[2]
    return request.header(b"x-api-key") or b""


def told(key: bytes) -> str:
    """Return the text that an answer tells the client about its own key."""
    encoded = base64.b64encode(b"key: " + key).decode("ascii")
    return f"You sent {key.decode('latin-1')} which is {encoded} in base64."


def respond(request: Request) -> Iterable[Step]:
    """Answer one request of either API; 404 in the OpenAI error shape for anything else."""
    key = credential_seen(request)
    echo = b"X-Echo-Key: " + key
    path = request.target.partition(b"?")[0]
    if request.method != b"POST" or path not in (b"/v1/chat/completions", b"/v1/messages"):
        error = {"error": {"message": "no such thing", "type": "invalid_request_error"}}
        return [ok(_json(error), JSON, echo, status=b"404 Not Found")]
    asked = json.loads(request.body)
    openai = path == b"/v1/chat/completions"
    if asked.get("stream"):
        events = _openai_events(asked, key) if openai else _anthropic_events(asked, key)
        return chunked(events, EVENTS, echo)
    answer = _openai_answer(asked, key) if openai else _anthropic_answer(asked, key)
    return [ok(_json(answer), JSON, echo)]


def llm_origin(tls: ssl.SSLContext) -> Origin:
    """Return a listening origin of this kind."""
    return Origin(respond, tls)


def _json(value: object) -> bytes:
    return json.dumps(value).encode("ascii")


def _openai_answer(asked: dict[str, Any], key: bytes) -> dict[str, Any]:
    message = {"role": "assistant", "content": told(key), "refusal": None}
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "created": 1700000000,
        "model": asked["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def _openai_events(asked: dict[str, Any], key: bytes) -> list[bytes]:
    base = {
        "id": "chatcmpl-test",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": asked["model"],
    }
    events = []
    for text in [*_words(key), ""]:
        delta = {"role": "assistant", "content": text} if text else {}
        choice = {"index": 0, "delta": delta, "finish_reason": None if text else "stop"}
        events.append(b"data: " + _json({**base, "choices": [choice]}) + b"\n\n")
    return [*events, b"data: [DONE]\n\n"]


def _anthropic_answer(asked: dict[str, Any], key: bytes) -> dict[str, Any]:
    return {
        "id": "msg_test",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [{"type": "text", "text": told(key)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def _anthropic_events(asked: dict[str, Any], key: bytes) -> list[bytes]:
    message = {**_anthropic_answer(asked, key), "content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    for text in _words(key):
        delta = {"type": "text_delta", "text": text}
        events.append({"type": "content_block_delta", "index": 0, "delta": delta})
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    events += [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return [
        b"event: " + event["type"].encode("ascii") + b"\ndata: " + _json(event) + b"\n\n"
        for event in events
    ]


def _words(key: bytes) -> list[str]:
    """Return the streamed pieces: the telling text whole words at a time, so keys stay whole."""
    words = told(key).split(" ")
    return [word + " " for word in words[:-1]] + [words[-1]]
