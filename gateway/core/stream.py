"""One streamed answer on its way to the client: what passes, what is changed, what was seen (contract section 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.core.answers import Seen
from gateway.core.failures import Kind, finish_is_broken, judge_end
from gateway.core.sse import Event, Framer, closed, with_data

_DONE = b"[DONE]"
_ERROR_LIMIT = 200  # characters that are kept of an error that is not JSON


class StreamTap:
    """Feed it an upstream's bytes; it gives back what may go to the client, and remembers what they showed.

    Events pass whole and unchanged, but for these: one that holds nothing but usage is hidden from a client who did not
    ask for it; a usage object that does pass gets its cost; data that is not a JSON object is left out, because SDKs
    raise on it; after an error nothing passes, and the error itself only if content went before it.
    """

    __slots__ = (
        "_add_cost",
        "_choices",
        "_finished",
        "_framer",
        "_pass_errors",
        "_read_chunk",
        "_show_usage",
        "done",
        "dropped",
        "error",
        "error_passed",
        "events",
        "finish",
        "first",
        "over",
        "reasoning_bytes",
        "text_bytes",
        "usage",
        "useful",
    )  # fmt: skip

    def __init__(
        self,
        read_chunk: Callable[[bytes], Seen | None],
        *,
        show_usage: bool,
        add_cost: Callable[[bytes, dict[str, Any]], bytes],
        pass_errors: bool = True,
        choices: int = 1,
    ) -> None:
        """`add_cost(data, usage)`: the event's data with `usage.cost` in it.

        `pass_errors`: an upstream's error event after content, or a finish that is an error, goes to the client; not
        where the answer may go on. `choices`: answers in the stream; each has a finish of its own.
        """
        self._choices = choices
        self._finished: set[int] = set()
        self._pass_errors = pass_errors
        self._read_chunk = read_chunk
        self._show_usage = show_usage
        self._add_cost = add_cost
        self._framer = Framer()
        self.first = b""  # the data of the first event with useful content
        self.useful = False  # the commit point: the first useful content was seen
        self.finish = ""  # the last finish reason, once every choice has one
        self.over = False  # it has, and no content came after it: what may still come is usage and [DONE]
        self.usage: dict[str, Any] | None = None  # the last that was reported; servers that report often report totals
        self.error: Any = None  # the error object, or a text where the event had none
        self.error_passed = False  # the client has been told: do not tell it again
        self.done = False  # [DONE] was seen
        self.dropped = 0  # events left out because they were not JSON
        self.events = 0  # events with data, of whatever kind
        self.text_bytes = 0  # of visible output
        self.reasoning_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """What may go to the client now. Raises UpstreamFailure `malformed` where an event is too long to be one."""
        return self._pass_on(self._framer.feed(data))

    def end(self) -> bytes:
        """The same, for what was left when the upstream ended. Whatever is sent after it begins a new event."""
        return closed(self._pass_on(self._framer.end()))

    def _pass_on(self, events: list[Event]) -> bytes:
        if len(events) == 1:
            return self._take(events[0])
        return b"".join([self._take(event) for event in events])

    def _take(self, event: Event) -> bytes:
        raw, data, name = event
        if self.error is not None:
            return b""
        if data is None:
            return raw
        self.events += 1
        seen = self._read_chunk(data)
        if seen is None:
            return self._take_other(event)
        if seen.error is not None or name == "error":
            self.usage = self.usage if seen.usage is None else seen.usage
            return self._take_error(raw, seen.error or _as_text(data))
        if seen.useful:
            self.first = self.first or data
            self.useful = True
            self.over = False
            self.text_bytes += seen.text_bytes
            self.reasoning_bytes += seen.reasoning_bytes
        if seen.usage is not None:  # Anthropic reports what was read at the start and what was written at the end
            self.usage = seen.usage if self.usage is None else {**self.usage, **seen.usage}
        if seen.done:
            self.done = True
        if seen.finish:
            self._finish(seen)
            if not self._pass_errors and finish_is_broken(seen.finish):
                return b""
        return raw if seen.usage is None else self._take_usage(event, hide=seen.usage_only)

    def _finish(self, seen: Seen) -> None:
        self._finished.update(len(self._finished) if index < 0 else index for index in seen.finished)
        if len(self._finished) >= self._choices or finish_is_broken(seen.finish):
            self.finish = seen.finish
            self.over = True

    def _take_usage(self, event: Event, *, hide: bool) -> bytes:
        if hide and not self._show_usage:
            return b""
        return with_data(event, self._add_cost(event.data or b"", self.usage or {}))

    def _take_other(self, event: Event) -> bytes:
        """Data that is not a JSON object."""
        data = event.data or b""
        if data.strip() == _DONE:
            self.done = True
            # An answer that says itself that it is broken gets an error event, and after that no [DONE].
            return b"" if finish_is_broken(self.finish) else event.raw
        self.dropped += 1
        if event.name == "error":
            self.error = _as_text(data)
        return b""

    def _take_error(self, raw: bytes, error: object) -> bytes:
        self.error = error
        self.error_passed = self.useful and self._pass_errors
        return raw if self.error_passed else b""


def judge_stream(tap: StreamTap, *, ends_in_tool_result: bool) -> Kind | None:
    """What a stream that has ended was worth: None where it is fine.

    Some servers never send [DONE], others no finish reason; one of the two proves that the answer is whole.
    """
    if tap.error is not None or finish_is_broken(tap.finish) or not (tap.finish or tap.done):
        return Kind.STREAM_CUT
    return judge_end(useful=tap.useful, finish=tap.finish, ends_in_tool_result=ends_in_tool_result and tap.finish != "")


def _as_text(data: bytes) -> str:
    return data[: _ERROR_LIMIT * 4].decode(errors="replace")[:_ERROR_LIMIT] or "an error event without data"
