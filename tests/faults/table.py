"""The failure table: each kind of failure x each phase of an answer x streamed or not. Read it from top to bottom.

`docs/failures.md` is made of it, and `test_matrix.py` plays every row on a real gateway. A combination without a row
fails `tests/test_failures_doc.py`.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from gateway.core.failures import Kind
from tests import replies
from tests.faults import faulty
from tests.faults.faulty import Port, part, refusal, role_then
from tests.replies import DONE, END, ERROR, chunked, event, words_then
from tests.upstream import CLOSE, CUT, STALL, Reply


class Phase(Enum):
    """How much of the answer has come when it fails."""

    START = "before headers"  # nothing, or a refusal came instead
    HEAD = "between headers and body"
    BODY = "before content"  # a role chunk, a comment, the beginning of a body
    CONTENT = "after content"  # streamed: the client has it, the attempt is committed
    END = "in the final chunk"


class Mode(Enum):
    PLAIN = "not streamed"
    STREAM = "streamed"


class Seen(Enum):
    """What the client of a route with a fallback gets."""

    FALLBACK = "the fallback's answer, whole, and no error"
    EVENT = "what had come, then an error event, no `[DONE]`"
    ANSWER = "the answer: this is no failure"


class Charge(Enum):
    """What the failed attempt costs (contract section 3)."""

    NOTHING = "nothing"
    INPUT = "estimated input"
    OUTPUT = "estimated input, output seen"
    USAGE = "what it reported"


class Row(NamedTuple):
    kind: Kind
    phase: Phase
    mode: Mode
    what: str  # the upstream does
    seen: Seen
    charge: Charge
    how: Reply | Port


class Impossible(NamedTuple):
    kind: Kind
    phase: Phase
    mode: Mode
    why: str


PLAIN, STREAM = Mode.PLAIN, Mode.STREAM
START, HEAD, BODY, CONTENT, FINAL = Phase
FALLBACK, EVENT, ANSWER = Seen
NOTHING, INPUT, OUTPUT, USAGE = Charge
ABORT = chunked(b'event: error\ndata: "out of memory"\n\n')

NO_CONNECTION = "there is a connection: what goes wrong on it now has another name"
REFUSED = "a refusal has no content; an error inside a 200 is `malformed`, in a stream `stream_cut`"
LOST_PLAIN = "a 200 has begun: losing it is `malformed`"
LOST_STREAM = "a 200 has begun: losing it is `stream_cut`"
IN_WORDS = "only the body says so; a 400 or 413 without its body is `malformed`"

# kind, phase, what the upstream does, seen, charged, how; then the same for both modes or for one
BOTH: tuple[tuple[Kind, Phase, str, Seen, Charge, Reply | Port], ...] = (
    *((Kind.CONNECT, START, port.value, FALLBACK, NOTHING, port) for port in Port),
    (Kind.TIMEOUT, START, "reads the request and never answers", FALLBACK, INPUT, replies.hang()),
    (Kind.TIMEOUT, HEAD, "sends headers and stalls", FALLBACK, INPUT, faulty.head_then(STALL)),
    (Kind.TIMEOUT, BODY, "stalls before any content", FALLBACK, INPUT, role_then(STALL)),
    (Kind.RATE_LIMITED, START, "429", FALLBACK, NOTHING, refusal(429)),
    (Kind.RATE_LIMITED, HEAD, "429, then the connection ends", FALLBACK, NOTHING, refusal(429, sent=0)),
    (Kind.RATE_LIMITED, BODY, "429 and half of its body", FALLBACK, NOTHING, refusal(429, sent=0.5)),
    (Kind.SERVER_ERROR, START, "500", FALLBACK, NOTHING, refusal(500)),
    (Kind.SERVER_ERROR, START, "503", FALLBACK, NOTHING, refusal(503)),
    (Kind.SERVER_ERROR, START, "529", FALLBACK, NOTHING, refusal(529)),
    (Kind.SERVER_ERROR, START, "408", FALLBACK, NOTHING, refusal(408)),
    (Kind.SERVER_ERROR, START, "reads the request and resets", FALLBACK, NOTHING, replies.reset()),
    (Kind.SERVER_ERROR, START, "reads the request and closes", FALLBACK, NOTHING, replies.raw(CLOSE)),
    (Kind.SERVER_ERROR, START, "half a status line, then a reset", FALLBACK, NOTHING, replies.raw(b"HTTP/1.", CUT)),
    (Kind.SERVER_ERROR, HEAD, "503, then the connection ends", FALLBACK, NOTHING, refusal(503, sent=0)),
    (Kind.SERVER_ERROR, BODY, "500 and half of its body", FALLBACK, NOTHING, refusal(500, sent=0.5)),
    (Kind.ACCOUNT, START, "401", FALLBACK, NOTHING, refusal(401)),
    (Kind.ACCOUNT, START, "402", FALLBACK, NOTHING, refusal(402)),
    (Kind.ACCOUNT, START, "403", FALLBACK, NOTHING, refusal(403)),
    (Kind.ACCOUNT, START, "404 for the model", FALLBACK, NOTHING, refusal(404)),
    (Kind.ACCOUNT, START, "429 for quota", FALLBACK, NOTHING, refusal(429, {"code": "insufficient_quota"})),
    (Kind.ACCOUNT, HEAD, "401, then the connection ends", FALLBACK, NOTHING, refusal(401, sent=0)),
    (Kind.ACCOUNT, BODY, "403 and half of its body", FALLBACK, NOTHING, refusal(403, sent=0.5)),
    (Kind.CONTEXT_LENGTH, START, "400 naming the length", FALLBACK, NOTHING, replies.context_too_long()),
    (Kind.CONTEXT_LENGTH, START, "413", FALLBACK, NOTHING, refusal(413)),
    (Kind.EMPTY, FINAL, "finish `stop`, no content", FALLBACK, USAGE, faulty.finishes_with("stop", None)),
    (Kind.MALFORMED, START, "bytes that are not HTTP", FALLBACK, INPUT, replies.raw(b"SSH-2.0-nothing\r\n", CLOSE)),
    (Kind.MALFORMED, HEAD, "400, then the connection ends", FALLBACK, NOTHING, refusal(400, sent=0)),
    (Kind.MALFORMED, BODY, "413 and half of its body", FALLBACK, NOTHING, refusal(413, sent=0.5)),
    (Kind.MALFORMED, BODY, "200 with an HTML page", FALLBACK, INPUT, replies.html_in_200()),
    (Kind.MALFORMED, BODY, "200 of JSON with an error in it", FALLBACK, INPUT, faulty.error_as_json()),
    (Kind.CONTENT_FILTER, START, "400 naming the filter", FALLBACK, NOTHING, replies.content_filtered()),
    (
        Kind.CONTENT_FILTER, BODY, "finish `content_filter`, no content",
        FALLBACK, USAGE, faulty.finishes_with("content_filter", None),
    ),
    (
        Kind.CONTENT_FILTER, FINAL, "content, then finish `content_filter`",
        ANSWER, USAGE, faulty.finishes_with("content_filter", faulty.CONTENT),
    ),
)  # fmt: skip
ONLY_PLAIN: tuple[tuple[Kind, Phase, str, Seen, Charge, Reply], ...] = (
    (Kind.EMPTY, BODY, "no choices", FALLBACK, USAGE, replies.no_choices()),
    (Kind.TIMEOUT, CONTENT, "stalls after half of the body", FALLBACK, INPUT, part(STALL)),
    (Kind.TIMEOUT, FINAL, "all but the last byte, then stalls", FALLBACK, INPUT, part(STALL, but=1)),
    (Kind.MALFORMED, HEAD, "headers, then a reset", FALLBACK, INPUT, faulty.head_then(CUT)),
    (Kind.MALFORMED, HEAD, "200 with an empty body", FALLBACK, INPUT, replies.raw(replies.http(200, b""))),
    (Kind.MALFORMED, BODY, "the body ends before its content", FALLBACK, INPUT, role_then(CLOSE)),
    (Kind.MALFORMED, CONTENT, "the body ends after its content", FALLBACK, INPUT, part(CLOSE)),
    (Kind.MALFORMED, CONTENT, "reset after the content", FALLBACK, INPUT, part(CUT)),
    (Kind.MALFORMED, FINAL, "all but the last byte", FALLBACK, INPUT, part(CLOSE, but=1)),
    (Kind.MALFORMED, FINAL, "finish `error` after content", FALLBACK, USAGE, faulty.finishes_with("error", "Hm")),
)
ONLY_STREAM: tuple[tuple[Kind, Phase, str, Seen, Charge, Reply], ...] = (
    (Kind.EMPTY, BODY, "`[DONE]` and nothing else", FALLBACK, INPUT, replies.no_choices()),
    (Kind.TIMEOUT, CONTENT, "stalls after content", EVENT, OUTPUT, words_then([STALL])),
    (Kind.TIMEOUT, FINAL, "stalls inside the final chunk", EVENT, OUTPUT, faulty.half_a_finish_then(STALL)),
    (Kind.TIMEOUT, FINAL, "stalls between its finish and `[DONE]`", ANSWER, OUTPUT, faulty.words_and_finish(STALL)),
    (Kind.MALFORMED, HEAD, "200, not an event stream, empty", FALLBACK, INPUT, replies.raw(replies.http(200, b""))),
    (Kind.MALFORMED, BODY, "a whole answer instead of a stream", FALLBACK, USAGE, faulty.whole_answer()),
    (Kind.MALFORMED, CONTENT, "one event of more than 16 MiB", EVENT, OUTPUT, faulty.endless_event()),
    (Kind.MALFORMED, FINAL, "it is not JSON, `[DONE]` follows", ANSWER, OUTPUT, faulty.final_chunk_is_not_json()),
    (Kind.STREAM_CUT, HEAD, "headers, then a reset", FALLBACK, INPUT, faulty.head_then(CUT)),
    (Kind.STREAM_CUT, HEAD, "headers, then a proper end", FALLBACK, INPUT, replies.raw(replies.stream_head() + END)),
    (Kind.STREAM_CUT, BODY, "reset before content", FALLBACK, INPUT, role_then(0.02, CUT)),
    (Kind.STREAM_CUT, BODY, "closed before content", FALLBACK, INPUT, role_then(CLOSE)),
    (Kind.STREAM_CUT, BODY, "a proper end before content", FALLBACK, INPUT, role_then(END)),
    (Kind.STREAM_CUT, BODY, "an error event before content", FALLBACK, INPUT, role_then(event(ERROR) + END)),
    (Kind.STREAM_CUT, BODY, "an `event: error` that is text", FALLBACK, INPUT, role_then(ABORT + END)),
    (Kind.STREAM_CUT, CONTENT, "reset after content", EVENT, OUTPUT, words_then([0.02, CUT])),
    (Kind.STREAM_CUT, CONTENT, "closed after content", EVENT, OUTPUT, words_then([CLOSE])),
    (Kind.STREAM_CUT, CONTENT, "a proper end without a finish", EVENT, OUTPUT, words_then([END])),
    (Kind.STREAM_CUT, CONTENT, "an error event after content", EVENT, OUTPUT, words_then([event(ERROR) + DONE + END])),
    (Kind.STREAM_CUT, CONTENT, "an `event: error` that is text", EVENT, OUTPUT, words_then([ABORT + DONE + END])),
    (Kind.STREAM_CUT, CONTENT, "broken chunk framing", EVENT, OUTPUT, words_then([b"no size\r\n", CLOSE])),
    (Kind.STREAM_CUT, FINAL, "reset inside the final chunk", EVENT, OUTPUT, faulty.half_a_finish_then(CUT)),
    (Kind.STREAM_CUT, FINAL, "closed inside the final chunk", EVENT, OUTPUT, faulty.half_a_finish_then(CLOSE)),
    (
        Kind.STREAM_CUT, FINAL, "finish `error` after content",
        EVENT, OUTPUT, faulty.words_and_finish(DONE + END, reason="error"),
    ),
    (
        Kind.STREAM_CUT, FINAL, "reset between its finish and `[DONE]`",
        ANSWER, OUTPUT, faulty.words_and_finish(0.02, CUT),
    ),
    (
        Kind.STREAM_CUT, FINAL, "its finish, but no `[DONE]`",
        ANSWER, OUTPUT, faulty.words_and_finish(END),
    ),
)  # fmt: skip

NEVER: tuple[tuple[Kind, tuple[Phase, ...], tuple[Mode, ...], str], ...] = (
    (Kind.CONNECT, (HEAD, BODY, CONTENT, FINAL), (PLAIN, STREAM), NO_CONNECTION),
    (Kind.RATE_LIMITED, (CONTENT, FINAL), (PLAIN, STREAM), REFUSED),
    (Kind.SERVER_ERROR, (CONTENT, FINAL), (PLAIN,), LOST_PLAIN),
    (Kind.SERVER_ERROR, (CONTENT, FINAL), (STREAM,), LOST_STREAM),
    (Kind.ACCOUNT, (CONTENT, FINAL), (PLAIN, STREAM), REFUSED),
    (Kind.CONTEXT_LENGTH, (HEAD, BODY), (PLAIN, STREAM), IN_WORDS),
    (Kind.CONTEXT_LENGTH, (CONTENT, FINAL), (PLAIN, STREAM), REFUSED),
    (Kind.EMPTY, (START, HEAD), (PLAIN,), "an answer that has not come is not an empty one; no body is `malformed`"),
    (Kind.EMPTY, (START, HEAD), (STREAM,), "a stream that has not come is not an empty one; no event is `stream_cut`"),
    (Kind.EMPTY, (CONTENT,), (PLAIN, STREAM), "with content it is not empty"),
    (Kind.STREAM_CUT, tuple(Phase), (PLAIN,), "there is no stream: an answer that is cut short is `malformed`"),
    (Kind.STREAM_CUT, (START,), (STREAM,), "no stream has begun: a connection lost here is `server_error`"),
    (Kind.CONTENT_FILTER, (HEAD,), (PLAIN, STREAM), IN_WORDS),
    (Kind.CONTENT_FILTER, (CONTENT,), (PLAIN, STREAM), "the final chunk says so; an error event is `stream_cut`"),
)

ROWS: tuple[Row, ...] = tuple(
    Row(kind, phase, mode, what, seen, charge, how)
    for modes, rows in (((PLAIN, STREAM), BOTH), ((PLAIN,), ONLY_PLAIN), ((STREAM,), ONLY_STREAM))
    for kind, phase, what, seen, charge, how in rows
    for mode in modes
)
IMPOSSIBLE: tuple[Impossible, ...] = tuple(
    Impossible(kind, phase, mode, why) for kind, phases, modes, why in NEVER for phase in phases for mode in modes
)
