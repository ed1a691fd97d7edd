"""Calls of one dialect for servers that only speak another: one file a direction, a row each in `TRANSLATIONS`.

A server that has the client's API itself gets the client's bytes; nothing here touches them.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.call import Call
from gateway.core.dialects import adapted
from gateway.core.forms import Endpoint
from gateway.core.rules import Model, Target
from gateway.core.translate.base import NONE_LOST, Events, Losses, Translation
from gateway.core.translate.messages_to_chat import MESSAGES_TO_CHAT
from gateway.core.translate.responses_to_chat import RESPONSES_TO_CHAT

__all__ = ["TRANSLATIONS", "Events", "Losses", "Translation", "dropped", "losses", "outgoing", "translation"]

TRANSLATIONS: Mapping[tuple[Endpoint, str], Translation] = {
    (Endpoint.MESSAGES, "chat"): MESSAGES_TO_CHAT,
    (Endpoint.RESPONSES, "chat"): RESPONSES_TO_CHAT,
}
"""By the client's endpoint and an API of the server's; where it has several, the first row that fits."""


def translation(call: Call, model: Model) -> Translation | None:
    """That a model's server needs for a call: None where it has the client's API, or nothing leads there."""
    if call.form.api in model.apis:
        return None
    return next(
        (found for (ours, api), found in TRANSLATIONS.items() if ours is call.endpoint and api in model.apis), None
    )


def losses(call: Call, model: Model) -> Losses:
    """What a model's server cannot be given of a call. Names of dropped members are the client's, or the server's."""
    found = translation(call, model)
    if found is None:
        return NONE_LOST
    lost = call.once(found.obstacles)
    if lost.refused:
        return lost
    unknown = _unknown(call.once(found.request), model)
    if call.prefilled and "prefill" not in model.supports:
        return lost._replace(refused=("an answer that the client has begun (`supports: [prefill]` of the model)",))
    return lost._replace(dropped=(*lost.dropped, *sorted(unknown))) if unknown else lost


def outgoing(call: Call, model: Model) -> Call:
    """The call as a model's server gets it, but for the model's own `set` and `drop`."""
    found = translation(call, model)
    if found is None:
        return call
    made = call.once(found.request)
    edits: dict[str, bytes | None] = dict.fromkeys(_unknown(made, model))
    if found.to is Endpoint.CHAT and model.cap_name != _CAP and (cap := made.source(_CAP)):
        edits |= {_CAP: None, model.cap_name: cap}
    if call.prefilled and found.prefill is not None:
        edits |= {name: made.encode(value) for name, value in found.prefill.items()}
    return made.edited(edits) if edits else made


def dropped(call: Call, target: Target) -> tuple[str, ...]:
    """What a target is not given of a call, by translation and by its server's dialect."""
    model = target.model
    lost = losses(call, model)
    if lost.refused or not model.server:
        return lost.dropped
    return lost.dropped + adapted(outgoing(call, model), model, target.upstream_name).dropped


def _unknown(made: Call, model: Model) -> frozenset[str]:
    """Members that translations make where they can, of which a server is known to refuse some."""
    unknown = set()
    if "reasoning" not in model.supports:
        unknown.add("reasoning_effort")  # OpenAI: "Unsupported parameter" for models that do not reason
    if model.server in ("openai", "azure"):
        unknown.add("top_k")  # OpenAI knows none: platform.openai.com/docs/api-reference/chat/create
    return made.holds(frozenset(unknown))


_CAP = "max_tokens"
