"""path + headers + bytes -> Call: a parsed, lazy view of one request. The client's bytes are kept untouched.

A body is looked at only as far as a decision needs: the top-level members are found once (`splice.spans`, which does
not build their values), each is decoded on first use. What goes upstream is the client's own bytes with only those
members replaced that must be (`outgoing_body`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from gateway.core import splice
from gateway.core.content import Content
from gateway.core.fields import Fields, wrong
from gateway.core.forms import FORMS, Endpoint
from gateway.core.globs import fits
from gateway.core.hints import Hints, by_name, read_hints
from gateway.core.usage import estimate_tokens
from gateway.errors import RequestError

if TYPE_CHECKING:  # they import this module
    from gateway.core.budgets import Budget
    from gateway.core.limits import Limit
    from gateway.core.multipart import Parts

__all__ = ["Call", "Endpoint", "Hints", "Json", "Principal", "Source", "outgoing_body", "parse"]

Made = TypeVar("Made")
_NO_EDITS: Mapping[str, bytes | None] = {}

MAX_MODEL_NAME = 256  # characters
MAX_USER = 128  # characters
MAX_CHOICES = 128  # OpenAI's bound on `n`
MAX_TOKENS = 2**31 - 1


class Source(Protocol):
    """A value's exact source bytes, without a copy of them: what `bytes` and `memoryview` take."""

    def __len__(self) -> int: ...

    def __buffer__(self, flags: int, /) -> memoryview: ...


class Json(Protocol):
    """The JSON codec, injected so that `core` needs no third-party import (`gateway.wire` implements it)."""

    def members(self, body: bytes) -> Mapping[str, Source]:
        """Top-level members of an object, in order of their first standing; of a repeated name the last value.

        Raises ValueError (with a message fit for a client) on malformed JSON, invalid UTF-8, a non-object and nesting
        that is too deep. `splice.spans` finds repeated names.
        """

    def loads(self, raw: bytes | memoryview) -> Any:  # noqa: ANN401 - JSON can be anything
        """Decodes one value. Raises ValueError."""

    def dumps(self, value: object) -> bytes:
        """Encodes compactly."""


class Principal(NamedTuple):
    """Who calls. `key` is the key's name, never its value; empty when keys are not in use."""

    key: str = ""
    team: str = ""
    user: str = ""
    tags: frozenset[str] = frozenset()
    allow: tuple[str, ...] = ("*",)  # globs on the requested model name
    budgets: tuple[Budget, ...] = ()  # the key's own
    limits: tuple[Limit, ...] = ()  # the key's own

    def may_use(self, model: str) -> bool:
        # A loop, because a generator costs more than the comparisons: this runs for every request.
        for glob in self.allow:  # noqa: SIM110
            if glob == "*" or fits(model, glob):
                return True
        return False


class Call:
    """One request. Attributes are cheap; the properties decode on first use and remember."""

    __slots__ = (
        *("_content", "_estimated", "_fields", "_has", "_json", "_made", "_messages"),
        *("body", "choices", "endpoint", "form", "headers", "hints", "longest", "max_output", "model", "n"),
        *("parts", "stream", "wants_usage"),
    )

    endpoint: Endpoint
    body: bytes
    headers: Mapping[str, str]  # lower-case names; of repeated ones the last, but for lists
    hints: Hints
    model: str  # as requested
    stream: bool
    wants_usage: bool  # stream_options.include_usage
    max_output: int | None  # the client's cap, by the member that wins (`Form.caps`)
    longest: int | None  # the larger of both caps, where servers may go by either
    n: int
    choices: int  # answers that are made, and billed, for each prompt: `n`, or `best_of`

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str], fields: Fields, json: Json) -> None:
        """Raises RequestError as `parse`."""
        self.endpoint = endpoint
        self.form = FORMS[endpoint]
        self.body = fields.body
        self.headers = headers
        self._fields = fields
        self._json = json
        self._content: Content | None = None
        self._estimated: int | None = None
        self._has: frozenset[str] | None = None
        self._messages: list[dict[str, Any]] | None = None
        self._made: dict[object, Any] | None = None
        self.parts: Parts | None = None  # of a form with files, whose fields `body` has as JSON
        self.model = _model(fields, self.form.model)
        self.stream = self.wants_usage = False
        self.max_output = self.longest = None
        self.n = self.choices = 1
        if self.form.messages:
            self._messages = _messages(fields)
        else:
            _require(fields, self.form.content)
        if self.form.caps or self.form.sold:
            self._read_generation(fields)
        metadata = fields.object("metadata") if "metadata" in fields.members else b""
        self.hints = read_hints(headers, metadata, json)

    def _read_generation(self, fields: Fields) -> None:
        if "tools" in fields.members:
            fields.array("tools")
        name, wanted = self.form.streams
        self.stream = bool(name) and (fields.flag(name) if wanted is True else fields.value(name) == wanted)
        self.wants_usage = self.stream and not self.form.asks_usage
        if self.form.asks_usage and "stream_options" in fields.members:
            options = fields.object("stream_options")
            self.wants_usage = bool(options) and _includes_usage(options, self._json) and self.stream
        for name, why in self.form.refused.items():
            if fields.flag(name):
                raise RequestError(f"{name} {why}", param=name)
        caps = [fields.whole(name, MAX_TOKENS) for name in self.form.caps]
        self.max_output = next(filter(None, caps), None)
        self.longest = max(filter(None, caps), default=None)
        if self.form.choices:
            self.n = self.choices = fields.whole("n", MAX_CHOICES) or 1
            if "best_of" in fields.members:
                self.choices = max(self.n, fields.whole("best_of", MAX_CHOICES) or 1)

    @property
    def has(self) -> frozenset[str]:
        """Which of images, audio, tools, json_schema the request holds."""
        if self._has is None:
            self._has = (self._content or self._read_content()).has | _declared(self._fields, self.form.schema)
        return self._has

    @property
    def system_prompt(self) -> str:
        """Text of all system and developer messages; empty for other endpoints."""
        return (self._content or self._read_content()).system_prompt

    @property
    def last_message(self) -> str:
        """Text of the last user message (for completions the prompt, for embeddings the input)."""
        return (self._content or self._read_content()).last_message

    @property
    def ends_in_tool_result(self) -> bool:
        """Whether the last message has the role `tool` or `function` (an empty answer to it is not a failure)."""
        return (self._content or self._read_content()).last_role in ("tool", "function")

    @property
    def prefilled(self) -> bool:
        """Whether the client itself has begun the answer, as its last message."""
        return (self._content or self._read_content()).last_role == "assistant"

    @property
    def user(self) -> str:
        """An end user in the client's own words (`Form.user`): untrusted. Empty where it is no short text."""
        name, *inner = self.form.user
        user = self._fields.value(name) if name in self._fields.members else None
        for name in inner:
            user = user.get(name) if isinstance(user, dict) else None
        return user if isinstance(user, str) and len(user) <= MAX_USER and user.isprintable() else ""

    @property
    def tied(self) -> bool:
        """Whether the history holds tool calls or signed thinking, which another model could not go on with."""
        return (self._content or self._read_content()).tied

    @property
    def estimated_input(self) -> int:
        """Tokens, roughly: bytes of text, tool calls and declared tools / 4, and so many an image. Not for money."""
        if self._estimated is None:
            content = self._content or self._read_content()
            declared = self._fields.size("tools") + self._fields.size("functions")
            self._estimated = estimate_tokens(content.text_bytes + declared) + content.tokens
        return self._estimated

    @property
    def attachments(self) -> int:
        return (self._content or self._read_content()).attachments

    @property
    def remote(self) -> bool:
        """Whether it brings something that is not in it, such as an image by URL."""
        return (self._content or self._read_content()).remote

    @property
    def items(self) -> int:
        """Prompts or inputs, each of which is answered."""
        return (self._content or self._read_content()).items

    @property
    def body_size(self) -> int:
        """Bytes, as it came."""
        return len(self.body) if self.parts is None else self.parts.size

    @property
    def characters(self) -> int:
        """Of the text that is to be spoken: Unicode code points."""
        return len(self.last_message)

    @property
    def names_model(self) -> bool:
        """Whether the body does; at few endpoints it need not."""
        return "model" in self._fields.members

    def holds(self, names: frozenset[str]) -> frozenset[str]:
        """Which of these members it has at the top."""
        members = self._fields.members
        return frozenset() if names.isdisjoint(members) else names & members.keys()

    @property
    def names(self) -> Iterable[str]:
        """Of its members, in their order."""
        return self._fields.members.keys()

    @property
    def codec(self) -> Json:
        return self._json

    def once(self, make: Callable[[Call], Made]) -> Made:
        """What a pure function makes of it, made on first use and remembered."""
        if self._made is None:
            self._made = {}
        if make not in self._made:
            self._made[make] = make(self)
        made: Made = self._made[make]
        return made

    def decoded(self, name: str) -> Any:  # noqa: ANN401 - JSON can be anything
        """A member's value; None where it is not there. Raises RequestError where it cannot be read."""
        return self._fields.value(name)

    def merged(self, name: str, ours: object) -> bytes:
        """The source of a member with `ours` merged in: objects recursively, ours winning."""
        return _merged(self._fields.source(name), ours, self._json)

    def apply(self, edits: Mapping[str, bytes | None]) -> bytes:
        """The body with members replaced, removed (None) or added."""
        return splice.apply(self.body, self._json, self._fields.members, edits)

    def encode(self, value: object) -> bytes:
        return self._json.dumps(value)

    def source(self, name: str) -> bytes:
        """A member's source bytes; empty where it is not there."""
        return self._fields.source(name)

    def edited(self, edits: Mapping[str, bytes | None]) -> Call:
        """The same call with members replaced, removed (None) or added."""
        body = self.apply(edits)
        fields = Fields(body, splice.spans(body, self._json), self._json)
        return Call(self.endpoint, self.headers, fields, self._json)

    def _read_content(self) -> Content:
        given = self._messages if self._messages is not None else self._fields.value(self.form.content)
        self._content = self.form.read(self._fields, given)
        self._messages = None  # only the facts are kept
        return self._content


def parse(endpoint: Endpoint, headers: Sequence[tuple[bytes, bytes]], body: bytes, json: Json) -> Call:
    """Reads what every request needs: model, stream, caps, hints. Raises RequestError (400) that names `param`."""
    try:
        members = splice.spans(body, json)
    except splice.RepeatedNameError as error:
        raise RequestError(str(error), param=error.name) from None
    except ValueError as error:
        raise RequestError(str(error)) from None
    return Call(endpoint, by_name(headers), Fields(body, members, json), json)


def outgoing_body(
    call: Call,
    *,
    model: str,
    set: Mapping[str, Any],
    drop: frozenset[str],
    ask_usage: bool,
    adapt: Mapping[str, bytes | None] = _NO_EDITS,
) -> bytes:
    """The client's bytes with only what must change changed.

    The model name; `set` (merged into the body, objects recursively, ours winning); `drop` (top-level members removed);
    `metadata.task`/`metadata.tags` taken out; for a stream `stream_options.include_usage: true` where `ask_usage`, else
    a client's `stream_options` is left out (the upstream is known to reject it). Everything else stays byte for byte.

    `adapt`: members replaced or removed first, because of whom it goes to (`dialects`).

    A member in both `drop` and `set` is ours alone. `drop` of `stream_options` wins over `ask_usage`.
    """
    edits: dict[str, bytes | None] = dict(adapt)
    if call.hints.strip_metadata is not None:
        edits["metadata"] = call.hints.strip_metadata or None
    for name in drop:
        edits[name] = None
    for name, value in set.items():
        edits[name] = call.encode(value) if name in drop else call.merged(name, value)
    if call.stream and call.form.asks_usage:
        asks = ask_usage and "stream_options" not in drop
        edits["stream_options"] = call.merged("stream_options", _ASK_USAGE) if asks else None
    if model != call.model or not call.names_model:
        edits["model"] = call.encode(model)
    else:
        edits.pop("model", None)
    return call.apply(edits) if edits else call.body


_ASK_USAGE: Mapping[str, bool] = {"include_usage": True}


def _merged(source: bytes, ours: object, json: Json) -> bytes:
    if not (isinstance(ours, Mapping) and source.startswith(b"{")):
        return json.dumps(ours)
    members = splice.spans(source, json)
    edits: dict[str, bytes | None] = {}
    for name, value in ours.items():
        start, end = members.get(name, (0, 0))
        edits[name] = _merged(source[start:end], value, json)
    return splice.apply(source, json, members, edits)


def _model(fields: Fields, default: str) -> str:
    source = fields.source("model")
    if default and not source:
        return default
    model = fields.value("model") if source.startswith(b'"') else None
    # Printable, because the name is repeated in errors, logs and rows; this also keeps out lone surrogates.
    if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL_NAME or not model.isprintable():
        raise wrong("model", f"a name of 1 to {MAX_MODEL_NAME} printable characters")
    return model


def _messages(fields: Fields) -> list[dict[str, Any]]:
    messages = fields.value("messages")
    # The set of their types, because it is three times as fast as asking each.
    if isinstance(messages, list) and set(map(type, messages)) == {dict}:
        return messages
    raise wrong("messages", "an array of at least one message object")


def _require(fields: Fields, name: str) -> None:
    if not fields.source(name):
        raise RequestError(f"{name} is missing", param=name)


def _includes_usage(options: bytes, json: Json) -> bool:
    include = json.loads(options).get("include_usage")
    if include is None or isinstance(include, bool):
        return bool(include)
    raise wrong("stream_options.include_usage", "true, false or null")


def _declared(fields: Fields, schemas: tuple[str, ...]) -> frozenset[str]:
    """What members other than the content ask of a model. `schemas`: members that ask for JSON of a shape."""
    found: list[str] = []
    if any(name in fields.members and fields.array(name) for name in ("tools", "functions")):
        found.append("tools")
    for schema in schemas:
        wanted = fields.value(schema) if schema in fields.members else None
        if isinstance(wanted, dict):
            wanted = wanted.get("format", wanted)  # responses have it inside `text`, messages inside `output_config`
        if isinstance(wanted, dict) and wanted.get("type") in ("json_schema", "json_object"):
            found.append("json_schema")
    if "modalities" in fields.members:
        modalities = fields.value("modalities")
        if isinstance(modalities, list) and "audio" in modalities:
            found.append("audio")
    return frozenset(found)
