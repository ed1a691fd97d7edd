"""`budgets`, `limits`, `keys` and `webhooks` of the validated file -> the core's types."""

from __future__ import annotations

import hashlib
import zoneinfo
from collections.abc import Iterable

from gateway.config import schema_spending as schema
from gateway.config.consistency import KEY
from gateway.config.interpolate import Missing
from gateway.config.problems import Warned
from gateway.config.schema_base import Match as WrittenMatch
from gateway.config.types import Key, Webhook
from gateway.core.budgets import Action, Budget, Threshold, Window
from gateway.core.call import Principal
from gateway.core.limits import Limit
from gateway.core.pricing import NANO_PER_USD
from gateway.core.rules import Match


def budgets(written: Iterable[schema.Budget]) -> tuple[Budget, ...]:
    return tuple(
        spending(each, each.name)._replace(match=match(each.match or WrittenMatch()), per=each.per or "")
        for each in written
    )


def spending(written: schema.Spending, name: str) -> Budget:
    """One limit on money. Where nothing is said about 100%, it rejects."""
    at = {percent: Action[action.upper()] for percent, action in (written.at or {}).items()}
    at.setdefault(100, Action.REJECT)
    return Budget(
        name=name,
        limit_nano=int(written.limit_usd * NANO_PER_USD),
        window=Window(written.window, zoneinfo.ZoneInfo(written.timezone)),
        counts=written.counts,
        at=tuple(Threshold(*each) for each in sorted(at.items())),
    )


def limits(written: Iterable[schema.Limit]) -> tuple[Limit, ...]:
    return tuple(
        ceilings(each, f"limits[{index}]")._replace(match=match(each.match or WrittenMatch()), per=each.per or "")
        for index, each in enumerate(written)
    )


def ceilings(written: schema.Ceilings, name: str) -> Limit:
    return Limit(
        name,
        requests_per_minute=written.requests_per_minute,
        tokens_per_minute=written.tokens_per_minute,
        max_in_flight=written.max_in_flight,
    )


def keys(written: Iterable[schema.Key], warnings: list[str]) -> tuple[Key, ...]:
    found = []
    for key in written:
        if isinstance(key.value, Missing):
            text = f"key {key.name} opens nothing: {key.value.why}"
            warnings.append(Warned(text, "credentials", f"key {key.name}"))
            continue
        found.append(Key(hashlib.sha256(key.value.encode()).digest(), principal(key), key.expires))
    return tuple(found)


def principal(key: schema.KeySettings) -> Principal:
    return Principal(
        key=key.name,
        team=key.team or "",
        user=key.user or "",
        tags=frozenset(key.tags or ()),
        allow=tuple(key.allow or ("*",)),
        budgets=(spending(key.budget, KEY + key.name),) if key.budget else (),
        limits=(ceilings(key.limits, KEY + key.name),) if key.limits else (),
    )


def webhooks(written: Iterable[schema.Webhook], warnings: list[str]) -> tuple[Webhook, ...]:
    found = []
    for index, hook in enumerate(written):
        missing = next((each for each in (hook.url, hook.secret) if isinstance(each, Missing)), None)
        if missing is not None or not hook.url:
            text = f"webhooks[{index}] is told nothing: {missing.why if missing else 'its url is empty'}"
            warnings.append(Warned(text, "credentials", f"webhooks[{index}]"))
            continue
        found.append(Webhook(str(hook.url), str(hook.secret or ""), frozenset(hook.events)))
    return tuple(found)


def match(written: WrittenMatch) -> Match:
    def globs(value: list[str] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(value)

    return Match(
        model=globs(written.model),
        task=globs(written.task),
        key=globs(written.key),
        team=globs(written.team),
        tag=globs(written.tag),
        has=None if written.has is None else frozenset(written.has),
        min_input_tokens=written.min_input_tokens,
        max_input_tokens=written.max_input_tokens,
    )
