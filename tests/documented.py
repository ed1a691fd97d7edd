"""Requests and answers of the endpoints that are no conversation, from documentation: nothing here was seen live.

Sources, read 2026-11: platform.openai.com/docs/api-reference (moderations, images, audio and their streaming events),
docs.cohere.com/reference/rerank, jina.ai/reranker, docs.vllm.ai "Re-rank API".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.replies import DONE, END, chunked, http, stream_head
from tests.upstream import Received, Reply, Step

PICTURE = base64.b64encode(b"\x89PNG not really a picture").decode()
SOUND = b"ID3\x04" + bytes(range(256)) * 40  # what a client may not see changed

MODERATION = {
    "id": "modr-1",
    "model": "omni-moderation-latest",
    "results": [{"flagged": False, "categories": {"violence": False}, "category_scores": {"violence": 0.0006}}],
}
JINA = {
    "model": "jina-reranker-v2",
    "usage": {"total_tokens": 815},
    "results": [{"index": 1, "relevance_score": 0.87}, {"index": 0, "relevance_score": 0.12}],
}
COHERE = {
    "id": "07734bd2",
    "results": [{"index": 1, "relevance_score": 0.999}],
    "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
}
IMAGE_USAGE = {
    "total_tokens": 4210,
    "input_tokens": 50,
    "output_tokens": 4160,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
}
IMAGE = {"created": 1713833628, "data": [{"b64_json": PICTURE}], "usage": IMAGE_USAGE}
PICTURES = {"created": 1589478378, "data": [{"url": "https://example.com/1.png"}, {"url": "https://example.com/2.png"}]}
WHISPER = {"text": "Imagine the wildest idea.", "usage": {"type": "duration", "seconds": 9}}
TRANSCRIBE = {
    "text": "Imagine the wildest idea.",
    "usage": {
        "type": "tokens",
        "input_tokens": 14,
        "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
        "output_tokens": 45,
        "total_tokens": 59,
    },
}
VERBOSE = {"task": "transcribe", "language": "english", "duration": "8.470000318527222", "text": "The beach."}
SUBTITLES = "1\n00:00:00,000 --> 00:00:03,500\nThe beach was\n\n2\n00:00:03,500 --> 00:00:08,250\na popular spot.\n"
SPEECH_USAGE = {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}


def events(*found: Mapping[str, Any], done: bool = False) -> Reply:
    """A stream of these events, each named by its type as OpenAI does."""

    def reply(_: Received) -> Iterator[Step]:
        yield stream_head()
        for each in found:
            yield chunked(b"event: %b\ndata: %b\n\n" % (str(each["type"]).encode(), json.dumps(each).encode()))
        yield (DONE if done else b"") + END

    return reply


DRAWING = (
    {"type": "image_generation.partial_image", "b64_json": PICTURE, "partial_image_index": 0},
    {"type": "image_generation.completed", "b64_json": PICTURE, "usage": IMAGE_USAGE},
)
HEARING = (
    {"type": "transcript.text.delta", "delta": "Imagine the"},
    {"type": "transcript.text.delta", "delta": " wildest idea."},
    {"type": "transcript.text.done", "text": "Imagine the wildest idea.", "usage": TRANSCRIBE["usage"]},
)
SPEAKING = (
    {"type": "speech.audio.delta", "audio": base64.b64encode(SOUND[:200]).decode()},
    {"type": "speech.audio.done", "usage": SPEECH_USAGE},
)


def answer(body: object, content_type: str = "application/json") -> Reply:
    whole = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda _: [http(200, whole, {"content-type": content_type})]


def spoken(sound: bytes = SOUND, *, ending: tuple[Step, ...] = (END,)) -> Reply:
    """Sound in pieces, as OpenAI sends it."""

    def reply(_: Received) -> Iterator[Step]:
        yield stream_head({"content-type": "audio/mpeg"})
        for at in range(0, len(sound), 1000):
            yield chunked(sound[at : at + 1000])
        yield from ending

    return reply


class Ask(NamedTuple):
    """One call: `fields` of JSON, or of a form where there are `files`."""

    path: str
    fields: Mapping[str, Any]
    files: tuple[tuple[str, tuple[str, bytes, str]], ...] = ()


DRAW = Ask("/images/generations", {"prompt": "A cute baby sea otter"})
MODERATE = Ask("/moderations", {"input": "I want to be kind."})
RANK = Ask("/rerank", {"query": "capital?", "documents": ["Carson City", {"text": "Washington"}], "top_n": 2})
SPEAK = Ask("/audio/speech", {"input": "The quick brown fox jumped.", "voice": "alloy"})
"""27 characters."""
RECORDING = ("file", ("speech.wav", b"RIFF\x00\r\n--almost a boundary\r\n\r\n" + bytes(range(256)) * 400, "audio/wav"))
HEAR = Ask("/audio/transcriptions", {"prompt": "An idea"}, (RECORDING,))
TRANSLATE = Ask("/audio/translations", {}, (RECORDING,))
EDIT = Ask(
    "/images/edits",
    {"prompt": "A lovely gift basket"},
    (("image[]", ("a.png", b"\x89PNG one", "image/png")), ("image[]", ("b.png", b"\x89PNG two", "image/png"))),
)
