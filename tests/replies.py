"""What upstreams answer: well, badly, and not at all. Each function makes a reply for `tests.upstream.Upstream.script`.

The JSON is spaced unevenly on purpose: only a gateway that forwards bytes gives it back as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tests.upstream import CLOSE, CUT, STALL, Billed, Gate, Received, Reply, Step


class Tokens(NamedTuple):
    """What a reply bills, by type; disjoint."""

    input: int = 12
    cached_input: int = 0
    output: int = 5
    reasoning: int = 0

    def billed(self, model: str) -> Billed:
        return Billed(model, self.input, self.cached_input, 0, self.output, self.reasoning)

    def reported(self, *, output: bool = True) -> dict[str, Any]:
        """OpenAI's usage object: cached tokens within the prompt's, reasoning within the completion's."""
        prompt = self.input + self.cached_input
        if not output:
            return {"prompt_tokens": prompt, "total_tokens": prompt}
        completion = self.output + self.reasoning
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self.cached_input},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }


TOKENS = Tokens()
UsagePlace = Literal["end", "absent", "choice", "finish", "zero"]
ERROR = {"error": {"message": "the model is loading", "type": "server_error", "param": None, "code": "loading"}}


def http(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    given = {"content-type": "application/json", "x-request-id": "up-1", **(headers or {})}
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def stream_head(headers: Mapping[str, str] | None = None) -> bytes:
    given = {"content-type": "text/event-stream; charset=utf-8", "x-request-id": "up-1", **(headers or {})}
    lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "transfer-encoding: chunked", "", ""]).encode()


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"


def event(value: Any) -> bytes:
    """One SSE event as one HTTP chunk."""
    return chunked(b"data: " + json.dumps(value, separators=(", ", ":")).encode() + b"\n\n")


DONE = chunked(b"data: [DONE]\n\n")


def _base(received: Received, kind: str) -> dict[str, Any]:
    return {
        "id": "cmpl-1",
        "object": kind,
        "created": 1,
        "model": f"{received.model}-2026",
        "system_fingerprint": "fp_1",
    }


def chunk(received: Received, delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    """One chunk of a chat stream, as an event."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return event({**_base(received, "chat.completion.chunk"), "choices": [choice], **more})


def role(received: Received) -> bytes:
    return chunk(received, {"role": "assistant", "content": ""})


def body_of(received: Received, text: str, usage: dict[str, Any] | None, extra: Mapping[str, Any]) -> dict[str, Any]:
    more = {"usage": usage} if usage is not None else {}
    if received.path.partition("?")[0].endswith("/embeddings"):
        rows = received.json.get("input")
        count = len(rows) if isinstance(rows, list) else 1
        data = [{"object": "embedding", "index": i, "embedding": [0.25, -0.5, 1e-7]} for i in range(count)]
        return {"object": "list", "data": data, "model": received.model, **more, **extra}
    if received.path.partition("?")[0].endswith("/chat/completions"):
        message = {"role": "assistant", "content": text, "refusal": None, **extra}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {**_base(received, "chat.completion"), "choices": [choice], **more, "vendor": {"kept": [1, 2.50]}}
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
    return {**_base(received, "text_completion"), "choices": [choice], **more}


class Answer(NamedTuple):
    """A good answer, streamed word by word where asked."""

    text: str
    tokens: Tokens
    usage: UsagePlace
    extra: Mapping[str, Any]
    gate: Gate | None
    pause: float


def ok(
    text: str = "Hello there.",
    *,
    tokens: Tokens = TOKENS,
    usage: UsagePlace = "end",
    extra: Mapping[str, Any] | None = None,
    gate: Gate | None = None,
    pause: float = 0.0,
) -> Reply:
    """`extra`: more members of the message or of the first delta. `gate`: waits after the first content (streamed) or
    before the answer. `pause`: seconds between events.
    """
    answer = Answer(text, tokens, usage, extra or {}, gate, pause)

    def reply(received: Received) -> Iterator[Step]:
        output = not received.path.partition("?")[0].endswith("/embeddings")
        embedded = Tokens(tokens.input + tokens.cached_input, 0, 0, 0)  # embeddings have but one type
        bill = Tokens(0, 0, 0, 0) if usage == "zero" else tokens if output else embedded
        yield bill.billed(received.model)
        reported = bill.reported(output=output)
        if received.stream:
            yield from _good_stream(received, answer, reported)
            return
        if gate:
            yield gate
        body = body_of(received, text, None if usage == "absent" else reported, answer.extra)
        yield http(200, json.dumps(body, separators=(" ,", ": ")).encode())

    return reply


def _good_stream(received: Received, answer: Answer, reported: dict[str, Any]) -> Iterator[Step]:
    chat = received.path.partition("?")[0].endswith("/chat/completions")
    base = _base(received, "chat.completion.chunk" if chat else "text_completion")
    yield stream_head()
    if chat:
        yield role(received)
    for index, word in enumerate(answer.text.split(" ")):
        piece = word if index == 0 else f" {word}"
        if chat:
            yield chunk(received, {"content": piece, **(answer.extra if index == 0 else {})})
        else:
            choice = {"index": 0, "text": piece, "logprobs": None, "finish_reason": None}
            yield event({**base, "choices": [choice]})
        if index == 0 and answer.gate:
            yield answer.gate
        if answer.pause:
            yield answer.pause
    place = answer.usage if received.wants_usage else "absent"
    finish: dict[str, Any] = {"index": 0, **({"delta": {}} if chat else {"text": ""}), "finish_reason": "stop"}
    if place == "choice":
        finish["usage"] = reported
    yield event({**base, "choices": [finish], **({"usage": reported} if place == "finish" else {})})
    if place in ("end", "zero"):
        yield event({**base, "choices": [], "usage": reported})
    yield DONE + END


def status(code: int, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Reply:
    """An HTTP error, or any status with any JSON body."""
    error = {"error": {"message": f"made-up {code}", "type": "made_up", "param": None, "code": None}}
    return lambda _: [http(code, json.dumps(error if body is None else body).encode(), headers)]


def rate_limited(retry_after: str | None = None, headers: Mapping[str, str] | None = None) -> Reply:
    body = {"error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}}
    return status(429, body, {**(headers or {}), **({"retry-after": retry_after} if retry_after else {})})


def context_too_long() -> Reply:
    error = {"message": "maximum context length is 10 tokens", "type": "invalid_request_error", "param": "messages"}
    return status(400, {"error": {**error, "code": "context_length_exceeded"}})


def content_filtered() -> Reply:
    error = {"message": "filtered by the content management policy", "type": "invalid_request_error", "param": "prompt"}
    return status(400, {"error": {**error, "code": "content_filter"}})


def error_in_200() -> Reply:
    """As a plain answer, or as the first event of a stream: never a success."""

    def reply(received: Received) -> Iterator[Step]:
        if received.stream:
            yield stream_head()
            yield event(ERROR) + END
        else:
            yield http(200, json.dumps(ERROR).encode())

    return reply


def html_in_200() -> Reply:
    page = b"<!doctype html><title>Gateway</title><p>Please sign in."
    return lambda _: [http(200, page, {"content-type": "text/html"})]


def truncated() -> Reply:
    """Half of the promised body (streamed: half of an event), then the connection ends."""

    def reply(received: Received) -> Iterator[Step]:
        if received.stream:
            yield stream_head() + role(received)
            yield b"400\r\ndata: {"
        else:
            whole = http(200, json.dumps(body_of(received, "half", Tokens().reported(), {})).encode())
            yield whole[:-40]
        yield CLOSE

    return reply


def empty() -> Reply:
    """A `stop` without content."""
    return ok("", tokens=Tokens(output=0))


def no_choices() -> Reply:
    def reply(received: Received) -> Iterator[Step]:
        body = {**body_of(received, "", Tokens(output=0).reported(), {}), "choices": []}
        if received.stream:
            yield stream_head() + DONE + END
        else:
            yield http(200, json.dumps(body).encode())

    return reply


def role_then_stall() -> Reply:
    """Streamed only: a role chunk and a comment commit nothing."""
    return lambda received: [stream_head(), role(received), chunked(b": still here\n\n"), STALL]


def words_then(ending: Sequence[Step], words: int = 2) -> Reply:
    """Streamed only: `words` chunks of content and then `ending`."""

    def reply(received: Received) -> Iterator[Step]:
        yield stream_head() + role(received)
        for index in range(words):
            yield chunk(received, {"content": f"word{index} "})
        yield from ending

    return reply


def cut_after(words: int) -> Reply:
    return words_then([0.02, CUT], words)


def ends_without_finish(words: int) -> Reply:
    """The HTTP message is whole; the answer is not."""
    return words_then([END], words)


def error_after(words: int) -> Reply:
    return words_then([event(ERROR) + END], words)


def tool_call() -> Reply:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}

    def reply(received: Received) -> Iterator[Step]:
        yield Tokens().billed(received.model)
        if received.stream:
            yield stream_head() + chunk(received, {"role": "assistant", "content": None, "tool_calls": [call]})
            yield chunk(received, {}, "tool_calls")
            if received.wants_usage:
                yield event({**_base(received, "chat.completion.chunk"), "choices": [], "usage": Tokens().reported()})
            yield DONE + END
        else:
            body = body_of(received, "", Tokens().reported(), {"content": None, "tool_calls": [call]})
            body["choices"][0]["finish_reason"] = "tool_calls"
            yield http(200, json.dumps(body).encode())

    return reply


def reasoning() -> Reply:
    return ok("So.", tokens=TOKENS._replace(reasoning=7), extra={"reasoning_content": "Let me think."})


def rejects_stream_options(then: Reply | None = None) -> Reply:
    """As strict servers do: 400 for a field they do not know, a good answer without it."""

    def reply(received: Received) -> Iterator[Step]:
        if "stream_options" in received.json:
            error = {"message": "Unrecognized request argument: stream_options", "type": "invalid_request_error"}
            yield http(400, json.dumps({"error": {**error, "param": "stream_options", "code": None}}).encode())
        else:
            yield from (then or ok(usage="absent"))(received)

    return reply


def with_bad_line() -> Reply:
    """A good stream with one `data:` line that is not JSON, a comment and an unknown event in it."""

    def reply(received: Received) -> Iterator[Step]:
        yield Tokens().billed(received.model)
        yield stream_head() + role(received) + chunk(received, {"content": "good"})
        yield chunked(b"data: {not json\n\n")
        yield chunked(b": a comment\n\n") + chunked(b"event: vendor.ping\ndata: {}\n\n")
        yield chunk(received, {}, "stop", usage=Tokens().reported()) + DONE + END

    return reply


def after(seconds: float, reply: Reply) -> Reply:
    def delayed(received: Received) -> Iterator[Step]:
        yield seconds
        yield from reply(received)

    return delayed


def hang() -> Reply:
    """Reads the request and never answers."""
    return lambda _: [STALL]


def reset() -> Reply:
    """Reads the request and drops the connection before any answer."""
    return lambda _: [CUT]


def raw(*steps: Step) -> Reply:
    return lambda _: steps
