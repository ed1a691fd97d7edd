"""Which conversation a call belongs to, and whether its model must stay: `sticky: session` of a route.

A model is also kept where the history holds what another could not go on with: tool calls, whose ids and arguments are
in the words of one model, and signed thinking, which only its own provider accepts (Anthropic's "extended thinking",
OpenRouter's `reasoning_details`, Gemini's `thought_signature`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from gateway.core.call import Call, Principal
from gateway.core.index import LineUp
from gateway.core.rules import Model, Signals, Target

Place = tuple[str, str]
"""A model and one of its replicas, by name."""

_LEADING = 64 * 1024  # bytes of messages that may tell conversations apart
_SEPARATOR = re.compile(r"[ \t\n\r]*+[\[,][ \t\n\r]*+")
_KEPT = "kept for this conversation"


class Conversation(NamedTuple):
    """What a plan knows of the call's conversation; what is needed to remember who served it."""

    key: bytes = b""  # 16 bytes; empty: not worked out, because there was nothing to look up
    session: str = ""  # what its replica is found by
    kept: Place | None = None  # who served it before
    sticky: bool = False  # its model stays too, not only the replica
    anew: str = ""  # the model that any worker would choose for it without a memory; empty: they may differ


_NOTHING_YET = Conversation()


def session_key(call: Call) -> str:
    """`x-session-id`, else a hash of the messages up to the first of the user, as they are written; "" without any.

    Callers see to it that sessions of different keys never mix.
    """
    if call.hints.session:
        return call.hints.session
    if not call.form.turns:
        return ""
    leading = call.source(call.form.content)[:_LEADING]
    return blake2b(leading[: _end_of_opening(leading)], digest_size=16).hexdigest()


def must_stick(call: Call) -> bool:
    """Whether the model stays without `sticky: session`; found in the one look at messages that all calls get."""
    return call.tied


def conversation_of(line_up: LineUp, call: Call, principal: Principal, signals: Signals) -> Conversation | None:
    """None: the call needs no memory, or belongs to no conversation."""
    route = line_up.route
    ties = line_up.alternatives and (route.sticky or must_stick(call))
    if ties or line_up.replicated:
        session = session_key(call)
        if not session:
            return None
        key = conversation_key(principal, route.name, session)
        # A client's own id may be anything, such as "1", so it is told apart by who says it.
        known_as = f"{principal.key}\0{session}" if call.hints.session else session
        return Conversation(key, known_as, signals.kept.get(key), ties)
    return _NOTHING_YET if line_up.alternatives and (line_up.reasons or "tools" in call.has) else None


def conversation_key(principal: Principal, route: str, session: str) -> bytes:
    """16 bytes. None of these holds a NUL."""
    return blake2b(f"{principal.key}\0{route}\0{session}".encode(), digest_size=16).digest()


def worth_keeping(call: Call, model: Model) -> bool:
    """Whether the answer may hold what ties a conversation to a model."""
    return "tools" in call.has or "reasoning" in model.supports


def roll_of(key: bytes) -> float:
    """The dice of a conversation, in [0, 1): the same on every worker and after a restart."""
    return (int.from_bytes(key[:8]) >> 11) * 2.0**-53


def kept_first(targets: Sequence[Target], conversation: Conversation, signals: Signals) -> list[Target]:
    """The model that served the conversation before goes first, where it is still among them and not blocked."""
    kept = conversation.kept
    index = next((at for at, target in enumerate(targets) if kept is not None and target.model.name == kept[0]), None)
    if index is None or _blocked(targets[index].model, signals):
        return list(targets)
    # No fallback any more: for this conversation it is the first choice.
    return [targets[index]._replace(why=_KEPT, fallback=False), *targets[:index], *targets[index + 1 :]]


def _blocked(model: Model, signals: Signals) -> bool:
    """Whether no replica of a model may be tried now."""
    standings = [signals.standing.get((model.name, replica.name)) for replica in model.replicas]
    return all(standing is not None and standing.blocked for standing in standings)


def _end_of_opening(leading: bytes) -> int:
    """Where the first message of the user ends; the end of `leading` where that is not in it."""
    text = leading.decode("latin-1")  # one character a byte; what JSON is made of is ASCII
    position = 0
    try:
        while separator := _SEPARATOR.match(text, position):
            message, position = _decode(text, separator.end())
            if isinstance(message, dict) and message.get("role") == "user":
                return position
    except (ValueError, RecursionError):
        pass  # a message is longer than what is looked at, or deeper than it is worth
    return len(leading)


_decode = json.JSONDecoder().raw_decode
