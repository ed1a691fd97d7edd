"""A request whose members are carried over one by one: what the translations to chat share.

Two tables say how. `carried`: a function a member, which writes what the other API has for it, and notes what it lacks.
`lost`: of members that the other API lacks, whether the answer means the same without them; then they are dropped, else
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway.core import splice
from gateway.core.call import Call
from gateway.core.fields import Fields
from gateway.core.forms import Endpoint
from gateway.core.translate.base import Losses, Notes

Body = dict[str, Any]
Carry = Callable[[Any, Body, Notes], None]  # takes the member's value, never null


class Made(NamedTuple):
    body: Body
    losses: Losses


def carry(
    call: Call, carried: Mapping[str, Carry], lost: Mapping[str, bool], apart: frozenset[str]
) -> tuple[Body, Notes]:
    """The members in the order of the client's, but for those `apart`, which are for the caller to write.

    A member that nobody knows goes as it is: it may be one of the server's own.
    """
    notes, body = Notes(), Body()
    for name in call.names:
        value = call.decoded(name)
        if value is None:
            continue
        if name in carried:
            carried[name](value, body, notes)
        elif name in lost:
            (notes.drop if lost[name] else notes.refuse)(name)
        elif name not in apart:
            body[name] = value
    return body, notes


def same(name: str) -> Carry:
    """Its value as it is, under the other API's name."""

    def write(value: Any, body: Body, _notes: Notes) -> None:  # noqa: ANN401 - JSON can be anything
        body[name] = value

    return write


def chat(call: Call, made: Body, headers: Mapping[str, str]) -> Call:
    """The call of chat that has this body."""
    body = call.codec.dumps(made)
    return Call(Endpoint.CHAT, headers, Fields(body, splice.spans(body, call.codec), call.codec), call.codec)
