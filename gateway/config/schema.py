"""The shape of routes.yaml: one model for each kind of entry, one description for each field.

`gateway schema` prints these as JSON Schema (the descriptions are an editor's hover text); `load.py` validates against
them. What holds between entries - names, duplicates - is `consistency.py`'s. Fields that are to come are in `later.py`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gateway.config import fields as f
from gateway.config.problems import Data
from gateway.config.schema_base import Capabilities, Globs, Match, Shape
from gateway.config.schema_capture import OnOrOff
from gateway.config.schema_prices import AnyPrice
from gateway.config.schema_spending import Budget, Key, Limit, Webhook
from gateway.core.dialects import DIALECTS
from gateway.core.index import BUILT_IN, BUILT_IN_REASONING

Support = Literal["images", "audio", "tools", "json_schema", "reasoning", "prefill"]
FailureKind = Literal[
    "connect",
    "timeout",
    "rate_limited",
    "server_error",
    "account",
    "context_length",
    "empty",
    "malformed",
    "stream_cut",
    "content_filter",
]
DIALECT_NAMES = tuple(dialect.name for dialect in DIALECTS)
Order = Literal["listed", "cheapest", "weighted", "least_busy"]


def _default(limit: str) -> str:
    seconds, reasoning = getattr(BUILT_IN, limit), getattr(BUILT_IN_REASONING, limit)
    return f"Default {seconds:g}s" + (f", {reasoning:g}s where the model reasons." if reasoning != seconds else ".")


class Timeouts(Shape):
    """A route's limit goes before a model's, and that before `defaults`."""

    connect: f.Duration | None = Field(default=None, description=f"To reach the server. {_default('connect')}")
    attempt: f.Duration | None = Field(
        default=None, description=f"One attempt that does not stream, until its answer is whole. {_default('attempt')}"
    )
    first_token: f.Duration | None = Field(
        default=None, description=f"A stream's first content. {_default('first_token')}"
    )
    idle: f.Duration | None = Field(default=None, description=f"The longest silence in a stream. {_default('idle')}")
    total: f.Duration | None = Field(
        default=None, description=f"All attempts of a request together. {_default('total')}"
    )


class Provider(Shape):
    """A server or account that serves models."""

    dialect: Literal["openai", "litellm", "local"] = Field(
        default="openai",
        description="`openai`: any server with OpenAI's API. `litellm`: others, through the library of that name in a "
        "process of its own. `local`: the embedded open model, run by the gateway.",
    )
    litellm_provider: f.LitellmProvider | None = Field(
        default=None,
        description="`litellm` only: whose API it is, in litellm's words: anthropic, gemini, bedrock, vertex_ai, ...",
    )
    base_url: f.Url | None = Field(
        default=None,
        description="Where the API begins, usually up to /v1; of `litellm` only where it is not the usual one. The "
        "provider sleeps while its ${NAME} is not set.",
    )
    api_key: f.Secret | None = Field(
        default=None,
        description="Sent as `Authorization: Bearer`. Write ${NAME}: the provider sleeps while it is not set.",
    )
    headers: dict[f.HeaderName, f.HeaderValue] | None = Field(default=None, description="More headers, sent each time.")
    apis: list[Literal["chat", "messages", "count_tokens", "responses"]] | None = Field(
        default=None,
        min_length=1,
        description="What the server has: `chat` (with completions and embeddings), `messages` (Anthropic's, with "
        "`count_tokens`), `responses`. Others are translated. Default: chat, and responses at OpenAI itself.",
    )
    server: Literal[*DIALECT_NAMES] | None = Field(  # type: ignore[valid-type]  # a Literal of the table's names
        default=None,
        description="What the server is, where its host does not tell: what it does differently is then minded, and "
        "named in `x-gateway-dropped`. Without it the client's bytes go there as they came.",
    )
    passthrough: list[f.PassedPath] | None = Field(
        default=None,
        min_length=1,
        description="Paths below /v1 that go to it as they are, without a route: globs by segment, `/files/**` for all "
        "below. A key needs `passthrough:NAME` in its `allow`; refused under a budget.",
    )
    ca_file: f.TextOrMissing | None = Field(
        default=None, description="A PEM file of authorities to trust instead of the system's; relative to this file."
    )
    metrics: f.Metrics | None = Field(
        default=None,
        description="Of self-hosted models: where the server tells Prometheus of its load, or `off`. By default "
        "/metrics beside the /v1 of base_url, where there is such a page. Endpoints take only `off` from here.",
    )
    api_version: f.ApiVersion | None = Field(
        default=None,
        description="Of Azure OpenAI's classic API: calls go to /openai/deployments/MODEL below base_url, with the key "
        "as `api-key`. Its newer API, at .../openai/v1, needs none.",
    )
    options: dict[f.LitellmOption, f.HeaderValue] | None = Field(
        default=None,
        description="`litellm` only: what its provider needs besides a key, such as `aws_region_name`, "
        "`vertex_project`, `vertex_location`, `api_version`.",
    )
    model: Literal["smollm2-135m"] | None = Field(default=None, description="`local` only: which embedded model.")
    threads: f.Threads | None = Field(
        default=None, description="`local` only: CPU threads; by default all but one, 4 at most."
    )
    context: f.LocalContext | None = Field(
        default=None, description="`local` only: tokens of context for each request."
    )
    parallel: f.Parallel | None = Field(default=None, description="`local` only: requests served at the same time.")


class ModelTraits(Shape):
    """What may stand in a model and, for all models, under `defaults`."""

    context_window: f.Tokens | None = Field(
        default=None, description="Tokens of input and output; from the price book."
    )
    max_output_tokens: f.Tokens | None = Field(
        default=None, description="Tokens of output at most; from the price book."
    )
    supports: list[Support] | None = Field(
        default=None,
        description="What the model can do. Known models get this from the price book; others are taken to do all but "
        "`reasoning` and `prefill`; the embedded model, which is given texts alone, not `images` and `audio` either.",
    )
    set: dict[str, Any] | None = Field(default=None, description="Merged into each body; wins over the client.")
    drop: list[f.Text] | None = Field(default=None, description="Members removed from each request's body.")
    timeout: Timeouts | None = Field(default=None, description="Limits in time for requests to this model.")
    max_extra_usd: f.Usd | None = Field(
        default=None,
        description="The most that a request may cost beyond its tokens (remote images, hosted tools). Under a budget "
        "such requests are refused without it.",
    )
    max_in_flight: f.InFlight | None = Field(
        default=None,
        description="Requests to the model at a time, over all workers and endpoints. Where it is full, the route's "
        "next model is tried; with none left the request waits for up to 1s, then gets 503.",
    )


class Endpoint(Shape):
    """One of several servers or regions that serve the same model."""

    url: f.Url = Field(description="Where its API begins. The endpoint sleeps while its ${NAME} is not set.")
    weight: f.Weight = Field(
        default=Decimal(1), description="Its share of the load; with 0 it is used when the others fail."
    )
    api_key: f.Secret | None = Field(default=None, description="In place of the provider's.")
    metrics: f.Metrics | None = Field(default=None, description="As of a provider, for this server.")


class Model(ModelTraits):
    """A model to route to. A name that ends in `/*` is a wildcard: the rest of the requested name goes upstream."""

    provider: f.Text = Field(description="A name under `providers`.")
    model: f.TextOrMissing | None = Field(
        default=None, description="The name sent upstream; the entry's own name where not given."
    )
    hosting: Literal["self", "api"] | None = Field(
        default=None,
        description="`self`: your own hardware. `api` (default): someone else's, which costs money a token.",
    )
    price: AnyPrice | None = Field(
        default=None,
        description="Per token, per GPU-hour, per machine-hour, `unmetered`, or a list of prices per token, each with "
        "the date `from` which it holds. APIs default to the price book.",
    )
    endpoints: list[Endpoint] | None = Field(
        default=None,
        min_length=1,
        description="Several servers of this model, in place of the provider's base_url. The least busy one is taken; "
        "a conversation stays with one, so that its prompt cache is used.",
    )


class Condition(Shape):
    """All that is given must hold."""

    header: dict[f.HeaderName, f.Text] | None = Field(
        default=None, description="Request headers and their exact values."
    )
    system_prompt: f.Regex | None = Field(default=None, description="Found anywhere in the system prompt (RE2).")
    last_message: f.Regex | None = Field(default=None, description="Found anywhere in the last user message (RE2).")
    has: Capabilities | None = Field(default=None, description="What the request must hold: all of these.")
    min_input_tokens: f.Tokens | None = Field(default=None, description="An estimated input at least this long.")
    model: Globs | None = Field(default=None, description="The requested model: any of these globs.")


class Task(Shape):
    """A kind of work. The client may name it (`x-gateway-task`); else the first task with a condition that holds."""

    when: list[Condition] | None = Field(
        default=None, description="Any of these. Without it only the client's word counts."
    )


class Use(Shape):
    model: f.Text = Field(description="A name under `models`.")
    weight: f.Weight = Field(default=Decimal(1), description="Its share under `order: weighted`.")


def _use(value: object) -> object:
    return {"model": value} if isinstance(value, str) else value


class Hedge(Shape):
    """A second attempt, on the next model, when the first is slow to begin. The faster answers, both are charged."""

    after: Literal["p95"] | f.Duration = Field(
        default="p95",
        description="When: a duration, or `p95`: slower than 95% of the route's latest answers began (from 200 on).",
    )
    max_extra_cost_usd: f.Usd | None = Field(
        default=None, description="No second attempt where it may be expected to cost more than this."
    )


class Cache(Shape):
    """Answers that are given again."""

    ttl: f.Duration = Field(description="For how long.")


class RouteTraits(Shape):
    """What may stand in a route and, for all routes, under `defaults`."""

    order: Order | None = Field(
        default=None,
        description="How candidates are tried: `listed` (default), `cheapest` first, by weight, `least_busy` first.",
    )
    fallback: list[f.Text] | None = Field(default=None, description="Models tried after the candidates, in this order.")
    fallback_on: list[FailureKind] | None = Field(
        default=None, description="The failures that lead to the next model: all but `content_filter` by default."
    )
    retries: f.Retries | None = Field(
        default=None, description="More tries of the same model before the next one. Default 1."
    )
    max_attempts: f.Attempts | None = Field(default=None, description="Attempts over all models. Default 4.")
    hedge: Hedge | None = Field(
        default=None, description="A second attempt when the first is slow to begin; at most 5% of a route's requests."
    )
    mid_stream: Literal["error", "continue"] | None = Field(
        default=None,
        description="A stream that breaks off: `error` (default), or `continue` on the next model with `prefill`.",
    )
    sticky: Literal["session"] | None = Field(
        default=None,
        description="Keep the model of a conversation (`x-session-id`, else a hash of its leading messages) until it "
        "fails. Always so where the history holds tool calls or signed thinking.",
    )
    capture: OnOrOff | None = Field(
        default=None,
        description="Keep prompts and answers in the ledger, without keys and secrets: true, or {max_bytes, keep}. "
        "Default false: they are kept nowhere.",
    )
    cache: Cache | None = Field(
        default=None,
        description="Give an answer again to the same tenant's very same request, where that asks for an answer that "
        "does not vary (temperature 0, embeddings). Budgets are not charged for it.",
    )
    clamp: bool | None = Field(
        default=None,
        description="Whether a request without a cap on its output gets one where a budget could not bear the longest "
        "answer. Default true; false: it is refused then.",
    )
    baseline: f.Text | None = Field(
        default=None, description="The closed model that savings are measured against; it needs a price, not a key."
    )


class Route(RouteTraits):
    """Which models answer which requests. The first route that matches wins."""

    name: f.Name = Field(description="Shown in headers, metrics and the ledger.")
    match: Match | None = Field(default=None, description="What requests it is for; all where not given.")
    use: list[Annotated[Use, BeforeValidator(_use, json_schema_input_type=f.Text | Use)]] = Field(
        description="The candidates: names under `models`, or {model, weight}.", min_length=1
    )
    timeout: Timeouts | None = Field(default=None, description="Limits in time for this route.")


class Defaults(RouteTraits, ModelTraits):
    """Settings for all routes and models that do not say otherwise."""


class Stores(Shape):
    ledger: f.LedgerDsn = Field(
        default="sqlite:///gateway.db", description="Where requests are recorded; a file beside this one."
    )
    counters: f.LedgerDsn = Field(
        default="sqlite:///gateway.db", description="Where budgets and created keys are kept; a file beside this one."
    )
    cache: f.LedgerDsn = Field(
        default="sqlite:///gateway-cache.db",
        description="Where answers that may be given again are kept; it may be deleted at any time.",
    )
    on_full: Literal["reject", "drop"] = Field(
        default="reject",
        description="When it cannot keep up: requests wait, then get 503; or rows are dropped and counted.",
    )


class RoutesFile(Shape):
    """routes.yaml of Open Model Gateway."""

    version: Literal[1] = Field(description="The format's version: 1.")
    defaults: Defaults | None = Field(
        default=None, description="Settings for all routes and models that do not say otherwise."
    )
    providers: dict[f.Name, Provider] = Field(description="Servers and accounts, by name.", min_length=1)
    models: dict[f.ModelName, Model] = Field(description="Models, by the name clients and routes use.", min_length=1)
    tasks: dict[f.Name, Task] | None = Field(default=None, description="Kinds of work, recognised in this order.")
    routes: list[Route] | None = Field(default=None, description="The first that matches a request decides.")
    budgets: list[Budget] | None = Field(default=None, description="What may be spent, and what happens when it is.")
    limits: list[Limit] | None = Field(default=None, description="How much traffic is let in.")
    keys: list[Key] | None = Field(default=None, description="Who may call. With this section nobody is anonymous.")
    webhooks: list[Webhook] | None = Field(default=None, description="Who is told of what.")
    stores: Stores | None = Field(default=None, description="Where things are kept.")


def json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of the whole file."""
    schema = RoutesFile.model_json_schema(mode="validation")
    sections = schema["properties"]
    empty_sections = {name: sections[name] for name in sections if _nullable(sections[name])}
    schema = _tidy(schema)
    for name in empty_sections:  # a section whose entries are all commented out is fine
        section = schema["properties"][name]
        schema["properties"][name] = {
            "description": section.pop("description"),
            "anyOf": [section, {"type": "null"}],
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Open Model Gateway: routes.yaml",
        **{name: value for name, value in schema.items() if name != "title"},
    }


def _nullable(schema: dict[str, Any]) -> bool:
    return {"type": "null"} in schema.get("anyOf", ())


def _tidy(value: Data) -> Data:
    """Without pydantic's generated titles and without null, which only stands for "not given" in the models."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return int(value) if isinstance(value, Decimal) else value
    kept = {
        name: _tidy(inner)
        for name, inner in value.items()
        if not (name == "title" and isinstance(inner, str)) and not (name == "default" and inner is None)
    }
    if _nullable(kept):
        others = [option for option in kept.pop("anyOf") if option != {"type": "null"}]
        kept = {**kept, **(others[0] if len(others) == 1 else {"anyOf": others})}
    return kept
