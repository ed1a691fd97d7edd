"""Requests that go on from what one provider keeps: `/v1/responses` with a previous response, a conversation, a prompt.

Ids come back to clients as the provider gave them, so an id does not say whose it is; `Signals.owners` remembers that
of the responses that passed here. Such a request goes to the owner alone, without a fallback: nobody else has the
context. Where the owner is not known (after a restart, or for ids made elsewhere), the first target that may be it is
asked, and its word is the client's answer (docs/decisions/0019-responses.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from gateway.core.call import Call, Json
from gateway.core.failures import Kind, Refusal, judge_refusal
from gateway.core.rules import Signals, Skipped, Target
from gateway.core.sse import Framer
from gateway.errors import RequestError

PREVIOUS = "previous_response_id"
_REFERENCE = "item_reference"
_ID = re.compile(r"[A-Za-z]{2,8}_[A-Za-z0-9_-]{6,128}")
_LONGEST = 64  # characters of an id that are repeated in messages


def stored(call: Call) -> tuple[str, ...]:
    """Members that refer to what only one provider has; empty for nearly all calls."""
    return call.once(_stored) if call.form.kept else ()


def owner_key(response_id: str) -> bytes:
    """16 bytes, by which the owner of a response is remembered."""
    return blake2b(response_id.encode(errors="replace"), digest_size=16).digest()


def of_owner(targets: Sequence[Target], call: Call, signals: Signals) -> tuple[list[Target], list[Skipped]]:
    """The one target that such a call may go to, and why the others are left out.

    Raises RequestError 400 where the owner of the previous response is known and not among the targets.
    """
    names = stored(call)
    previous = call.decoded(PREVIOUS)
    owner = signals.owners.get(owner_key(previous)) if isinstance(previous, str) and previous else None
    if owner is None:
        chosen = targets[0]._replace(why=f"{targets[0].why}; only one is asked, because of {', '.join(names)}")
    else:
        found = next((each for each in targets if (each.model.name, each.replica.name) == owner), None)
        if found is None:
            message = f"the response {str(previous)[:_LONGEST]!r} is kept by the model {owner[0]}"
            raise RequestError(f"{message}, which cannot serve this request", param=PREVIOUS)
        chosen = found._replace(why=f"keeps the previous response; {found.why}", fallback=False)
    left = [each for each in targets if each.model.name != chosen.model.name]
    return [chosen], [Skipped(each.model.name, f"does not keep what {', '.join(names)} names") for each in left]


def judged(call: Call, status: int, headers: Mapping[str, str], reason: Refusal) -> Kind | None:
    """As `judge_refusal`, but a 404 about an id in the request is the request's own fault: nothing is missing of ours.

    vLLM says it of responses, OpenAI of items. With such ids a client could otherwise shut out a model for all.
    """
    if status == 404 and call.form.kept:
        named = (name for name in _ID.findall(reason.message) if name not in call.model)
        if any(name.encode() in call.body for name in named):
            return None
    return judge_refusal(status, headers, reason)


def response_id(body: bytes, json: Json) -> str:
    """Of a whole response, or of the stream that these bytes begin; empty where they show none."""
    events = Framer().feed(body) if body[:1] != b"{" else []
    for data in [event.data for event in events if event.data is not None] or [body]:
        try:
            members = json.members(data)
            source = members.get("response", b"")
            named = json.members(bytes(source)).get("id") if source else members.get("id")
            found = json.loads(bytes(named)) if named is not None else None
        except ValueError:
            continue
        if isinstance(found, str):
            return found
    return ""


def _stored(call: Call) -> tuple[str, ...]:
    names = [name for name in call.form.kept if call.source(name)]
    given = call.decoded(call.form.content)
    if isinstance(given, list) and any(map(_refers, given)):
        names.append(f"{call.form.content}: {_REFERENCE}")
    return tuple(names)


def _refers(item: Any) -> bool:  # noqa: ANN401 - JSON can be anything
    """By its id alone: a picture's, too (platform.openai.com/docs/guides/image-generation, "Multi-turn editing")."""
    if not isinstance(item, dict):
        return False
    picture = item.get("type") == "image_generation_call" and not item.get("result")
    return picture or item.get("type") == _REFERENCE or item.keys() == {"id"}
