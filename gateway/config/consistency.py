"""What must hold between entries: names that exist, names given once, settings that fit together.

Works on the file's data rather than on validated models, so that these problems are found beside all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal

from gateway.config.endpoints import place, provider_name
from gateway.config.fields import OFF
from gateway.config.interpolate import FromEnvironment, Missing
from gateway.config.problems import Data, Path, Problems, did_you_mean
from gateway.core.forms import Endpoint
from gateway.core.globs import fits
from gateway.core.tasks import DEFAULT_TASK

MIN_KEY_LENGTH = 16
DIRECT = "direct"  # the route label of a model that a client named itself
ONLY_FOR: Mapping[str, tuple[str, ...]] = {  # settings of a provider -> the dialects in which they mean something
    "litellm_provider": ("litellm",),
    "options": ("litellm",),
    "model": ("local",),
    "threads": ("local",),
    "context": ("local",),
    "parallel": ("local",),
    "base_url": ("openai", "litellm"),
    "api_key": ("openai", "litellm"),
    "headers": ("openai", "litellm"),
    "ca_file": ("openai",),
    "apis": ("openai", "local"),
    "server": ("openai",),
    "api_version": ("openai",),
    "passthrough": ("openai",),
}
TRAFFIC = ("requests_per_minute", "tokens_per_minute", "max_in_flight")
KEY = "key:"  # begins the name of a key's own budget and of its limits
SERVED = frozenset({*map(str, Endpoint), "/models"})
FORBIDDEN_HEADERS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection"})


def check(data: Data, problems: Problems) -> None:
    if isinstance(data, dict):
        for rule in RULES:
            rule(data, problems)


def _mapping(data: Data, name: str) -> dict[str, Data]:
    value = data.get(name) if isinstance(data, dict) else None
    return value if isinstance(value, dict) else {}


def _items(data: Data, name: str) -> list[Data]:
    value = data.get(name) if isinstance(data, dict) else None
    return value if isinstance(value, list) else []


def _texts(value: Data, path: Path) -> Iterator[tuple[str, Path]]:
    """The text at `path`, or each text of a list there. Missing ones are for the schema to complain about."""
    for text, where in [(value, path)] if isinstance(value, str) else _numbered(value, path):
        if isinstance(text, str) and not isinstance(text, Missing):
            yield text, where


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    if isinstance(name, FromEnvironment):
        return f"no {what} is called what the environment says here (not shown)"
    return f"no {what} is called `{name}`{did_you_mean(name, known)}"


def _numbered(value: Data, path: Path) -> list[tuple[Data, Path]]:
    return [(item, (*path, index)) for index, item in enumerate(value)] if isinstance(value, list) else []


def _providers(data: Data, problems: Problems) -> None:
    users: dict[Data, list[tuple[str, bool]]] = {}  # model, and whether it has endpoints
    for name, model in _mapping(data, "models").items():
        if isinstance(model, dict) and isinstance(model.get("provider"), str):
            users.setdefault(model["provider"], []).append((name, "endpoints" in model))
    for name, provider in _mapping(data, "providers").items():
        path: Path = ("providers", name)
        if not isinstance(provider, dict):
            continue
        dialect = provider.get("dialect", "openai")
        used_by = users.get(name, [])
        without = [model for model, has_endpoints in used_by if not has_endpoints]
        if dialect not in ("litellm", "local") and "base_url" not in provider and (without or not used_by):
            who = (
                f"; its model `{without[0]}` has no endpoints" if used_by != [] and len(without) < len(used_by) else ""
            )
            said = f"is required: where the API begins, such as https://api.example.com/v1{who}"
            problems.add((*path, "base_url"), said)
        _settings(provider, path, problems)
        if dialect in ("litellm", "local") and provider.get("metrics", OFF) != OFF:
            problems.add((*path, "metrics"), f"is `off` or nothing with `dialect: {dialect}`")
        _headers(provider, path, problems)


def _settings(provider: dict[str, Data], path: Path, problems: Problems) -> None:
    """Each in the dialect that it belongs to."""
    dialect = provider.get("dialect", "openai")
    for setting, dialects in ONLY_FOR.items():
        if setting in provider and dialect not in dialects and isinstance(dialect, str):
            said = f"is only for `dialect: {dialects[0]}`" if len(dialects) == 1 else ""
            said = said or f"has no meaning with `dialect: {dialect}`"
            problems.add((*path, setting), f"`{setting}` {said}; remove it")
    if "passthrough" in provider and "base_url" not in provider:
        problems.add((*path, "passthrough"), "needs a base_url: that is where it goes")
    for each, where in _texts(provider.get("passthrough"), (*path, "passthrough")):
        if each in SERVED:
            problems.add(where, "is served by the gateway itself, through its routes; remove it")
    if dialect == "litellm" and "litellm_provider" not in provider:
        said = "is required with `dialect: litellm`: anthropic, gemini, bedrock, vertex_ai, azure, ..."
        problems.add((*path, "litellm_provider"), said)


def _headers(provider: dict[str, Data], path: Path, problems: Problems) -> None:
    for header in _mapping(provider, "headers"):
        if header.lower() in FORBIDDEN_HEADERS:
            problems.add((*path, "headers", header), "is set by the gateway itself; remove it")


def _models(data: Data, problems: Problems) -> None:
    providers = _mapping(data, "providers")
    for name, model in _mapping(data, "models").items():
        path: Path = ("models", name)
        if not isinstance(model, dict):
            continue
        for provider, where in _texts(model.get("provider"), (*path, "provider")):
            if provider not in providers:
                problems.add(where, _unknown("provider", provider, providers))
        if name.endswith("/*") and "model" in model:
            problems.add((*path, "model"), "a wildcard sends the rest of the requested name; remove `model`")
        if name.endswith("/*") and "price" in model and model["price"] != "unmetered":
            problems.add(
                (*path, "price"), "a wildcard's models have different prices: name a model of its own to price it"
            )
        _endpoints(model, (*path, "endpoints"), name, providers, problems)
        for priced, where in _with_tiers(model.get("price"), (*path, "price")):
            tiers = [tier for tier in _items(priced, "tiers") if isinstance(tier, dict)]
            above = [tier["above"] for tier in tiers if isinstance(tier.get("above"), int)]
            if above != sorted(set(above)):
                problems.add((*where, "tiers"), "`above` must grow from one tier to the next")


def _with_tiers(price: Data, path: Path) -> Iterator[tuple[Data, Path]]:
    """Every mapping within a price that may have tiers."""
    for each, where in _numbered(price, path) or [(price, path)]:
        yield each, where
        yield from _numbered(_mapping({"": each}, "").get("hours"), (*where, "hours"))
        for name, service in _mapping(each, "service_tiers").items():
            yield service, (*where, "service_tiers", name)


def _endpoints(model: dict[str, Data], path: Path, name: str, providers: dict[str, Data], problems: Problems) -> None:
    if model.get("endpoints") is None:
        return
    dialect = _mapping(providers, str(model.get("provider"))).get("dialect", "openai")
    if dialect == "local":
        problems.add(path, "has no meaning with `dialect: local`, which runs its own server; remove it")
    elif dialect == "litellm":
        problems.add(path, "are not for `dialect: litellm`; make a provider and a model for each region")
    seen: dict[tuple[str, str], int] = {}
    weights: list[Data] = []
    for index, (endpoint, where) in enumerate(_numbered(model["endpoints"], path)):
        weights.append(endpoint.get("weight", 1) if isinstance(endpoint, dict) else 1)
        url_given = endpoint.get("url") if isinstance(endpoint, dict) else None
        for url, at in _texts(url_given, (*where, "url")):
            try:
                address = place(url)
            except ValueError:
                continue  # for the schema to complain about
            if address in seen:
                problems.add(at, f"is the address of endpoints[{seen[address]}] already")
            elif provider_name(name, address[0]) in providers:
                problems.add(at, "with the model's name before it is the name of a provider; rename that")
            seen.setdefault(address, index)
    if weights and all(isinstance(weight, (int, Decimal)) and weight == 0 for weight in weights):
        problems.add(path, "every weight is 0, so nothing could be chosen")


def _tasks(data: Data, problems: Problems) -> None:
    for name, task in _mapping(data, "tasks").items():
        if name == DEFAULT_TASK:
            problems.add(("tasks", name), "is what a call is when no task fits; choose another name")
        for condition, path in _numbered(_items(task, "when"), ("tasks", name, "when")):
            if condition == {}:
                problems.add(path, "is empty and would hold for every request")


def _routes(data: Data, problems: Problems) -> None:
    first: dict[str, int] = {}
    models = _mapping(data, "models")
    _fallback(_mapping(data, "defaults"), ("defaults",), models, problems)
    _baseline(_mapping(data, "defaults"), ("defaults",), models, problems)
    for index, route in enumerate(_items(data, "routes")):
        path: Path = ("routes", index)
        if not isinstance(route, dict):
            continue
        for name, where in _texts(route.get("name"), (*path, "name")):
            if name == DIRECT:
                problems.add(
                    where, f"`{DIRECT}` is the label of models that a client names itself; choose another name"
                )
            elif name in first:
                problems.add(where, f"routes[{first[name]}] is called `{name}` already")
            first.setdefault(name, index)
        _candidates(route, path, models, problems)
        _fallback(route, path, models, problems)
        _baseline(route, path, models, problems)
        _match(_mapping(route, "match"), (*path, "match"), data, problems)


def _candidates(route: dict[str, Data], path: Path, models: dict[str, Data], problems: Problems) -> None:
    seen: set[str] = set()
    weights: list[Data] = []
    for item, item_path in _numbered(route.get("use"), (*path, "use")):
        where = (*item_path, "model") if isinstance(item, dict) else item_path
        weights.append(item.get("weight", 1) if isinstance(item, dict) else 1)
        for name, _ in _texts(item.get("model") if isinstance(item, dict) else item, where):
            _known_model(name, where, models, problems)
            if name in seen:
                problems.add(where, f"`{name}` is listed twice")
            seen.add(name)
    if weights and all(isinstance(weight, (int, Decimal)) and weight == 0 for weight in weights):
        problems.add((*path, "use"), "every weight is 0, so nothing could be chosen")


def _fallback(holder: dict[str, Data], path: Path, models: dict[str, Data], problems: Problems) -> None:
    for name, where in _texts(holder.get("fallback"), (*path, "fallback")):
        _known_model(name, where, models, problems)


def _known_model(name: str, path: Path, models: dict[str, Data], problems: Problems) -> None:
    """A name that fits a wildcard is fine: `openai/gpt-4.1` where there is `openai/*`."""
    if name not in models and not any(fits(name, wildcard) for wildcard in models if wildcard.endswith("/*")):
        problems.add(path, _unknown("model", name, models))


def _baseline(holder: dict[str, Data], path: Path, models: dict[str, Data], problems: Problems) -> None:
    for name, where in _texts(holder.get("baseline"), (*path, "baseline")):
        if name not in models:
            problems.add(where, _unknown("model", name, models))
        elif name.endswith("/*"):
            problems.add(where, f"`{name}` is a wildcard, which has no price of its own; name one model")


def _match(match: dict[str, Data], path: Path, data: Data, problems: Problems) -> None:
    tasks = [*_mapping(data, "tasks"), DEFAULT_TASK]
    for glob, where in _texts(match.get("task"), (*path, "task")):
        if not any(fits(task, glob) for task in tasks):
            problems.add(where, _unknown("task", glob, tasks))
    least, most = match.get("min_input_tokens"), match.get("max_input_tokens")
    if isinstance(least, int) and isinstance(most, int) and least > most:
        problems.add((*path, "max_input_tokens"), f"is less than min_input_tokens ({least}): nothing could match")


def _keys(data: Data, problems: Problems) -> None:
    names: dict[str, int] = {}
    values: dict[str, int] = {}
    for index, key in enumerate(_items(data, "keys")):
        if not isinstance(key, dict):
            continue
        for name, where in _texts(key.get("name"), ("keys", index, "name")):
            if name in names:
                problems.add(where, f"keys[{names[name]}] is called `{name}` already")
            names.setdefault(name, index)
        value = key.get("value")
        if not isinstance(value, str) or isinstance(value, Missing):
            continue
        if len(value) < MIN_KEY_LENGTH:
            problems.add(
                ("keys", index, "value"), f"is shorter than {MIN_KEY_LENGTH} characters (its value is not shown)"
            )
        elif value in values:
            problems.add(("keys", index, "value"), f"is the same as that of keys[{values[value]}]")
        values.setdefault(str(value), index)


def _budgets(data: Data, problems: Problems) -> None:
    names: dict[str, int] = {}
    for index, budget in enumerate(_items(data, "budgets")):
        path: Path = ("budgets", index)
        if not isinstance(budget, dict):
            continue
        for name, where in _texts(budget.get("name"), (*path, "name")):
            if name in names:
                problems.add(where, f"budgets[{names[name]}] is called `{name}` already")
            if name.startswith(KEY):
                problems.add(where, f"names that begin with `{KEY}` are those of the keys' own budgets")
            names.setdefault(name, index)
        _match(_mapping(budget, "match"), (*path, "match"), data, problems)
        _thresholds(budget, path, problems)
    for index, key in enumerate(_items(data, "keys")):
        _thresholds(_mapping(key, "budget"), ("keys", index, "budget"), problems)


def _thresholds(budget: dict[str, Data], path: Path, problems: Problems) -> None:
    for percent, action in _mapping(budget, "at").items():
        if action == "self_hosted_only" and budget.get("counts") == "all":
            said = "needs `counts: api`: self-hosted models are charged to this budget too"
            problems.add((*path, "at", percent), f"`{action}` {said}")


def _limits(data: Data, problems: Problems) -> None:
    for index, limit in enumerate(_items(data, "limits")):
        if isinstance(limit, dict):
            _match(_mapping(limit, "match"), ("limits", index, "match"), data, problems)
            if limit.keys().isdisjoint(TRAFFIC):
                problems.add(("limits", index), f"limits nothing: give it {' or '.join(TRAFFIC)}")
    for index, key in enumerate(_items(data, "keys")):
        if isinstance(key, dict) and isinstance(key.get("limits"), dict) and key["limits"].keys().isdisjoint(TRAFFIC):
            problems.add(("keys", index, "limits"), f"limits nothing: give it {' or '.join(TRAFFIC)}")


RULES: tuple[Callable[[Data, Problems], None], ...] = (_providers, _models, _tasks, _routes, _keys, _budgets, _limits)
