"""Answers of the endpoints that are no conversation: moderations, rankings, pictures, speech, transcripts.

platform.openai.com/docs/api-reference (moderations, images, audio, and their streaming events; read 2026-11),
docs.cohere.com/reference/rerank, jina.ai/reranker, docs.vllm.ai "Re-rank API".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway.core.answers import Seen
from gateway.core.pieces import last_stamp
from gateway.core.usage import text_bytes as size_of
from gateway.views.openai import loads

_PAGE = re.compile(rb"\s*(?:<!doctype|<html|<\?xml)", re.IGNORECASE)
_ERROR = re.compile(rb'\s*\{\s*"(?:error|detail|message)"')
NEXT = -1  # in `Seen.finished`: one more of several answers, which do not say which they are


def read_rows(body: bytes) -> Seen | None:
    """Moderations (`results`), rankings (`results`, or Voyage's `data`), pictures (`data`)."""
    answer = loads(body)
    if not isinstance(answer, dict):
        return None
    if answer.get("error"):
        return Seen(error=answer["error"])
    found = answer.get("results", answer.get("data"))
    if not isinstance(found, list):
        return Seen(error=answer.get("message") or answer.get("detail"))
    return Seen(useful=bool(found), choices=len(found), usage=_usage(answer))


def read_images(body: bytes) -> Seen | None:
    seen = read_rows(body)
    return seen if seen is None or seen.usage is None else seen._replace(usage=_of_kind(seen.usage, "image_tokens"))


def read_image_event(data: bytes) -> Seen | None:
    """`image_generation.partial_image`, `image_generation.completed`, and the same of `image_edit`."""
    event = loads(data)
    if not isinstance(event, dict):
        return None
    kind = str(event.get("type", ""))
    if kind.endswith(".partial_image"):
        return Seen(useful=True, choices=1)
    if kind.endswith(".completed"):
        usage = _usage(event)
        usage = usage and _of_kind(usage, "image_tokens")
        return Seen(useful=True, choices=1, finish="stop", usage=usage, finished=(NEXT,))
    return Seen(error=_error(event))


def read_transcript(body: bytes) -> Seen | None:
    """`json`, `verbose_json` and `diarized_json`. Of silence the text is empty, and that is an answer."""
    answer = loads(body)
    if not isinstance(answer, dict):
        return None
    text = answer.get("text")
    if answer.get("error") or not isinstance(text, str):
        return Seen(error=answer.get("error") or answer.get("message") or answer.get("detail"))
    usage = _usage(answer)
    if usage is None and (seconds := _number(answer.get("duration"))) is not None:
        usage = {"type": "duration", "seconds": seconds}
    return Seen(useful=True, choices=1, finish="stop", usage=usage, text_bytes=size_of(text), finished=(0,))


def read_transcript_text(body: bytes) -> Seen | None:
    """`text`, `srt`, `vtt`: anything but a page or an error, which are JSON or markup."""
    if _PAGE.match(body):
        return None
    if _ERROR.match(body):
        error = loads(body)
        return Seen(error=error.get("error") or "an error") if isinstance(error, dict) else None
    seconds = last_stamp(body)
    usage = None if seconds is None else {"type": "duration", "seconds": seconds}
    return Seen(useful=bool(body), choices=1, finish="stop" if body else "", usage=usage, text_bytes=len(body))


def read_transcript_event(data: bytes) -> Seen | None:
    """`transcript.text.delta`, `.segment` and `.done`, which is the last."""
    event = loads(data)
    if not isinstance(event, dict):
        return None
    match event.get("type"):
        case "transcript.text.delta":
            delta = event.get("delta")
            size = size_of(delta) if isinstance(delta, str) else 0
            return Seen(useful=bool(size), choices=1, text_bytes=size)
        case "transcript.text.segment":
            return Seen(useful=True, choices=1)
        case "transcript.text.done":
            return Seen(useful=True, choices=1, finish="stop", usage=_usage(event), finished=(0,), done=True)
        case _:
            return Seen(error=_error(event))


def read_speech(body: bytes) -> Seen | None:
    """An answer that should have been sound and is text: what it says."""
    answer = loads(body)
    if not isinstance(answer, dict):
        return None
    return Seen(error=answer.get("error") or answer.get("message") or answer.get("detail"))


def read_speech_event(data: bytes) -> Seen | None:
    """`speech.audio.delta` and `speech.audio.done`, which is the last."""
    event = loads(data)
    if not isinstance(event, dict):
        return None
    match event.get("type"):
        case "speech.audio.delta":
            return Seen(useful=bool(event.get("audio")), choices=1)
        case "speech.audio.done":
            usage = _usage(event)
            usage = usage and _of_kind(usage, "audio_tokens")
            return Seen(choices=1, finish="stop", usage=usage, finished=(0,), done=True)
        case _:
            return Seen(error=_error(event))


def _error(event: Mapping[str, Any]) -> object:
    if event.get("error"):
        return event["error"]
    return event.get("message") or "an error without words" if event.get("type") == "error" else None


def _usage(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    """The usage object; Cohere's units of ranking, which stand elsewhere, in its place."""
    usage = answer.get("usage")
    if isinstance(usage, dict) and usage:
        return usage
    meta = answer.get("meta")
    billed = meta.get("billed_units") if isinstance(meta, dict) else None
    return billed if isinstance(billed, dict) and billed else None


def _of_kind(usage: dict[str, Any], kind: str) -> dict[str, Any]:
    """All output of a model that only draws, or only speaks, is of that kind, where it does not say itself."""
    if "output_tokens_details" in usage:
        return usage
    return {**usage, "output_tokens_details": {kind: usage.get("output_tokens")}}


def _number(value: object) -> float | None:
    """OpenAI's own documentation has the duration as a number and as a string."""
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None
