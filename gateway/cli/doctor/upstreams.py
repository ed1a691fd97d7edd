"""Each upstream, asked for its list of models with the gateway's own client and credentials: it costs no tokens.

One question tells whether it is reached, how fast it answers, whether it takes the key, how far its clock is from ours
(the Date header, RFC 9110, 6.6.1), and whether it serves the models that go there.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from gateway.cli.doctor.findings import Finding, count, failure, ok, skipped, warning
from gateway.cli.doctor.settings import SECRET
from gateway.config.endpoints import place
from gateway.config.problems import nearest
from gateway.config.redact import SHOWN
from gateway.config.types import Config, ProviderConfig
from gateway.core.rules import Model
from gateway.errors import UpstreamFailure
from gateway.providers.local import LocalServer
from gateway.providers.openai import OpenAIProvider

UPSTREAM, CREDENTIALS, CLOCK, MODELS = "upstream", "credentials", "clock", "models"
LOAD_SECONDS = 60.0  # for the embedded model: 0.7 s on two free cores
SKEW_WARNING = 5.0  # seconds: budgets' windows and keys' expiry are by our clock, bills by theirs
SKEW_FAILURE = 300.0  # AWS refuses signatures from here on (docs.aws.amazon.com, "Signature Version 4", time stamps)
_LISTED = 8  # names shown
# What `UpstreamFailure` says -> what to do. The first that is found in it counts.
_FIXES: Mapping[str, str] = {
    "refused": "start the server at {place}, or correct base_url of {provider}",
    "certificate has expired": "renew the certificate of {place}; if it is not over, set the clock of this machine",
    "for another name": "write a host that its certificate names into base_url of {provider}",
    "WRONG_VERSION_NUMBER": "write http:// in base_url of {provider}, or the port of {place} that speaks TLS",
    "TLS failed": "give {provider} a `ca_file:` if its certificate is your own; write http:// if it has none",
    "timeout": "look for a firewall between here and {place}, or for an overloaded server; --timeout waits longer",
    "no connection within": "look for a firewall between here and {place}; --timeout waits longer",
    "malformed": "something else than an HTTP server answers at {place}: correct the port or scheme of base_url",
}
_ROOM = "free memory (it needs 250 MB) and a core"
_OTHERWISE = "look whether the host of base_url of {provider} is right and can be resolved and reached from here"


class Answer(NamedTuple):
    status: int
    seconds: float  # from the question to the whole answer, connecting included
    skew: float | None  # seconds that its clock is ahead of ours; None where it did not say
    models: tuple[str, ...] | None  # that it lists; None where what came is no list
    owners: frozenset[str] = frozenset()  # `owned_by` of these


async def look(config: Config, name: str, timeout: float) -> list[Finding]:  # noqa: ASYNC109 - one number
    """Everything about the provider or endpoint `name`, which is awake."""
    provider = config.providers[name]
    if provider.dialect == "litellm":
        if importlib.util.find_spec("litellm") is None:
            return [failure(UPSTREAM, name, "litellm is not installed", "install the locked packages: scripts/demo, "
                            "or pip install open-model-gateway")]  # fmt: skip
        return [skipped(UPSTREAM, name, "is reached through litellm, which has no question that costs nothing")]
    models = reaching(config, name)
    if provider.dialect == "local":
        return await _embedded(provider, max(timeout, LOAD_SECONDS))
    try:
        answer = await _ask(provider, timeout)
        if answer.status == 404:
            below = provider._replace(base_url=f"{provider.base_url}/v1")
            answer_below = await _ask(below, timeout) if "/v1" not in provider.base_url else None
            if answer_below is not None and answer_below.status in (200, 401, 403):
                return [_without_v1(name, provider)]
    except UpstreamFailure as error:
        return [_unreached(provider, error)]
    except (ValueError, OSError) as error:  # a header that cannot be sent, a CA file
        return [failure(UPSTREAM, name, f"cannot be used: {error}", f"correct providers.{name} in routes.yaml")]
    return list(judge(provider, answer, models))


async def _ask(provider: ProviderConfig, timeout: float) -> Answer:  # noqa: ASYNC109 - one number
    client = OpenAIProvider(provider, max_idle=0)
    try:
        before, began = time.time(), time.perf_counter()
        answer = await client.models(timeout)
        seconds, after = time.perf_counter() - began, time.time()
        try:
            body = await answer.read(1 << 30)  # it has been read already, up to the provider's own limit
        except UpstreamFailure:
            body = b""
        listed, owners = listed_in(body) if answer.status == 200 else (None, frozenset())
        return Answer(answer.status, seconds, skew(answer.headers.get("date"), before, after), listed, owners)
    finally:
        await client.close()


async def _embedded(provider: ProviderConfig, seconds: float) -> list[Finding]:
    """Starts one of its own, as `serve` does, asks it, and ends it: 250 MB for some seconds."""
    fix = "pip install 'open-model-gateway[local]', or take the provider out of routes.yaml"
    server = LocalServer(provider.options)
    if why := server.missing():
        return [failure(UPSTREAM, provider.name, why, fix)]
    began = time.perf_counter()
    await server.start()
    try:
        if not await server.wait_ready(seconds):
            why = server.failure or f"{server.what} was not ready within {seconds:g} s"
            again = "install it again: pip install --force-reinstall 'open-model-gateway[local]'"
            first = "install the library that it names" if "cannot be loaded" in why else _ROOM
            return [failure(UPSTREAM, provider.name, why, f"{first}, or {again}")]
        loaded = time.perf_counter() - began
        answer = await _ask(provider._replace(base_url=server.base_url, api_key=server.api_key), seconds)
    except UpstreamFailure as error:
        return [failure(UPSTREAM, provider.name, f"{server.what} does not answer: {error.message}", fix)]
    finally:
        await server.stop()
    found = f"the embedded model loads in {loaded:.1f} s and answers in {_ms(answer.seconds)}"
    return [ok(UPSTREAM, provider.name, found, {"load_seconds": loaded, "latency_seconds": answer.seconds})]


# The rest is pure.


def reaching(config: Config, provider: str) -> list[Model]:
    """The awake models that are reached through a provider or an endpoint."""
    return [
        model
        for model in config.rules.models.values()
        if not model.disabled and provider in {each.provider or model.provider for each in model.replicas}
    ]


def used(config: Config) -> list[str]:
    """Providers and endpoints to ask: awake, with an address, and with something that goes there."""
    return [
        name
        for name, provider in config.providers.items()
        if not provider.disabled and (provider.passthrough or reaching(config, name))
    ]


def judge(provider: ProviderConfig, answer: Answer, models: Sequence[Model]) -> Iterator[Finding]:
    name = provider.name
    if (told := _refused(provider, answer.status)) is not None:
        yield told
        return
    latency = {"latency_seconds": answer.seconds}
    found = f"answers in {_ms(answer.seconds)}"
    if answer.models is not None:
        yield ok(UPSTREAM, name, f"{found}, lists {count(len(answer.models), 'model')}", latency)
        yield from not_served(provider, answer, models)
    elif answer.status == 200:
        yield warning(UPSTREAM, name, f"{found}, but with something that is no list of models",
                      f"see whether base_url of {name} is the API's own (it usually ends in /v1)")  # fmt: skip
    else:
        yield ok(UPSTREAM, name, f"{found} ({answer.status}: it has no list of models)", latency)
    yield from _clock(name, answer.skew)


def _refused(provider: ProviderConfig, status: int) -> Finding | None:
    """What a status says that is no answer about models."""
    name = provider.name
    if status in (401, 403):
        what = "the key is refused" if provider.api_key else "a key is wanted, and none is configured"
        return failure(CREDENTIALS, name, f"{what} ({status} from {_place(provider)})",
                       f"put a key that is valid there where api_key of {name} comes from, and restart the gateway: "
                       "a running process keeps its environment")  # fmt: skip
    if status == 402:
        return failure(CREDENTIALS, name, "the account has no money left (402)", "top it up at the provider")
    if 300 <= status < 400:
        found = f"sends us elsewhere ({status} from {_place(provider)}); no redirect is followed, so requests fail"
        return failure(UPSTREAM, name, found,
                       f"write the address that answers itself as base_url of {name}: "
                       "https:// for http://, or the host without its front page")  # fmt: skip
    if status == 429:
        return warning(UPSTREAM, name, "is there, but limits how often we may ask (429)",
                       "wait, or ask the provider for a higher limit")  # fmt: skip
    if status >= 500 and status not in (501, 505):  # as `alive` counts them
        return failure(UPSTREAM, name, f"answers {status} from {_place(provider)}",
                       "look into that server's own log: it runs, and cannot serve")  # fmt: skip
    return None


def _clock(name: str, ahead: float | None) -> Iterator[Finding]:
    if ahead is None:
        return
    if abs(ahead) < SKEW_WARNING:
        yield Finding(CLOCK, name, "ok", "its clock is ours", measured={"skew_seconds": ahead})
        return
    which = "ahead of" if ahead > 0 else "behind"
    make = failure if abs(ahead) >= SKEW_FAILURE else warning
    found = f"its clock is {abs(ahead):.0f} s {which} ours: windows of budgets, expiry and signatures go by the clock"
    told = make(CLOCK, name, found, "set the clock that is wrong by NTP (`timedatectl set-ntp true`); "
                "if other upstreams agree with this one, it is ours")  # fmt: skip
    yield told._replace(measured={"skew_seconds": ahead})


def not_served(provider: ProviderConfig, answer: Answer, models: Sequence[Model]) -> Iterator[Finding]:
    """A self-hosted server lists all that it serves; an API may serve more than its list shows (aliases, snapshots)."""
    served = answer.models or ()
    if provider.server in ("llamacpp", "azure") or "llamacpp" in answer.owners:
        return  # the one serves its model under any name, the other lists no deployments
    for model in models:
        name = model.upstream_name
        if not name or is_served(name, served):  # "": a wildcard, whose names come from clients
            continue
        known = shown(provider, served)
        listed = ", ".join(known[:_LISTED]) + (", ..." if len(known) > _LISTED else "")
        found = f"{provider.name} does not list {name}; it lists {listed or 'none'}"
        near = nearest(name, known)
        fix = f"write `model: {near or '...'}` at models.{model.name}, or serve {name} there"
        if model.hosting == "self":
            yield failure(MODELS, model.name, found, fix)
        else:
            yield warning(MODELS, model.name, found, f"{fix}; an API may know names that it does not list")


def shown(provider: ProviderConfig, served: Sequence[str]) -> list[str]:
    """Names that an upstream gave, without those that hold a credential we sent it: of any length, as a word too.

    Nothing else that upstreams say is shown; what is shown is cleaned once more, of longer secrets (`findings.py`).
    """
    headers = [value for name, value in provider.headers.items() if SECRET.search(name)]
    sent = {value.rpartition(" ")[2] for value in (provider.api_key, *headers)} - {""}  # "Bearer" may go before it
    return [SHOWN if any(secret in name for secret in sent) else name for name in served]


def is_served(name: str, served: Sequence[str]) -> bool:
    """Ollama lists `llama3.2:latest` for `llama3.2`, Gemini `models/NAME`, Hugging Face NAME for `NAME:provider`."""
    names = set(served)
    return not names.isdisjoint({name, f"{name}:latest", f"models/{name}", name.partition(":")[0]})


def skew(date: str | None, before: float, after: float) -> float | None:
    """Seconds that a clock is ahead of ours, which stood at `before` and `after` around its answer.

    A Date has whole seconds: its clock was somewhere within the second. 0 where the two could be equal.
    """
    if date is None:
        return None
    try:
        said = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, said - after) or min(0.0, said + 1 - before)


def listed_in(body: bytes) -> tuple[tuple[str, ...] | None, frozenset[str]]:
    """The names in a list of models (platform.openai.com/docs/api-reference/models/list), and who owns them."""
    try:
        data = json.loads(body)["data"]
        rows = [row for row in data if isinstance(row, dict)]
        return tuple(str(row["id"]) for row in rows), frozenset(str(row.get("owned_by", "")) for row in rows)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, frozenset()


def _unreached(provider: ProviderConfig, error: UpstreamFailure) -> Finding:
    said = error.message if error.kind == "connect" else f"{error.kind}: {error.message}"
    fix = next((fix for words, fix in _FIXES.items() if words.lower() in said.lower()), _OTHERWISE)
    found = f"is not reached at {_place(provider)}: {said}"
    return failure(UPSTREAM, provider.name, found, fix.format(place=_place(provider), provider=provider.name))


def _without_v1(name: str, provider: ProviderConfig) -> Finding:
    return failure(UPSTREAM, name, f"base_url lacks its path: {_place(provider)} knows /v1/models, not /models",
                   f"end base_url of {name} in /v1")  # fmt: skip


def _place(provider: ProviderConfig) -> str:
    return place(provider.base_url)[0]


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
