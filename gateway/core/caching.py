"""Which answers may be given again, and under which name they are kept: `cache:` of a route.

An answer is given again only for the very same bytes from the same tenant under the same configuration, and only where
the request asks for an answer that does not vary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from gateway.core.call import Call, Endpoint, Principal

LONGEST = 1024 * 1024  # bytes of an answer that is kept
_ALWAYS_THE_SAME = frozenset({Endpoint.EMBEDDINGS})
# Members that make the answer depend on something that is not in the request, or be more than an answer; and the values
# with which they do not.
_OUTSIDE: Mapping[str, tuple[object, ...]] = {
    "previous_response_id": (),
    "conversation": (),
    "prompt_template": (),
    "background": (False,),
    "web_search_options": (),
    "search_parameters": (),
    "enable_search": (False,),
    "plugins": ([],),
}
_OUTSIDE_NAMES = frozenset(_OUTSIDE)
_FRESH = frozenset({"no-cache", "max-age=0"})
_OWN_TOOLS = ("function", "custom")


class Cache(NamedTuple):
    """`cache:` of a route."""

    ttl: float  # seconds


class Kept(NamedTuple):
    """An answer as the client got it."""

    content_type: str
    body: bytes
    model: str
    provider: str
    hosting: str
    cost_nano: int  # what it cost when it was made


class Policy(NamedTuple):
    """What a request lets be done with its answer. `why_not`: for people, where it is neither read nor kept."""

    read: bool
    keep: bool
    why_not: str = ""


def policy(call: Call) -> Policy:
    """RFC 9111, 5.2.1: `no-store` keeps nothing and, as nobody wants one without the other, reads nothing; `no-cache`
    wants a fresh answer, which is kept; so does `max-age=0`, as browsers say it.
    """
    wishes = {wish.strip().lower() for wish in call.headers.get("cache-control", "").split(",")}
    why_not = "cache-control: no-store" if "no-store" in wishes else _varies(call)
    return Policy(read=not why_not and wishes.isdisjoint(_FRESH), keep=not why_not, why_not=why_not)


def key(call: Call, principal: Principal, route: str, config_hash: str) -> bytes:
    """32 bytes. The tenant is the key's team, else the key: nobody is given what another tenant asked for."""
    tenant = ("team", principal.team) if principal.team else ("key", principal.key)
    digest = hashlib.sha256()
    for part in (config_hash, route, *tenant, call.endpoint, *_asked(call)):
        data = part.encode(errors="replace")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    digest.update(call.body)
    return digest.digest()


def _asked(call: Call) -> Iterator[str]:
    """What else of the request decides on the answer, or on who gives it."""
    for name in sorted(call.headers):
        if name.startswith("anthropic-") or name == "openai-beta":  # they go upstream
            yield f"{name}: {call.headers[name]}"
    yield str(call.hints.no_fallback)
    yield str(call.hints.max_cost_nano_usd)


def _varies(call: Call) -> str:
    """Why two answers to it may differ; empty where they should not."""
    if call.endpoint not in _ALWAYS_THE_SAME:
        temperature = call.decoded("temperature")
        if isinstance(temperature, bool) or temperature != 0:
            return "temperature is not 0"
        if call.choices > 1:
            return "several answers are asked for"
    if call.parts is not None:
        return "files are not compared"
    if call.remote:
        return "an image or file is only an address"
    for name in call.holds(_OUTSIDE_NAMES):
        value = call.decoded(name)
        if value is not None and value not in _OUTSIDE[name]:
            return f"`{name}`"
    if call.endpoint is Endpoint.RESPONSES and call.decoded("store") is not False:
        return "the provider keeps it under an id (`store` is not false)"
    tools = call.decoded("tools") if "tools" in call.has else None
    if any(isinstance(tool, dict) and tool.get("type", "function") not in _OWN_TOOLS for tool in tools or ()):
        return "a tool that the provider runs"
    return ""
