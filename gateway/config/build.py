"""The validated file -> Config: the core's rules, live or asleep, each with its price."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.config import schema, spending
from gateway.config.endpoints import asleep, read_endpoints, sleeping
from gateway.config.litellm_names import lacking
from gateway.config.models import Models, default_apis, first, timeouts
from gateway.config.patterns import compile_pattern
from gateway.config.problems import Problems
from gateway.config.schema_base import Match as WrittenMatch
from gateway.config.schema_capture import rule
from gateway.config.types import Config, ProviderConfig
from gateway.core.caching import Cache
from gateway.core.dialects import dialect_at
from gateway.core.failures import DEFAULT_FALLBACK_ON, Kind
from gateway.core.pricing import NANO_PER_USD
from gateway.core.routing import Candidate, Match, Route, Rules
from gateway.core.rules import Hedge
from gateway.core.tasks import Condition, TaskRule

DIRECT = "direct"
_SHOWN = 60  # characters of a regular expression in `why`


class Source(NamedTuple):
    path: Path  # absolute
    hash: str


def build(file: schema.RoutesFile, source: Source, problems: Problems) -> Config:
    defaults = file.defaults or schema.Defaults()
    warnings: list[str] = []
    providers = {name: _provider(name, each, source.path.parent, problems) for name, each in file.providers.items()}
    endpoints = read_endpoints(file, providers)
    models = Models(file, providers, endpoints, problems)
    routes = tuple(_route(route, defaults) for route in file.routes or ())
    rules = Rules(
        models=models.models,
        tasks=tuple(_task(name, task) for name, task in (file.tasks or {}).items()),
        routes=routes,
        direct=_direct(defaults),
        budgets=spending.budgets(file.budgets or ()),
        limits=spending.limits(file.limits or ()),
    )
    warnings += sleeping(file, providers, endpoints)
    warnings += _lacking(providers.values())
    warnings += models.warnings(rules)
    warnings += _unreachable(routes)
    keys = spending.keys(file.keys or [], warnings)
    webhooks = spending.webhooks(file.webhooks or [], warnings)
    stores = file.stores or schema.Stores()
    return Config(
        path=source.path,
        hash=source.hash,
        providers=providers | {each.provider.name: each.provider for of in endpoints.values() for each in of},
        rules=rules,
        keys_declared=file.keys is not None,
        keys=keys,
        ledger=_absolute(stores.ledger, source.path.parent),
        counters=_absolute(stores.counters, source.path.parent),
        cache=_absolute(stores.cache, source.path.parent),
        on_full=stores.on_full,
        warnings=tuple(warnings),
        notices=tuple(_kept(route) for route in (*routes, rules.direct) if route.capture is not None),
        price_book=models.book_name,
        webhooks=webhooks,
        teams=frozenset(key.team for key in file.keys or () if key.team),
    )


def _lacking(providers: Iterable[ProviderConfig]) -> Iterator[str]:
    """Warnings about packages that a provider needs."""
    for provider in providers:
        if why := lacking(str(provider.options.get("litellm_provider", ""))):
            yield f"provider {provider.name} cannot answer: {why}"


def _absolute(dsn: str, folder: Path) -> str:
    return f"sqlite:///{(folder / dsn.removeprefix('sqlite:///')).absolute()}"


def _provider(name: str, written: schema.Provider, folder: Path, problems: Problems) -> ProviderConfig:
    why = asleep(written, written.base_url, written.api_key)
    if not (
        written.base_url or why or written.dialect in ("litellm", "local")
    ):  # ${NAME:-}, or all its models have endpoints
        why = "its base_url is empty"
    ca_file = str(folder / written.ca_file) if written.ca_file else ""
    if ca_file and not why and not Path(ca_file).is_file():
        problems.add(("providers", name, "ca_file"), f"there is no file {written.ca_file}")
    base_url = str(written.base_url or "")
    options = {
        each: getattr(written, each)
        for each in ("model", "threads", "context", "parallel", "litellm_provider", "api_version")
    }
    options |= {option: str(value) for option, value in (written.options or {}).items() if value}
    apis = written.apis or default_apis(written.dialect, base_url)
    return ProviderConfig(
        name=name,
        dialect=written.dialect,
        base_url=base_url,
        api_key=str(written.api_key or ""),
        headers={header: str(value) for header, value in (written.headers or {}).items() if value},
        ca_file=ca_file,
        apis=frozenset((*apis, "count_tokens") if "messages" in apis else apis),
        metrics=str(written.metrics or ""),
        options={option: value for option, value in options.items() if value is not None},
        disabled=why,
        server=_server(written, base_url),
        passthrough=tuple(written.passthrough or ()),
    )


def _server(written: schema.Provider, base_url: str) -> str:
    if written.dialect == "litellm":
        return ""
    own = "llamacpp" if written.dialect == "local" else "azure" if written.api_version else ""
    return written.server or own or dialect_at(base_url)


def _task(name: str, task: schema.Task) -> TaskRule:
    return TaskRule(name, tuple(_condition(condition) for condition in task.when or ()))


def _condition(written: schema.Condition) -> Condition:
    parts = [f"header {name} is {value}" for name, value in (written.header or {}).items()]
    for field in ("system_prompt", "last_message"):
        pattern = getattr(written, field)
        parts += (
            [f"{field} matches {pattern if len(pattern) <= _SHOWN else pattern[:_SHOWN] + '...'}"] if pattern else []
        )
    if written.has:
        parts.append(f"has {' and '.join(written.has)}")
    if written.min_input_tokens:
        parts.append(f"input of at least {written.min_input_tokens} tokens")
    if written.model:
        parts.append(f"model is {' or '.join(written.model)}")
    return Condition(
        header=written.header or {},
        system_prompt=compile_pattern(written.system_prompt) if written.system_prompt else None,
        last_message=compile_pattern(written.last_message) if written.last_message else None,
        has=frozenset(written.has or ()),
        min_input_tokens=written.min_input_tokens,
        model=tuple(written.model or ()),
        text=", ".join(parts),
    )


def _route(written: schema.Route, defaults: schema.Defaults) -> Route:
    kinds = first(written.fallback_on, defaults.fallback_on, None)
    return Route(
        name=written.name,
        use=tuple(Candidate(use.model, float(use.weight)) for use in written.use),
        match=spending.match(written.match or WrittenMatch()),
        order=first(written.order, defaults.order, "listed"),
        fallback=tuple(first(written.fallback, defaults.fallback, [])),
        fallback_on=DEFAULT_FALLBACK_ON if kinds is None else frozenset(map(Kind, kinds)),
        retries=first(written.retries, defaults.retries, 1),
        max_attempts=first(written.max_attempts, defaults.max_attempts, 4),
        timeouts=timeouts(written.timeout),
        baseline=first(written.baseline, defaults.baseline, ""),
        hedge=_hedge(first(written.hedge, defaults.hedge, None)),
        mid_stream=first(written.mid_stream, defaults.mid_stream, "error"),
        sticky=first(written.sticky, defaults.sticky, None) == "session",
        capture=rule(first(written.capture, defaults.capture, None)),
        cache=_cache(first(written.cache, defaults.cache, None)),
        clamp=first(written.clamp, defaults.clamp, True),
    )


def _cache(written: schema.Cache | None) -> Cache | None:
    return None if written is None else Cache(written.ttl)


def _hedge(written: schema.Hedge | None) -> Hedge | None:
    if written is None:
        return None
    limit = written.max_extra_cost_usd
    after = None if written.after == "p95" else written.after
    return Hedge(after, None if limit is None else int(limit * NANO_PER_USD))


def _direct(defaults: schema.Defaults) -> Route:
    kinds = defaults.fallback_on
    return Route(
        name=DIRECT,
        use=(),
        fallback_on=DEFAULT_FALLBACK_ON if kinds is None else frozenset(map(Kind, kinds)),
        retries=first(defaults.retries, None, 1),
        max_attempts=first(defaults.max_attempts, None, 4),
        timeouts=timeouts(defaults.timeout),
        baseline=defaults.baseline or "",
        capture=rule(defaults.capture),
        cache=_cache(defaults.cache),
        clamp=first(defaults.clamp, None, True),
    )


def _kept(route: Route) -> str:
    assert route.capture is not None
    days = route.capture.keep / 86_400
    how_long = f"{days:g} days" if days >= 1 else f"{route.capture.keep:g} seconds"
    return f"route {route.name} stores prompts and answers in the ledger for {how_long} (capture)"


def _unreachable(routes: tuple[Route, ...]) -> list[str]:
    catch_all = next((index for index, route in enumerate(routes) if route.match == Match()), len(routes))
    return [
        f"route {route.name} is never reached: route {routes[catch_all].name} before it matches everything"
        for route in routes[catch_all + 1 :]
    ]
