"""Runs translations for tests: JSON in, JSON out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from gateway.core.call import Call, Endpoint, parse
from gateway.core.sse import Framer
from gateway.core.translate import TRANSLATIONS, Translation
from gateway.wire import CODEC

CHAT = TRANSLATIONS[Endpoint.MESSAGES, "chat"]


def call_of(body: dict[str, Any], endpoint: Endpoint = Endpoint.MESSAGES) -> Call:
    return parse(endpoint, [], json.dumps(body).encode(), CODEC)


def translate_request(body: dict[str, Any], how: Translation = CHAT) -> dict[str, Any]:
    """What is refused, what is dropped, and the request where nothing is refused."""
    call = call_of(body)
    lost = how.obstacles(call)
    made = None if lost.refused else json.loads(how.request(call).body)
    return {"upstream": made, "refused": list(lost.refused), "dropped": list(lost.dropped)}


def translate_answer(body: dict[str, Any], answer: Any, how: Translation = CHAT) -> Any:
    return json.loads(how.answer(call_of(body), json.dumps(answer).encode(), CODEC))


def stream_of(chunks: Iterable[Any]) -> bytes:
    lines = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
    return b"".join(b"data: %b\n\n" % line.encode() for line in lines)


def translate_bytes(body: dict[str, Any], pieces: Iterable[bytes], how: Translation = CHAT) -> bytes:
    """The client's bytes for a stream that comes in these pieces."""
    events, framer = how.events(call_of(body), CODEC), Framer()
    taken = [events.take(event) for piece in pieces for event in framer.feed(piece)]
    return b"".join([*taken, *map(events.take, framer.end()), events.end()])


def events_in(sent: bytes) -> list[Any]:
    """The data of each event; where it is no JSON, its text. Events that are named are named as their `type`."""
    found: list[Any] = []
    for event in Framer().feed(sent):
        assert event.data is not None
        try:
            data = json.loads(event.data)
        except ValueError:
            data = event.data.decode()
        assert event.name in ("", data["type"] if isinstance(data, dict) else "")
        found.append(data)
    return found


def translate_stream(body: dict[str, Any], chunks: Iterable[Any], how: Translation = CHAT) -> list[Any]:
    return events_in(translate_bytes(body, [stream_of(chunks)], how))
