"""What routes.yaml says about models and routes, and what a plan is made of. Plain data; `routing` decides on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from gateway.core.caching import Cache
from gateway.core.capture import Capture
from gateway.core.failures import DEFAULT_FALLBACK_ON, Kind
from gateway.core.pricing import Price

if TYPE_CHECKING:  # it imports this module
    from gateway.core.budgets import Settled, Touched


class Timeouts(NamedTuple):
    """Seconds. None: not set here (the next level's value, at last the built-in default, applies)."""

    connect: float | None = None
    attempt: float | None = None  # one non-streamed attempt until its answer is whole
    first_token: float | None = None
    idle: float | None = None  # between chunks of a stream
    total: float | None = None  # over all attempts


class Replica(NamedTuple):
    """One of a model's `endpoints:`; a model without them has one, its provider's own address."""

    name: str = "default"  # what breakers, metrics and messages call it: host:port, with the path where needed
    weight: float = 1.0
    provider: str = ""  # key of the live provider that reaches it; empty: the model's provider


class Model(NamedTuple):
    """An entry under `models:`."""

    name: str  # as under `models:`; "openai/*" for a wildcard
    provider: str
    upstream_name: str  # the name sent upstream; empty for a wildcard: the rest of the requested name
    hosting: Literal["self", "api"] = "api"
    price: Price | None = None  # None: unpriced
    context_window: int | None = None
    max_output_tokens: int | None = None
    supports: frozenset[str] = frozenset({"tools", "json_schema", "images", "audio"})  # also reasoning, prefill
    set: Mapping[str, Any] = {}
    drop: frozenset[str] = frozenset()
    timeouts: Timeouts = Timeouts()
    disabled: str = ""  # why it is asleep, e.g. "DEEPSEEK_API_KEY is not set"; never tried while it is
    prices: Mapping[str, Price] = {}  # wildcard only: upstream name -> price, filled from the price book
    replicas: tuple[Replica, ...] = (Replica(),)  # never empty
    max_in_flight: int | None = None  # requests at a time, over all replicas
    cap_name: str = "max_tokens"  # the member of a chat's body that caps its output, as this server wants it
    only: frozenset[str] = frozenset()  # endpoints that can be asked for at all; empty: all of its `apis`
    server: str = ""  # a name in `dialects.BY_NAME`: what its server is known to be; empty: nobody says
    apis: frozenset[str] = frozenset({"chat"})  # that its server has: chat, messages, count_tokens, responses
    bills_filtered: bool = False  # a prompt that its filter refuses is charged for
    max_extra_nano: int | None = None  # nano-USD a request may cost beyond its tokens; None: nothing is known


class Match(NamedTuple):
    """All given must hold; each is "any of" its values; names are globs. None: not asked."""

    model: tuple[str, ...] | None = None
    task: tuple[str, ...] | None = None
    key: tuple[str, ...] | None = None
    team: tuple[str, ...] | None = None
    tag: tuple[str, ...] | None = None
    has: frozenset[str] | None = None
    min_input_tokens: int | None = None
    max_input_tokens: int | None = None


class Candidate(NamedTuple):
    model: str
    weight: float = 1.0


class Hedge(NamedTuple):
    """`hedge:` of a route: a second attempt on the next target when the first is slow to begin."""

    after: float | None = None  # seconds; None: the route's observed p95 first-token time
    max_extra_cost_nano: int | None = None  # of the second attempt; None: no limit


class Route(NamedTuple):
    name: str
    use: tuple[Candidate, ...]
    match: Match = Match()
    order: str = "listed"  # a name in STRATEGIES
    fallback: tuple[str, ...] = ()
    fallback_on: frozenset[Kind] = DEFAULT_FALLBACK_ON
    retries: int = 1
    max_attempts: int = 4
    timeouts: Timeouts = Timeouts()
    baseline: str = ""  # a model's name; empty: none
    hedge: Hedge | None = None
    mid_stream: Literal["error", "continue"] = "error"
    capture: Capture | None = None  # None: what is said is kept nowhere
    cache: Cache | None = None  # None: no answer is given again
    clamp: bool = True  # a budget may cap the output of a call that sets no cap itself
    sticky: bool = False  # `sticky: session`; conversations with tool calls or signed thinking stick anyway


class Standing(NamedTuple):
    """How a replica stands when that is not simply fine."""

    blocked: str = ""  # why it must not be tried now: "breaker open: 5 failures in a row"; empty: it may be
    share: float = 1.0  # of its usual traffic it should get; below 1 while it starts slowly after a recovery
    retry_after: float = 0.0  # seconds until it may be tried, where it is blocked


class Kept(Protocol):
    """Who served conversations before, by `sticky.conversation_key`; a dict will do."""

    def get(self, key: bytes, /) -> tuple[str, str] | None: ...


_NOTHING_KEPT: Mapping[bytes, tuple[str, str]] = {}


class Signals(NamedTuple):
    """What the moment adds to the rules."""

    in_flight: Mapping[str, int] = {}  # by model name, and by "model@replica" for models with several
    roll: float = 0.0  # uniform in [0, 1): the dice for `weighted`
    standing: Mapping[tuple[str, str], Standing] = {}  # by (model, replica); absent: fine
    kept: Kept = _NOTHING_KEPT  # conversation -> (model, replica)
    touched: Touched | None = None  # the budgets of the request; None: there are none
    settled: Settled | None = None  # how they stand; None: no threshold of theirs is reached
    now: float = 0.0  # unix seconds: when the request began, which decides its prices
    elsewhere: Mapping[str, int] = {}  # requests at self-hosted servers that are not among `in_flight`; the same names
    owners: Kept = _NOTHING_KEPT  # response, by `stored.owner_key` -> (model, replica)

    def busy(self, name: str) -> int:
        """Requests under way there, whoever sent them, as far as that is known."""
        return self.in_flight.get(name, 0) + self.elsewhere.get(name, 0)


class Target(NamedTuple):
    """One model to try."""

    model: Model
    upstream_name: str
    price: Price | None
    timeouts: Timeouts  # nothing in it is None any more
    fallback: bool  # from `fallback:` rather than from `use:`
    why: str  # "listed 1st", "cheapest: $0.00012 for this request", "fallback 1st"
    replica: Replica = Replica()


class Skipped(NamedTuple):
    what: str  # a model or a route
    why: str
