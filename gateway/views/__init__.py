"""Answers and events of upstreams -> the core's neutral `Seen`. With `wire`, all that uses msgspec.

One file a dialect; a row in `VIEWS` for each endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.core.answers import Seen
from gateway.core.call import Call
from gateway.core.forms import Endpoint
from gateway.views import messages, openai, others, responses
from gateway.views.openai import read_error

__all__ = ["VIEWS", "View", "read_answer", "read_error"]

Read = Callable[[bytes], Seen | None]
"""None where the bytes are not a JSON object."""

_TEXTS = ("text", "srt", "vtt")  # values of `response_format`


class View(NamedTuple):
    answer: Read  # a whole answer
    chunk: Read  # the data of one event
    text: Read | None = None  # a whole answer in a format that is not JSON


_ROWS = View(others.read_rows, openai.read_chunk)
_IMAGES = View(others.read_images, others.read_image_event)
_TRANSCRIPT = View(others.read_transcript, others.read_transcript_event, others.read_transcript_text)
_OPENAI = View(openai.read_answer, openai.read_chunk)

VIEWS: Mapping[Endpoint, View] = {
    Endpoint.CHAT: _OPENAI,
    Endpoint.COMPLETIONS: _OPENAI,
    Endpoint.EMBEDDINGS: _OPENAI,
    Endpoint.COUNT_TOKENS: View(messages.read_answer, messages.read_event),  # whatever it is, it is no message
    Endpoint.MESSAGES: View(messages.read_answer, messages.read_event),
    Endpoint.RESPONSES: View(responses.read_answer, responses.read_event),
    Endpoint.MODERATIONS: _ROWS,
    Endpoint.RERANK: _ROWS,
    Endpoint.IMAGES: _IMAGES,
    Endpoint.IMAGE_EDITS: _IMAGES,
    Endpoint.SPEECH: View(others.read_speech, others.read_speech_event),
    Endpoint.TRANSCRIPTIONS: _TRANSCRIPT,
    Endpoint.TRANSLATIONS: _TRANSCRIPT,
    Endpoint.PASSTHROUGH: _OPENAI,  # which nobody reads
}


def read_answer(call: Call, body: bytes) -> Seen | None:
    """The view of a whole answer to a call."""
    view = VIEWS[call.endpoint]
    if view.text is not None and call.decoded("response_format") in _TEXTS:
        return view.text(body)
    return view.answer(body)
