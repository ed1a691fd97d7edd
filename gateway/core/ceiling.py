"""The most that one attempt can cost: what is held in the budgets before it is made (contract section 3).

**Input.** Byte-level BPE and SentencePiece with byte fallback make at most one token of each UTF-8 byte of a text;
those without fallback at most one of each character. A JSON body is at least as long as the texts in it, and its syntax
around each message (28 bytes) is longer than what chat templates put there (ChatML, Llama 3, Gemma, Harmony: 3 to 7
tokens). So a body has at most as many tokens as bytes, plus what a template adds to the whole. Before that, a tokenizer
may normalise: not at all, NFC (Qwen), NFKC (Claude 2) or NFD (BERT). So the bytes are those of the body, or of its NFD
or NFKD where they are more: composition, which makes NFC and NFKC of them, never makes UTF-8 longer. It is never more
than the model's context window, beyond which servers refuse.

**Output.** The client's cap, for each answer that is made. Without one: as `_output` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from unicodedata import normalize

from gateway.core.call import Call
from gateway.core.pieces import more_rates, piece_of, repeated_input
from gateway.core.pricing import Price, cost
from gateway.core.rules import Target
from gateway.core.stored import stored
from gateway.core.strategies import UNKNOWN_OUTPUT, service_tier
from gateway.core.usage import Usage

TEMPLATE_TOKENS = 256  # that a chat template adds to the whole: a default system prompt, the date, the answer's opening
TOOL_TOKENS = 1024  # that it adds where there are tools: how they are to be called
ESTIMATED = 4  # bytes that an estimate takes for a token (`usage.estimate_tokens`)
LEAST_CAP = 4096  # tokens: no answer is cut shorter than this to fit a budget
TYPICAL = 4  # times the route's 99th percentile: what an answer without a cap is given room for
SMALL = 100  # a ceiling is small if so many of it fit into what is left
LONG = 1024 * 1024  # bytes that are normalised to see how long they get: some 10 ms; of more the worst is assumed
WORST, WORST_ESCAPE = 11, 27  # bytes of NFKD for a byte, and beyond an escape's own six (U+FDFA, for three)
ESCAPED = 3  # bytes of a JSON escape for a byte: templates may write tools and their calls as JSON in ASCII
_TOOL_CALLS = (b'"tool_calls"', b'"tool_use"', b'"function_call"')  # in a history, in each dialect
_HIGH = bytes(range(128, 256))

# Members that let a call cost more than its tokens at the usual rates, and the values with which they do not.
_EXTRAS: Mapping[str, tuple[object, ...]] = {
    "web_search_options": (),  # OpenAI: platform.openai.com/docs/pricing, "Built-in tools"
    "plugins": ((),),  # OpenRouter: openrouter.ai/docs/features/web-search
    "models": (),  # OpenRouter: others may answer, at their prices (openrouter.ai/docs/guides/routing/model-fallbacks)
    "fallbacks": (),  # the same, in Anthropic's messages
    "search_parameters": (),  # xAI: docs.x.ai/docs/guides/live-search
    "enable_search": (False,),  # Qwen: help.aliyun.com/zh/model-studio
    "prediction": (),  # OpenAI: rejected tokens of a prediction are billed as output
}
_EXTRA_NAMES = frozenset(_EXTRAS)
_SOUND = frozenset({"audio", "modalities"})
_TELLING = _EXTRA_NAMES | _SOUND | {"tools", "service_tier"}
# Service tiers of OpenAI, Anthropic and Groq that cost no more than the usual price, whether or not theirs is known.
_USUAL = frozenset({"default", "standard", "standard_only", "on_demand", "flex", "batch"})
_UPSTREAM_DECIDES = frozenset({"", "auto"})  # as its account is set up: platform.openai.com/docs/api-reference/chat
_SHORT = "insufficient_quota"
_OWN_TOOLS = ("function", "custom")  # tools that the client runs; others are the provider's, and billed


class Ceiling(NamedTuple):
    nano: int  # nano-USD
    cap: int | None = None  # tokens of output that the upstream has to be told; None: nothing is to be told


class Unbounded(NamedTuple):
    """Nobody can say what it may cost, so no budget can let it in."""

    why: str  # and what to do about it
    code: str  # unpriced_model | insufficient_quota


def ceiling(
    call: Call, target: Target, left: int, p99: int | None, *, clamp: bool, read: int | None = None
) -> Ceiling | Unbounded:
    """`left`: nano-USD in the tightest budget it touches; `p99`: the route's output tokens, None while unknown; `read`:
    tokens of input at most, None: by its body.
    """
    price, extra = target.price, target.model.max_extra_nano
    if price is None:
        return ceiling_at(0, call, target, left, p99, clamp=clamp)
    if price.free:
        return Ceiling(extra or 0)
    if extra is None and not price.unmetered and (what := _unbounded(call, target)):
        how = f"give {target.model.name} `max_extra_usd` in routes.yaml"
        return Unbounded(f"{what} may cost more than can be told beforehand; {how}", _SHORT)
    if read is None:
        read = input_bound(call, target)
    if call.form.sold:
        return _of_pieces(call, target, extra, read)
    return ceiling_at(read, call, target, left, p99, clamp=clamp)


def ceiling_at(
    read: int, call: Call, target: Target, left: int, p99: int | None, *, clamp: bool
) -> Ceiling | Unbounded:
    """`ceiling` of a call that reads at most so many tokens and holds nothing without a bound."""
    price = target.price
    if price is None:
        how = "`price: {input: ..., output: ...}` in USD per million tokens, or `price: unmetered`"
        return Unbounded(f"no known price; give {target.model.name} {how} in routes.yaml", "unpriced_model")
    extra = target.model.max_extra_nano
    made = (_choices(call, target) if target.model.set else call.choices) * call.items
    longest, cap = _output(call, target, p99)
    rates = price.highest or _possible(price, call, target, read)
    highest = _most(price, rates, read, longest * made) + (extra or 0)
    if cap is None or not clamp or highest * SMALL <= left:
        return Ceiling(highest)
    return Ceiling(_most(price, rates, read, cap * made) + (extra or 0), cap)


def _of_pieces(call: Call, target: Target, extra: int | None, read: int) -> Ceiling | Unbounded:
    """Of what is sold by the piece, by the token, or by either: whichever of the two is more."""
    price, model = target.price, target.model
    assert price is not None
    piece = piece_of(call, price)
    if price.rates is None or piece is None:  # by the hour of a machine, or unmetered
        return Ceiling(_most(price, (0, 0), read, 0) + (extra or 0))
    into, out = price.highest or _possible(price, call, target, read)
    each = _dearest(price, piece.rate)
    ranks = call.form.sold == "searches"
    if not (each or out or (ranks and into)):
        how = f"give {model.name} `price: {{{piece.price}}}` in routes.yaml"
        return Unbounded(f"no known price for {piece.word}; {how}", "unpriced_model")
    most = piece.most(call)
    longest = 0 if ranks or not out else model.max_output_tokens
    # A price for tokens as well means that the bill may be in tokens, whatever the pieces would be.
    if extra is None and ((most is None and not out) or longest is None):
        how = f"give {model.name} `max_extra_usd`" + (" or `max_output_tokens`" if longest is None else "")
        return Unbounded(f"{piece.word} may cost more than can be told beforehand; {how} in routes.yaml", _SHORT)
    by_token = -(-(read * into + (longest or 0) * _choices(call, target) * out) // 1_000_000)
    by_piece = -(-(most or 0) * each // 1_000_000)
    return Ceiling((by_token + by_piece if ranks else max(by_token, by_piece)) + (extra or 0))


def _dearest(price: Price, piece: str) -> int:
    """The highest rate for a piece at any hour."""
    found = [more_rates(each) for each in (price, *price.others, *price.services.values())]
    return max([getattr(rates, piece) for rates in found if rates is not None], default=0)


def input_bound(call: Call, target: Target) -> int:
    """Tokens of input at most."""
    body, window = call.body, target.model.context_window
    items = call.items
    if window is not None:
        window *= items  # each has it for itself
    plain = body.isascii()
    bound = (len(body) if plain and b"\\u" not in body else _longest(body)) + TEMPLATE_TOKENS * items
    if call.form.sold:
        bound += repeated_input(call)
    if tools := "tools" in call.has:
        bound += TOOL_TOKENS + len(call.source("tools")) + len(call.source("functions"))
    if not plain and (tools or any(sign in body for sign in _TOOL_CALLS)):
        bound += _high(body) * (ESCAPED - 1)
    if call.attachments or (call.form.kept and stored(call)):  # its tokens have little to do with its bytes
        return max(window or 0, bound)
    return bound if window is None else min(bound, window)


def _longest(body: bytes) -> int:
    """Bytes of UTF-8 that a tokenizer gets to see of a body at most, whichever normal form it makes of it."""
    escaped = b"\\u" in body
    if len(body) > LONG:
        return len(body) + _high(body) * (WORST - 1) + body.count(b"\\u") * WORST_ESCAPE
    text = body.decode(errors="replace")
    if escaped:
        text = _unescaped(text)
    return max(len(form.encode()) for form in (text, normalize("NFD", text), normalize("NFKD", text)))


def _high(body: bytes) -> int:
    """Bytes that are not ASCII."""
    return len(body) - len(body.translate(None, _HIGH))


def _unescaped(text: str) -> str:
    """JSON's `\\uXXXX` as what they stand for. In C throughout: clients that write ASCII only have one a character."""
    ours = text.encode("raw_unicode_escape").decode("raw_unicode_escape", "replace")
    return ours.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # pairs become one character


def recorded_bound(call: Call, size: int | None, target: Target) -> int:
    """The same of a call whose body is gone. `size`: its bytes, taken to be ASCII; None: they go by the estimate.

    For `ceiling`, which finds in such a call what its row says: that it holds images, not that they are addresses.
    """
    bound = (call.estimated_input * ESTIMATED if size is None else size) + TEMPLATE_TOKENS
    if "tools" in call.has:
        bound += TOOL_TOKENS
    window = target.model.context_window
    if call.attachments:
        return max(window or 0, bound)
    return bound if window is None else min(bound, window)


def _output(call: Call, target: Target, p99: int | None) -> tuple[int, int | None]:
    """Tokens of one answer at most, and a lower cap that could be sent instead; None where there is none."""
    names = call.form.caps
    if not names:
        return 0, None
    model = target.model
    if model.set and (caps := [value for name in names if isinstance(value := model.set.get(name), int)]):
        return max(caps), None
    longest = model.max_output_tokens
    if model.drop and not model.drop.isdisjoint(names):  # the server knows no cap
        return longest or UNKNOWN_OUTPUT, None
    if call.longest is not None:
        return call.longest, None
    cap = max(TYPICAL * (p99 or 0), LEAST_CAP)
    if longest is None:
        return UNKNOWN_OUTPUT, cap
    return longest, cap if cap < longest else None


def _choices(call: Call, target: Target) -> int:
    ours = target.model.set.get("n")
    return ours if isinstance(ours, int) else call.choices


def _possible(price: Price, call: Call, target: Target, read: int) -> tuple[int, int]:
    """The highest rates that may apply, for input and for output: of any hour, service tier and length.

    An upstream may meter by the end of a request, or serve it otherwise than was asked.
    """
    prices = [price, *price.others]
    if price.services:
        wanted = service_tier(target.model, call)
        if wanted in _UPSTREAM_DECIDES:
            prices += price.services.values()
        elif wanted in price.services:
            prices.append(price.services[wanted])
    into = out = 0
    for each in prices:
        for rates in (each.rates, *[tier.rates for tier in each.tiers if tier.above < read]):
            if rates is not None:
                into = max(into, rates.input, rates.cached_input, rates.cache_write)
                out = max(out, rates.output, rates.reasoning)
                if (more := rates.more) is not None:
                    into = max(into, more.cache_write_1h, *(more[1:5] if call.attachments else ()))
                    out = max(out, more.audio_output, more.image_output)
    return into, out


def _most(price: Price, rates: tuple[int, int], read: int, written: int) -> int:
    """At these rates for input and output; rounded up."""
    if price.machine is not None:
        return cost(Usage(input=read, output=written), price) + 1
    return -(-(read * rates[0] + written * rates[1]) // 1_000_000)


def _unbounded(call: Call, target: Target) -> str:
    """What of the call has no provable bound; empty where everything has one."""
    if (call.attachments or call.form.kept) and (what := _outside(call, target)):
        return what
    members = call.holds(_TELLING) - target.model.drop
    if not members and "service_tier" not in target.model.set:
        return ""
    for name in members & _EXTRA_NAMES:
        value = call.decoded(name)
        if value is not None and value not in _EXTRAS[name] and value != []:
            return f"`{name}`"
    if "tools" in members and any(_is_hosted(tool) for tool in call.decoded("tools") or ()):
        return "a tool that the provider runs"
    price = target.price
    if price is None or price.rates is None:
        return ""
    rates = price.rates
    sound = rates.more is not None and rates.more.audio_output != rates.output
    if not sound and members & _SOUND and ("audio" in str(call.decoded("modalities")) or call.decoded("audio")):
        return "an answer in sound"
    tier = service_tier(target.model, call)
    return "" if tier in _UPSTREAM_DECIDES or tier in _USUAL or tier in price.services else "`service_tier`"


def _outside(call: Call, target: Target) -> str:
    """What it has the model read that is not in it, or has little to do with its bytes."""
    if kept := stored(call):
        if "prompt" in kept:  # with a model, tools and caps of its own
            return "`prompt`, a template that the provider keeps,"
        if target.model.context_window is None:
            return f"`{kept[0]}` on a model without a known context window"
    if call.attachments and _reads(target.price):
        if call.remote:
            return "an image or file that is only an address"
        if target.model.context_window is None:
            return "an image, sound or file on a model without a known context window"
    return ""


def _reads(price: Price | None) -> bool:
    """Whether input costs anything by the token."""
    return price is None or price.rates is None or any(price.rates[:3]) or any((price.rates.more or ())[:5])


def _is_hosted(tool: object) -> bool:
    return isinstance(tool, dict) and tool.get("type", "function") not in _OWN_TOOLS
