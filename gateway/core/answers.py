"""What an answer, or one chunk of a stream, shows: the neutral view that decisions are made on.

`gateway.wire` decodes bytes into `Seen`; nothing here depends on how.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Seen(NamedTuple):
    """One JSON answer or one SSE event, whatever its dialect. Finish reasons in the words of OpenAI's chat."""

    useful: bool = False  # holds content, a tool call, a refusal, reasoning, audio, text, or embedding data
    choices: int = 0  # how many choices (or embedding rows) it holds
    finish: str = ""  # finish_reason of any choice, "" where none
    usage: dict[str, Any] | None = None  # as reported, wherever it stood (top level, choices[0], x_groq ...)
    usage_only: bool = False  # empty `choices`, a non-null `usage` and nothing else: hidden from who did not ask
    error: Any = None  # the `error` member, where it is not null
    text_bytes: int = 0  # of visible output, for estimates
    reasoning_bytes: int = 0
    finished: tuple[int, ...] = ()  # indices of the choices that have a finish_reason
    done: bool = False  # nothing follows this event: what `[DONE]` says in OpenAI's chat
