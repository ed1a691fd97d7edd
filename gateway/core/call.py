"""path + headers + bytes -> Call: a parsed, lazy view of one request. The client's bytes are kept untouched.

A body is looked at only as far as a decision needs: the top-level members are found once (by `Json.members`, which
does not build their values), each is decoded on first use. What goes upstream is the client's own bytes with only the
members replaced that must be (`outgoing_body`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


class Json(Protocol):
    """The JSON codec, injected so that `core` needs no third-party import (`gateway.wire` implements it)."""

    def members(self, body: bytes) -> dict[str, bytes]:
        """Top-level members of an object, in order: name -> the value's exact source bytes.

        Raises ValueError (with a message fit for a client) on malformed JSON, invalid UTF-8, a non-object, nesting that is
        too deep, and a repeated name.
        """

    def loads(self, raw: bytes) -> Any:
        """Decodes one value. Raises ValueError."""

    def dumps(self, value: Any) -> bytes:
        """Encodes compactly."""


class Endpoint(StrEnum):
    """What is asked for; the value is the path below `/v1`, on our side and upstream."""

    CHAT = "/chat/completions"
    COMPLETIONS = "/completions"
    EMBEDDINGS = "/embeddings"


class Principal(NamedTuple):
    """Who calls. `key` is the key's name, never its value; empty when keys are not in use."""

    key: str = ""
    team: str = ""
    user: str = ""
    tags: frozenset[str] = frozenset()
    allow: tuple[str, ...] = ("*",)  # globs on the requested model name

    def may_use(self, model: str) -> bool:
        raise NotImplementedError


class Hints(NamedTuple):
    """What the client asked of the gateway itself: `x-gateway-*` headers and `metadata` (contract section 1)."""

    task: str = ""
    tags: frozenset[str] = frozenset()
    max_cost_nano_usd: int | None = None
    timeout: float | None = None  # seconds; only shortens
    no_fallback: bool = False
    dry_run: bool = False
    session: str = ""
    client_request_id: str = ""
    strip_metadata: bytes | None = None  # the `metadata` member to send instead; b"" to leave it out; None: untouched


class Call:
    """One request. Attributes are cheap; the properties decode on first use and remember."""

    endpoint: Endpoint
    body: bytes
    headers: Mapping[str, str]  # lower-case names; of repeated ones the last
    hints: Hints
    model: str  # as requested
    stream: bool
    wants_usage: bool  # stream_options.include_usage
    max_output: int | None  # the client's cap: max_completion_tokens, else max_tokens
    n: int

    @property
    def has(self) -> frozenset[str]:
        """Which of images, audio, tools, json_schema the request holds."""
        raise NotImplementedError

    @property
    def system_prompt(self) -> str:
        """Text of all system and developer messages; empty for other endpoints."""
        raise NotImplementedError

    @property
    def last_message(self) -> str:
        """Text of the last user message (for completions the prompt, for embeddings the input)."""
        raise NotImplementedError

    @property
    def ends_in_tool_result(self) -> bool:
        """Whether the last message has the role `tool` or `function` (an empty answer to it is not a failure)."""
        raise NotImplementedError

    @property
    def estimated_input(self) -> int:
        """Input tokens, roughly: text characters / 4, plus a fixed amount for each image. Not for money."""
        raise NotImplementedError


def parse(endpoint: Endpoint, headers: Sequence[tuple[bytes, bytes]], body: bytes, json: Json) -> Call:
    """Reads what every request needs: model, stream, caps, hints. Raises RequestError (400) that names `param`."""
    raise NotImplementedError


def outgoing_body(call: Call, *, model: str, set: Mapping[str, Any], drop: frozenset[str], ask_usage: bool) -> bytes:
    """The client's bytes with only what must change changed.

    The model name; `set` (merged into the body, objects recursively, ours winning); `drop` (top-level members removed);
    `metadata.task`/`metadata.tags` taken out; for a stream `stream_options.include_usage: true` where `ask_usage`, else a
    client's `stream_options` is left out (the upstream is known to reject it). Everything else stays byte for byte.
    """
    raise NotImplementedError
