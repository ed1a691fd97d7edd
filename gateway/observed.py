"""What one attempt showed until it ended, and what it is charged for."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from gateway.core.call import Json
from gateway.core.failures import Kind
from gateway.core.record import AttemptStages
from gateway.core.usage import Usage, estimate_tokens, lacking, read_usage

NOTHING = Usage()

# A failed attempt that reported no usage costs nothing for these, as long as no output was seen (contract section 3):
# the upstream refused it or never had it. Every other failure is charged its estimated input and the output seen.
FREE_KINDS = frozenset(
    {Kind.CONNECT, Kind.RATE_LIMITED, Kind.ACCOUNT, Kind.CONTEXT_LENGTH, Kind.CONTENT_FILTER, Kind.SERVER_ERROR}
)
DESCRIBED = 1024 * 1024  # bytes of an answer, beyond which a trace does not look into it (embeddings)
LONGEST_NAME = 256  # characters


class Observed:
    """What one attempt showed until it ended."""

    __slots__ = (
        "asked",
        "assumed",
        "dropped",
        "finish",
        "lacking",
        "opened_at",
        "reasoning_bytes",
        "reported",
        "response_model",
        "sent_at",
        "span_id",
        "text_bytes",
        "upstream_request_id",
    )  # fmt: skip

    def __init__(self, asked: float = 0.0, span_id: str = "") -> None:
        """`asked`: when it asked for its place, on the monotonic clock; 0: nobody says."""
        self.asked = asked
        self.span_id = span_id
        self.sent_at: float | None = None
        self.opened_at: float | None = None
        self.reported: Usage | None = None
        self.lacking = (False, False)  # whether the report leaves out what was read, and what was written
        self.dropped = ""  # members that did not reach the model, as whoever left them out says
        self.assumed: Usage | None = None  # where nothing is reported, of what is sold by the piece
        self.text_bytes = 0
        self.reasoning_bytes = 0
        self.upstream_request_id = ""
        self.response_model = ""
        self.finish = ""

    @property
    def sent(self) -> bool:
        """Whether the upstream may have begun to work on it."""
        return self.sent_at is not None

    def describe(self, data: bytes, finish: str, json: Json) -> None:
        """What a trace tells of an answer, from its body or from an event of its stream."""
        self.finish = finish
        if 0 < len(data) <= DESCRIBED:
            with contextlib.suppress(ValueError):
                model = json.members(data).get("model")
                name = json.loads(bytes(model)) if model is not None else ""
                self.response_model = name[:LONGEST_NAME] if isinstance(name, str) else ""

    def stages(self, started: float) -> AttemptStages:
        sent, opened = self.sent_at, self.opened_at
        return AttemptStages(
            started - self.asked if self.asked else None,
            sent - started if sent is not None else None,
            opened - sent if sent is not None and opened is not None else None,
        )

    def usage(self, estimated_input: int) -> Usage:
        """The reported usage; where it is missing, or a half of it, an estimate marked as such."""
        if self.reported is not None:
            return self.reported if not any(self.lacking) else self._completed(self.reported, estimated_input)
        if self.assumed is not None:
            return self.assumed
        return Usage(
            input=estimated_input,
            output=estimate_tokens(self.text_bytes),
            reasoning=estimate_tokens(self.reasoning_bytes),
            estimated=True,
        )

    def report(self, usage: Mapping[str, Any]) -> None:
        """Takes the upstream's usage object."""
        self.reported = read_usage(usage)
        self.lacking = lacking(usage)

    def _completed(self, usage: Usage, estimated_input: int) -> Usage:
        """A report of which a half is left out, with an estimate of that."""
        no_input, no_output = self.lacking
        if no_input:
            return usage._replace(input=estimated_input, estimated=True)
        if no_output and (self.text_bytes or self.reasoning_bytes):
            output, reasoning = estimate_tokens(self.text_bytes), estimate_tokens(self.reasoning_bytes)
            return usage._replace(output=output, reasoning=reasoning, estimated=True)
        return usage  # embeddings: there is no other half

    def failed_usage(self, kind: str, status: int, estimated_input: int, *, bills_filtered: bool = False) -> Usage:
        """What a failed or cancelled attempt is charged for; `bills_filtered`: what a filter refused, too."""
        seen_output = self.text_bytes or self.reasoning_bytes
        free = not self.sent or kind in FREE_KINDS or 400 <= status < 500
        if bills_filtered and kind == Kind.CONTENT_FILTER:
            free = False
        if self.reported is None and not seen_output and free:
            return NOTHING
        usage = self.usage(estimated_input)
        if usage.estimated:
            return usage
        # Some servers report as they go: what came after the last report was made, and is billed, too.
        output, reasoning = estimate_tokens(self.text_bytes), estimate_tokens(self.reasoning_bytes)
        if output + reasoning <= usage.total_output:
            return usage
        more = usage.more and usage.more._replace(audio_output=0, image_output=0)
        return usage._replace(output=output, reasoning=reasoning, estimated=True, more=more)
