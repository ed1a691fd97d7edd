"""A request as the ledger keeps it, and the Call that it is decided on anew. Its content was never stored.

Rows come as tuples, because a replay reads millions of them: the ledger's columns in the order of these fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from gateway.core.call import Call, Endpoint, Hints
from gateway.core.content import Content
from gateway.core.failures import Kind
from gateway.core.forms import FORMS
from gateway.core.usage import More, Usage


class NotKeptError(Exception):
    """A rule asks for the content of a request, which the ledger does not keep."""


class Row(NamedTuple):
    """One request. Text is None where the ledger has nothing; lists are JSON, as they are stored."""

    id: str
    started: int  # microseconds since 1970
    key: str | None
    team: str | None
    user: str | None
    tags: str
    endpoint: str
    requested_model: str | None
    stream: int
    route: str | None
    task: str | None
    task_why: str | None
    model: str | None
    outcome: str
    rejection: str | None
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    usage_estimated: int
    usage_more: str | None
    cost_nano: int
    baseline_nano: int
    baseline_model: str | None
    unpriced: int
    has: str
    estimated_input: int
    max_output: int | None
    config_hash: str
    n: int | None  # None: the row is older than schema version 3
    no_fallback: int | None
    max_cost_nano: int | None
    timeout: float | None
    asked_task: str | None
    body_bytes: int | None
    budget: str | None
    cache: str | None
    cache_saved_nano: int | None  # what the answer had cost that was given again

    @property
    def given_again(self) -> bool:
        """From the cache: no model and no budget had a part in it."""
        return self.cache == "hit"

    @property
    def free(self) -> bool:
        """Whether it asked for no answer: it was only explained (a dry run), or its tokens were only counted."""
        return self.endpoint == Endpoint.COUNT_TOKENS.value or (self.outcome == "ok" and not self.model)

    @property
    def when(self) -> float:
        """Unix seconds."""
        return self.started / 1_000_000

    @property
    def usage(self) -> Usage:
        """Of the answer, or of the part of it that the client got."""
        return Usage(*self[15:20], estimated=bool(self.usage_estimated), more=_more(self.usage_more))


class Tried(NamedTuple):
    """One of its attempts."""

    request_id: str
    model: str
    provider: str
    hosting: str
    purpose: str
    reason: str
    result: str
    status: int | None
    duration: float
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    usage_estimated: int
    usage_more: str | None
    cost_nano: int
    reserved_nano: int | None
    retry_after: float | None

    @property
    def usage(self) -> Usage:
        return Usage(*self[9:14], estimated=bool(self.usage_estimated), more=_more(self.usage_more))

    @property
    def kind(self) -> Kind | None:
        """How it failed; None where it did not."""
        return _KINDS.get(self.result)


class RecordedCall(Call):
    """What rules may ask of a call, from a row. Raises NotKeptError where they ask for its text.

    Members that the ledger does not keep count as absent, and a conversation's history as one that any model could go
    on with. The size of the body is known: `size`.
    """

    __slots__ = ("_tokens", "_user", "size")

    def __init__(self, row: Row) -> None:  # a parsed body is what Call begins with, and there is none
        self.endpoint = _endpoint(row.endpoint)
        self.form = FORMS[self.endpoint]
        self.body = b""
        self.headers = {}
        self.model = row.requested_model or ""
        self.stream = bool(row.stream)
        self.wants_usage = False
        self.max_output = self.longest = row.max_output
        self.n = self.choices = row.n or 1
        self.hints = _hints(row.asked_task, row.tags, row.max_cost_nano, row.timeout, row.no_fallback)
        self.size = row.body_bytes
        self._user = row.user or ""
        self._has = words(row.has)
        attachments = len(self._has & {"images", "audio"})
        self._tokens = row.estimated_input
        self._content = Content(attachments=attachments)

    @property
    def system_prompt(self) -> str:
        raise NotKeptError

    @property
    def last_message(self) -> str:
        raise NotKeptError

    @property
    def estimated_input(self) -> int:
        return self._tokens

    @property
    def user(self) -> str:
        return self._user

    @property
    def characters(self) -> int:
        return self.estimated_input * 4

    def decoded(self, name: str) -> None:  # noqa: ARG002 - no member is kept
        return None

    def source(self, name: str) -> bytes:  # noqa: ARG002 - no member is kept
        return b""

    def holds(self, names: frozenset[str]) -> frozenset[str]:  # noqa: ARG002 - no member is kept
        return frozenset()


@lru_cache(maxsize=4096)
def words(stored: str) -> frozenset[str]:
    """A list as the ledger keeps it."""
    return frozenset(json.loads(stored))


@lru_cache(maxsize=4096)
def _hints(task: str | None, tags: str, max_cost: int | None, timeout: float | None, no_fallback: int | None) -> Hints:
    return Hints(
        task=task or "",
        tags=words(tags),
        max_cost_nano_usd=max_cost,
        timeout=timeout,
        no_fallback=bool(no_fallback),
        session="recorded",
        task_source="the client's word, as recorded",
    )


def _more(stored: str | None) -> More | None:
    return None if stored is None else More(**json.loads(stored))


def _endpoint(stored: str) -> Endpoint:
    """Rows of other dialects are those of chats."""
    try:
        return Endpoint(stored)
    except ValueError:
        return Endpoint.CHAT


_KINDS: Mapping[str, Kind] = {kind.value: kind for kind in Kind}
