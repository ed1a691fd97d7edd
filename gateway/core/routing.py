"""Rules + Call + Task + Principal + signals -> Plan: the targets in order, and the reason for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from gateway.core.call import Call, Principal
from gateway.core.failures import DEFAULT_FALLBACK_ON, Kind
from gateway.core.pricing import Price
from gateway.core.tasks import Task, TaskRule


class Timeouts(NamedTuple):
    """Seconds. None: not set here (the next level's value, at last the built-in default, applies)."""

    connect: float | None = None
    attempt: float | None = None  # one non-streamed attempt until its answer is whole
    first_token: float | None = None
    idle: float | None = None  # between chunks of a stream
    total: float | None = None  # over all attempts


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


class Rules(NamedTuple):
    """Everything of routes.yaml that decisions need."""

    models: Mapping[str, Model]
    tasks: tuple[TaskRule, ...]
    routes: tuple[Route, ...]
    direct: Route  # `defaults` as a route: for a model that the client named itself (label "direct", no fallback)


class Signals(NamedTuple):
    """What the moment adds to the rules."""

    in_flight: Mapping[str, int] = {}  # by model name
    roll: float = 0.0  # uniform in [0, 1): the dice for `weighted`


class Target(NamedTuple):
    """One model to try."""

    model: Model
    upstream_name: str
    price: Price | None
    timeouts: Timeouts  # nothing in it is None any more
    fallback: bool  # from `fallback:` rather than from `use:`
    why: str  # "listed 1st", "cheapest: $0.00012 for this request", "fallback 1st"


class Skipped(NamedTuple):
    what: str  # a model or a route
    why: str


class Plan(NamedTuple):
    route: str
    task: Task
    targets: tuple[Target, ...]  # may be empty: then `skipped` says why
    skipped: tuple[Skipped, ...]  # models of the route that were left out
    passed_over: tuple[Skipped, ...]  # routes that did not match
    fallback_on: frozenset[Kind] = DEFAULT_FALLBACK_ON
    retries: int = 1  # on the same target
    max_attempts: int = 4  # over all targets
    total: float = 600.0  # seconds over all attempts
    baseline: Model | None = None


Strategy = Callable[[Sequence[tuple[Target, Candidate]], Call, Signals], "list[Target]"]


def plan(rules: Rules, call: Call, task: Task, principal: Principal, signals: Signals) -> Plan:
    """Which models to try, in which order, and why (contract section 1, "What `model` may be").

    Raises RequestError 403 where the key's `allow` does not hold the requested name, 404 `model_not_found` with close
    matches among what the key may use, and 400 `invalid_request_error` where models matched but none can do what the request needs
    (images, tools, context window: then `context_length_exceeded`); 503 RouteExhausted `no_healthy_upstream` where all are disabled.
    """
    raise NotImplementedError


def visible_models(rules: Rules, principal: Principal) -> list[str]:
    """What `/v1/models` lists: enabled models and the literal names in routes that the key may use, sorted."""
    raise NotImplementedError
