"""Everything known about a finished call. Ledger rows, metrics, logs and traces are made of this and nothing else."""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.capture import Content
from gateway.core.traces import Span
from gateway.core.usage import Usage


class AttemptStages(NamedTuple):
    """Seconds that parts of an attempt took; None where it did not come so far."""

    reserve: float | None = None  # a place at the model, and its ceiling in the budgets
    connect: float | None = None  # a connection to the upstream: from the pool, or DNS, TCP and TLS
    first_byte: float | None = None  # from the first byte sent to the answer's status and headers


class Stages(NamedTuple):
    """The same, of a request before its first attempt."""

    read: float | None = None  # from its head to its parsed body: a slow client, a large body, authentication
    admit: float | None = None  # a place in this process, and room in the ledger
    decide: float | None = None  # task, limits, balances, plan


NO_STAGES = Stages()
NO_ATTEMPT_STAGES = AttemptStages()


class AttemptRecord(NamedTuple):
    model: str
    provider: str
    hosting: str
    purpose: str  # answer | retry (a failed or superseded try)
    reason: str  # why it was made: first, retry, or the failure kind that led here
    result: str  # ok | relayed (an upstream's own 4xx) | cancelled | a failure kind
    status: int  # the upstream's status; 0 where there was none
    started: float  # seconds after the request came in
    duration: float
    first_token: float | None  # seconds after the attempt began
    usage: Usage
    price_source: str  # empty: unpriced
    cost_nano: int
    upstream_request_id: str = ""
    detail: str = ""  # what failed, for people; no content
    budgets: tuple[str, ...] = ()  # that it was charged to, by name
    reserved_nano: int | None = None  # what was held for it in each of them; None: it touched none
    replica: str = ""  # of a model with several: host:port
    retry_after: float | None = None  # seconds, as the upstream asked
    stages: AttemptStages = NO_ATTEMPT_STAGES
    span_id: str = ""  # empty: it is not traced
    upstream_model: str = ""  # the name that was sent
    response_model: str = ""  # the name that came back; looked for in traced requests alone
    finish: str = ""  # finish_reason; the same


class Record(NamedTuple):
    id: str  # ours
    client_request_id: str
    started: float  # unix seconds
    key: str
    team: str
    user: str  # of the key, else the request's own word
    tags: tuple[str, ...]
    endpoint: str
    requested_model: str
    stream: bool
    route: str  # empty where none was chosen
    task: str
    task_why: str
    model: str  # the model that answered, or was tried last; empty where none was
    provider: str
    hosting: str
    outcome: str  # ok | client_error | rejected | upstream_error | cancelled
    rejection: str  # auth | rate_limit | budget | overload | invalid | not_found | ...; empty unless rejected
    status: int  # what the client got
    fallback_reason: str  # empty: no fallback
    usage: Usage  # of the attempt that answered, or whose answer was cut short
    cost_nano: int  # of all attempts
    baseline_nano: int
    baseline_model: str  # empty: no baseline applies
    unpriced: bool  # tokens were used at a price we do not know
    duration: float  # seconds
    first_token: float | None
    overhead: float  # seconds of `duration` that were ours
    has: tuple[str, ...]
    estimated_input: int
    max_output: int | None
    lines_dropped: int  # malformed SSE lines left out
    config_hash: str
    attempts: tuple[AttemptRecord, ...]
    budget: str = ""  # that refused it, by name; empty: none did
    # What else decides on a request, so that it can be decided anew (`gateway plan`).
    n: int = 1  # answers asked for
    no_fallback: bool = False
    max_cost_nano: int | None = None  # the client's own limit
    timeout: float | None = None  # seconds, the client's own
    asked_task: str = ""  # the client's word, known as a task or not
    body_bytes: int | None = None  # None: the row is older than this
    cache: str = ""  # hit | miss | bypass; empty: the route gives no answer again
    cache_saved_nano: int = 0  # what the answer cost when it was made
    trace_id: str = ""  # of a trace that somebody records: the client said so, or we do
    span: Span | None = None  # None: it is not traced here
    stages: Stages = NO_STAGES
    content: Content | None = None  # what was said, for the ledger alone: no event has it
