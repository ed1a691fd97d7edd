"""Answers and events of upstreams -> the core's neutral `Seen`. With `wire`, all that uses msgspec.

One file a dialect; a row in `VIEWS` for each endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.core.answers import Seen
from gateway.core.forms import Endpoint
from gateway.views import messages, openai, responses
from gateway.views.openai import read_error

__all__ = ["VIEWS", "View", "read_error"]

Read = Callable[[bytes], Seen | None]
"""None where the bytes are not a JSON object."""


class View(NamedTuple):
    answer: Read  # a whole answer
    chunk: Read  # the data of one event


_OPENAI = View(openai.read_answer, openai.read_chunk)

VIEWS: Mapping[Endpoint, View] = {
    Endpoint.CHAT: _OPENAI,
    Endpoint.COMPLETIONS: _OPENAI,
    Endpoint.EMBEDDINGS: _OPENAI,
    Endpoint.MESSAGES: View(messages.read_answer, messages.read_event),
    Endpoint.RESPONSES: View(responses.read_answer, responses.read_event),
}
