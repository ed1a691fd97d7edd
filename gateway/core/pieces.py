"""What is not sold by the token, or may be: pictures, speech, sound that is heard, rankings.

For each it says what an answer that reports no tokens is taken to have used, and what a call may use at most. Which of
them an endpoint has is `Form.sold`; docs/decisions/0020-other-endpoints.md says why each is counted so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gateway.core.call import Call
from gateway.core.inputs import document_sizes
from gateway.core.pricing import MoreRates, Price
from gateway.core.usage import More, Usage, estimate_tokens, text_bytes

# Estimates, used only where an answer says nothing. 150 words of 6 letters a minute are spoken; a second of sound is 20
# tokens where it is made and 10 where it is heard (platform.openai.com/docs/guides/realtime-costs).
LETTERS_A_SECOND = 15
TOKENS_MADE, TOKENS_HEARD = 20, 10

_PIECES = ("images", "milliseconds", "characters")  # that are counted only where an answer reports no tokens
DOCUMENTS_A_UNIT = 100  # docs.cohere.com/docs/how-does-cohere-pricing-work: a query with up to so many documents
TOKENS_A_CHUNK = 500  # the same: a longer document, the query's length counted with it, is several
_STAMP = re.compile(rb"-->[ \t]*+(?:([0-9]{1,4}):)?([0-9]{1,2}):([0-9]{2})[,.]([0-9]{3})")  # SubRip and WebVTT


class Piece(NamedTuple):
    """`number`: of a call, how many there are in an answer with so many bytes of text."""

    rate: str  # the field of MoreRates, and of More, that it is sold by
    number: Callable[[Call, int], int]
    exact: bool  # whether that is known, not an estimate
    most: Callable[[Call], int | None]  # at most; None: nobody can tell
    word: str  # for people: what has no price, or no bound
    price: str  # how to write the price
    asked: bool = True  # it is the request that holds them: charged whenever it was read, answered or not


def unanswered(call: Call, price: Price | None) -> Usage | None:
    """What is charged where no answer came, but the request was read; None: its tokens, as anywhere."""
    piece = piece_of(call, price)
    return assumed(call, price) if piece is not None and piece.asked else None


def piece_of(call: Call, price: Price | None) -> Piece | None:
    """What the call's answer is sold by; speech by the second where the price is for that alone."""
    rates = more_rates(price)
    if call.form.sold == "speech" and rates is not None and rates.milliseconds and not rates.characters:
        return SPOKEN
    return PIECES.get(call.form.sold)


def assumed(call: Call, price: Price | None, size: int = 0, made: int = 0) -> Usage | None:
    """What is charged where an answer reports nothing; None: tokens are estimated as anywhere.

    `size`: bytes of text in the answer; `made`: pictures.
    """
    piece = piece_of(call, price)
    if piece is None:
        return None
    count = made if made and not piece.asked else piece.number(call, size)
    counted: dict[str, Any] = {piece.rate: count}
    more = More(**counted)
    rates = more_rates(price)
    if price is None or price.rates is None or (rates is not None and getattr(rates, piece.rate)):
        return Usage(more=more, estimated=not piece.exact)
    if call.form.sold == "speech":
        spoken = -(-count * TOKENS_MADE // LETTERS_A_SECOND)
        return Usage(call.estimated_input, output=spoken, estimated=True, more=More(audio_output=spoken))
    if call.form.sold == "sound":
        heard = count * TOKENS_HEARD // 1000
        return Usage(heard, output=estimate_tokens(size), estimated=True, more=More(audio_input=heard))
    return Usage(call.estimated_input, estimated=True, more=more)


def priced(usage: Usage, price: Price | None) -> Price | None:
    """The price, unless it says nothing of what was used: pictures at a price for characters have none."""
    more = usage.more
    if more is None or price is None or price.rates is None:
        return price
    alone = () if usage.total_input or usage.total_output else ("searches",)  # else they come beside tokens
    pieces = [name for name in (*_PIECES, *alone) if getattr(more, name)]
    rates = price.rates.more
    known = rates is not None and all(getattr(rates, name) for name in pieces)
    free = not any(price.rates[:5]) and not any(rates or ())
    return price if known or free or not pieces else None


def more_rates(price: Price | None) -> MoreRates | None:
    return price.rates.more if price is not None and price.rates is not None else None


def last_stamp(body: bytes) -> float | None:
    """Seconds at which the last subtitle ends; None where there is none."""
    found = _STAMP.findall(body)
    if not found:
        return None
    hours, minutes, seconds, thousandths = (int(part or 0) for part in found[-1])
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000


def repeated_input(call: Call) -> int:
    """Tokens at most that a call's input counts beyond those of its own text: a ranking reads its query each time."""
    if call.form.sold != "searches":
        return 0
    return (call.items - 1) * 2 * len(call.source("query"))


def _images(call: Call, _: int = 0) -> int:
    return call.n


def _characters(call: Call, _: int = 0) -> int:
    return call.characters


def _spoken(call: Call, _: int = 0) -> int:
    return -(-call.characters * 1000 // LETTERS_A_SECOND)


def _heard(_: Call, size: int) -> int:
    """Milliseconds, by what was said; a second at least."""
    return max(1000, size * 1000 // LETTERS_A_SECOND)


def _units(call: Call, _: int = 0) -> int:
    """Units of ranking at most: no chunk of a document is shorter than what the query leaves room for."""
    query = call.decoded("query")
    room = max(1, TOKENS_A_CHUNK - (text_bytes(query) if isinstance(query, str) else TOKENS_A_CHUNK))
    chunks = sum(max(1, -(-size // room)) for size in document_sizes(call.decoded("documents")))
    return max(1, -(-chunks // DOCUMENTS_A_UNIT))


def _nobody_can_tell(_: Call) -> None:
    """A file's length says nothing: Opus writes silence with some 50 bytes a second."""


SPOKEN = Piece("milliseconds", _spoken, False, _nobody_can_tell, "speech", "per_character: ...")
PIECES: Mapping[str, Piece] = {
    "images": Piece("images", _images, True, _images, "a picture", "per_image: ...", asked=False),
    "speech": Piece("characters", _characters, True, _characters, "speech", "per_character: ..."),
    "sound": Piece("milliseconds", _heard, False, _nobody_can_tell, "sound", "per_second: ..."),
    "searches": Piece("searches", _units, False, _units, "a ranking", "input: 0, output: 0, per_search: ..."),
}
