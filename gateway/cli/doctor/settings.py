"""What the configuration itself says: whether it is fine, which credentials are there, which models have a price."""

from __future__ import annotations

import datetime
import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gateway.cli.doctor.findings import Finding, count, failure, ok, warning
from gateway.config.problems import Warned
from gateway.config.types import Config
from gateway.core.routing import Route
from gateway.errors import ConfigError
from gateway.stores.keys import StoredKey

CONFIGURATION, CREDENTIALS, PRICES = "configuration", "credentials", "prices"
_REFERENCE = re.compile(r"\$\{(?:file:([^}]+)|([A-Za-z_]\w*)[^}]*)\}", re.ASCII)
_NOT_SET = re.compile(r"([A-Za-z_]\w*) is not set$", re.ASCII)
SECRET = re.compile("auth|key|token|secret|cookie|password", re.IGNORECASE)  # in names of headers and options
_LITERAL = 16  # letters from which what stands in a secret's place is taken for one: "EMPTY" and "none" are not


class Secret(NamedTuple):
    where: str  # "providers.openai.api_key"
    written: str  # as in the file


def of_error(error: ConfigError) -> Iterator[Finding]:
    """One finding a problem: each is mended on its own."""
    for problem in error.problems:
        place = f"{Path(error.file).name}:{problem.line}" if problem.line else Path(error.file).name
        fix = "mend that line; `gateway check` says whether all is well (docs/reference/routes.md has every field)"
        if not problem.line and "cannot be read" in problem.message:
            fix = _how_to_read(str(error.file), problem.message)
        yield failure(CONFIGURATION, place, f"{problem.path}: {problem.message}", fix)


def _how_to_read(path: str, why: str) -> str:
    if os.strerror(errno.EISDIR).lower() in why:
        return "say --config FILE with the name of a file"
    if os.strerror(errno.EACCES).lower() in why:
        return f"look as the user that serves, or let user {os.geteuid()} read {path} and enter its folders"
    return "say --config FILE, or make the file: the one in the repository works without any key"


def of_configuration(config: Config) -> Iterator[Finding]:
    models = config.rules.models.values()
    awake = [model.name for model in models if not model.disabled]
    if not awake:
        yield failure(CONFIGURATION, config.path.name, f"every model sleeps ({len(models)}), so nobody is answered",
                      "wake one: set its provider's key or base_url (see credentials), or add a model")  # fmt: skip
    else:
        routes, known = count(len(config.rules.routes), "route"), count(len(models), "model")
        found = f"{routes}, {len(awake)} of {known} awake, configuration {config.hash}"
        yield ok(CONFIGURATION, config.path.name, found)
    asleep = [] if not awake else [route.name for route in config.rules.routes if not _answers(config, route)]
    for name in asleep:
        yield warning(CONFIGURATION, f"route {name}", "all its models sleep, so its requests are refused",
                      "wake one of them (see credentials), or add a `fallback:` that is awake")  # fmt: skip
    for told in config.warnings:
        if not isinstance(told, Warned):
            yield warning(CONFIGURATION, config.path.name, told, "change what it names, or leave it if it is meant")
    for notice in config.notices:
        yield ok(CONFIGURATION, config.path.name, notice)


def _answers(config: Config, route: Route) -> bool:
    found = (config.rules.prepared.find(name) for name in (*(each.model for each in route.use), *route.fallback))
    return any(model is not None and not model.disabled for model in found)


def of_credentials(config: Config, raw: Any) -> Iterator[Finding]:  # noqa: ANN401 - parsed YAML
    """`raw`: the file as written, which names the variables and files that secrets come from."""
    for told in config.warnings:
        if isinstance(told, Warned) and told.about == "credentials":
            yield warning(CREDENTIALS, told.subject, told, _how_to_wake(told))
    for provider in config.providers.values():
        if not provider.disabled and provider.api_key:
            source = source_of(raw, provider.name)
            yield ok(CREDENTIALS, provider.name, f"a key is there{f', from {source}' if source else ''}")
    literal = [secret.where for secret in secrets_of(raw) if is_literal(secret.written)]
    if literal:
        yield warning(CREDENTIALS, config.path.name, f"secrets stand in the file itself: {', '.join(literal)}",
                      "write ${NAME} or ${file:/run/secrets/name} there, and replace the secret: "
                      "who saw the file has it")  # fmt: skip


def of_keys(config: Config, made: Sequence[StoredKey], now: datetime.datetime) -> Iterator[Finding]:
    """Once there are keys nobody is anonymous, so that one of them has to open. `made`: with `gateway keys create`."""
    if not (config.keys_declared or made):
        return
    expired = [key for key in config.keys if key.expires is not None and key.expires <= now]
    for key in expired:
        yield warning(CREDENTIALS, f"key {key.principal.key}", f"has expired at {key.expires}, so it opens nothing",
                      "give it a later `expires`, or take it out of the file")  # fmt: skip
    opens = len(config.keys) - len(expired) + sum(key.opens(now.timestamp()) for key in made)
    if opens:
        yield ok(CREDENTIALS, "keys", f"{count(opens, 'key')} of clients open{'s' if opens == 1 else ''}")
    else:
        yield failure(CREDENTIALS, "keys", "no key opens, so every request is refused with 401",
                      "`gateway keys create NAME`, or give one of `keys:` its value or a later `expires`")  # fmt: skip


def _how_to_wake(why: str) -> str:
    if name := _NOT_SET.search(why):
        return f"set {name[1]} in the environment of `gateway serve`, or take what needs it out of the file"
    if why.endswith("a directory, not a file"):
        return "name the file in it; Docker makes a directory where the file that it was to mount was not there"
    if why.endswith(os.strerror(errno.EACCES).lower()):
        return f"look as the user that serves, or let user {os.geteuid()} read that file and enter its folders"
    if "file" in why:
        return "write the secret into that file, readable by the user that serves"
    return "give it what is missing, or take it out of the file"


def source_of(raw: Any, provider: str) -> str:  # noqa: ANN401 - parsed YAML
    """The variable or file that a provider's key comes from; empty where it stands in the file, or nobody can tell."""
    written = _get(raw, "providers", provider, "api_key")
    found = _REFERENCE.search(written) if isinstance(written, str) else None
    return "" if found is None else found[2] or f"the file {found[1]}"


def secret_files(raw: Any) -> list[str]:  # noqa: ANN401 - parsed YAML
    """All that `${file:...}` names, as written: relative ones begin at the configuration's folder."""
    if isinstance(raw, dict):
        return [name for value in raw.values() for name in secret_files(value)]
    if isinstance(raw, list):
        return [name for value in raw for name in secret_files(value)]
    return [found[1] for found in _REFERENCE.finditer(raw) if found[1]] if isinstance(raw, str) else []


def secrets_of(raw: Any) -> Iterator[Secret]:  # noqa: ANN401 - parsed YAML
    """What stands where a secret belongs, as written."""
    for name, provider in _items(_get(raw, "providers")):
        yield from _secret(f"providers.{name}.api_key", _get(provider, "api_key"))
        for header, value in _items(_get(provider, "headers")):
            if SECRET.search(str(header)):
                yield from _secret(f"providers.{name}.headers.{header}", value)
        for option, value in _items(_get(provider, "options")):
            if SECRET.search(str(option)):
                yield from _secret(f"providers.{name}.options.{option}", value)
    for name, model in _items(_get(raw, "models")):
        for number, endpoint in enumerate(_list(_get(model, "endpoints"))):
            yield from _secret(f"models.{name}.endpoints[{number}].api_key", _get(endpoint, "api_key"))
    for number, key in enumerate(_list(_get(raw, "keys"))):
        yield from _secret(f"keys[{number}].value", _get(key, "value"))
    for number, hook in enumerate(_list(_get(raw, "webhooks"))):
        yield from _secret(f"webhooks[{number}].secret", _get(hook, "secret"))


def variables_in(written: str) -> list[str]:
    return [found[2] for found in _REFERENCE.finditer(written) if found[2]]


def is_literal(written: str) -> bool:
    return "${" not in written and len(written) >= _LITERAL


def _secret(where: str, value: Any) -> Iterator[Secret]:  # noqa: ANN401 - parsed YAML
    if isinstance(value, str) and value:
        yield Secret(where, value)


def _get(raw: Any, *names: str) -> Any:  # noqa: ANN401 - parsed YAML
    for name in names:
        raw = raw.get(name) if isinstance(raw, Mapping) else None
    return raw


def _items(raw: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - parsed YAML
    return list(raw.items()) if isinstance(raw, Mapping) else []


def _list(raw: Any) -> list[Any]:  # noqa: ANN401 - parsed YAML
    return raw if isinstance(raw, list) else []


def of_prices(config: Config) -> Iterator[Finding]:
    """A model without a price is a failure where a budget exists: requests to it are refused (contract section 3)."""
    unpriced = 0
    for told in config.warnings:
        if isinstance(told, Warned) and told.about == "unpriced":
            unpriced += 1
            fix = f"give models.{told.subject} a `price:` (docs/prices.md), or `price: unmetered`"
            if config.rules.budgets:
                yield failure(PRICES, told.subject, f"{told}; budgets refuse requests to it", fix)
            else:
                yield warning(PRICES, told.subject, told, fix)
        elif isinstance(told, Warned) and told.about == "price":
            yield warning(PRICES, told.subject, told, "look at its `price:` in routes.yaml (docs/prices.md)")
    awake = [model for model in config.rules.models.values() if not model.disabled]
    if awake:
        book = f"; the book is {config.price_book}" if config.price_book else ""
        yield ok(
            PRICES,
            config.path.name,
            f"{len(awake) - unpriced} of {count(len(awake), 'awake model')} with a price{book}",
        )
