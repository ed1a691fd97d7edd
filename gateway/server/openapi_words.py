"""What the API's description says in words: a row an endpoint, a row an error, a row a header of answers.

`tests/server/test_openapi.py` fails where the code raises an error, or sets a header, that has no row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.core.forms import Endpoint


class About(NamedTuple):
    summary: str
    content: str  # what the member is that holds the content
    source: str  # the page of the API that it follows
    example: Mapping[str, Any]  # a body that upstreams take, but for the model
    files: tuple[str, ...] = ()  # parts of a form that are files


_OPENAI = "https://platform.openai.com/docs/api-reference"
_ANTHROPIC = "https://docs.anthropic.com/en/api"
_HELLO: list[Mapping[str, Any]] = [{"role": "user", "content": "Say hello."}]
_SOUND = "The recording."

ABOUT: Mapping[Endpoint, About] = {
    Endpoint.CHAT: About("A chat completion.", "The conversation.", f"{_OPENAI}/chat/create", {"messages": _HELLO}),
    Endpoint.COMPLETIONS: About(
        "A completion.", "A prompt, or several; or tokens.", f"{_OPENAI}/completions/create", {"prompt": "Once"}
    ),
    Endpoint.EMBEDDINGS: About(
        "Embeddings.", "A text, or several; or tokens.", f"{_OPENAI}/embeddings/create", {"input": "hello"}
    ),
    Endpoint.COUNT_TOKENS: About(
        "How many tokens a message would have. Costs nothing.",
        "The conversation.",
        f"{_ANTHROPIC}/messages-count-tokens",
        {"messages": _HELLO},
    ),
    Endpoint.MESSAGES: About(
        "Anthropic's API, on any model.",
        "The conversation.",
        f"{_ANTHROPIC}/messages",
        {"messages": _HELLO, "max_tokens": 100},
    ),
    Endpoint.RESPONSES: About(
        "OpenAI's responses, on any model.", "A text, or items.", f"{_OPENAI}/responses/create", {"input": "Say hello."}
    ),
    Endpoint.MODERATIONS: About(
        "Moderations.", "A text, several, or parts.", f"{_OPENAI}/moderations/create", {"input": "I want to be kind."}
    ),
    Endpoint.RERANK: About(
        "Documents in the order in which they fit a query.",
        "Texts, or objects that hold some.",
        "https://docs.cohere.com/reference/rerank",
        {"query": "capital?", "documents": ["Carson City", "Washington"]},
    ),
    Endpoint.IMAGES: About(
        "Pictures of a text.", "What to draw.", f"{_OPENAI}/images/create", {"prompt": "A cute baby sea otter"}
    ),
    Endpoint.IMAGE_EDITS: About(
        "Pictures, changed.",
        "What to change.",
        f"{_OPENAI}/images/createEdit",
        {"prompt": "A lovely gift basket", "image": "(a file)"},
        ("image", "mask"),
    ),
    Endpoint.SPEECH: About(
        "Speech.", "What to say.", f"{_OPENAI}/audio/createSpeech", {"input": "The quick brown fox.", "voice": "alloy"}
    ),
    Endpoint.TRANSCRIPTIONS: About(
        "What was said.", _SOUND, f"{_OPENAI}/audio/createTranscription", {"file": "(a file)"}, ("file",)
    ),
    Endpoint.TRANSLATIONS: About(
        "What was said, in English.", _SOUND, f"{_OPENAI}/audio/createTranslation", {"file": "(a file)"}, ("file",)
    ),
}


class Refusal(NamedTuple):
    status: int
    type: str  # in OpenAI's envelope
    codes: tuple[str | None, ...]
    why: str
    headers: tuple[str, ...] = ()
    relayed: bool = False  # or it is the upstream's own, as it came


_AGAIN, _NOT_AGAIN = "retry-after", "x-should-retry"
_INVALID = "invalid_request_error"

# The contract's table (section 1, "Errors"), and what HTTP itself asks for.
REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        *(400, _INVALID, (None, "context_length_exceeded", "max_cost_exceeded", "unpriced_model")),
        "Something is wrong with the request; `param` names it",
        relayed=True,
    ),
    Refusal(401, "authentication_error", ("invalid_api_key",), "No key, or none that opens", ("www-authenticate",)),
    Refusal(403, "permission_error", ("permission_denied",), "The key may not use this"),
    Refusal(404, _INVALID, (None, "model_not_found"), "There is no such model or path, for this key"),
    Refusal(405, _INVALID, (None,), "Another method is meant", ("allow",)),
    Refusal(408, _INVALID, (None,), "The request did not come in time"),
    Refusal(413, _INVALID, ("request_too_large",), "The body is too large"),
    Refusal(415, _INVALID, (None,), "The body must come without content-encoding"),
    Refusal(422, "upstream_error", (None,), "The upstream's own", relayed=True),
    Refusal(429, "rate_limit_error", ("rate_limit_exceeded",), "A limit is reached", (_AGAIN,)),
    Refusal(429, "insufficient_quota", ("insufficient_quota",), "A budget is spent", (_NOT_AGAIN,)),
    Refusal(431, _INVALID, ("request_too_large",), "Request line and headers are too large"),
    Refusal(502, "upstream_error", ("upstream_error",), "No attempt gave an answer", (_NOT_AGAIN,)),
    Refusal(
        *(503, "upstream_error", ("no_healthy_upstream",), "Every model that may answer is down"), (_AGAIN, _NOT_AGAIN)
    ),
    Refusal(503, "overloaded_error", ("overloaded",), "Too much is in flight", (_AGAIN,)),
    Refusal(503, "server_error", ("store_unavailable",), "The ledger cannot be written", (_AGAIN,)),
    Refusal(504, "upstream_error", ("upstream_timeout",), "No attempt gave an answer in time", (_NOT_AGAIN,)),
)

_TEXT = {"type": "string"}
_COUNT = {"type": "string", "pattern": "^[0-9]+$"}
_NUMBER = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?$"}

ANSWER_HEADERS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "x-request-id": (_TEXT, "The client's own, else ours."),
    "x-gateway-route": (_TEXT, "The route."),
    "x-gateway-task": (_TEXT, "The task."),
    "x-gateway-model": (_TEXT, "The model that answered, by its name under `models:`."),
    "x-gateway-provider": (_TEXT, "Its provider."),
    "x-gateway-attempts": (_COUNT, "How many attempts there were."),
    "x-gateway-fallback-reason": (_TEXT, "After a fallback: the kind of failure."),
    "x-gateway-overhead-ms": (_NUMBER, "What the gateway itself took, in milliseconds."),
    "x-gateway-cache": ({"enum": ["hit", "miss", "bypass"]}, "Of routes with `cache`."),
    "x-gateway-max-tokens": (_COUNT, "The cap, where the gateway set it."),
    "x-gateway-cost-usd": (_NUMBER, "The cost, where it is known before the body."),
    "x-gateway-upstream-request-id": (_TEXT, "The upstream's own id."),
    "x-gateway-dropped": (_TEXT, "Members that did not go upstream, by commas."),
    "x-gateway-budget": (_TEXT, "The budget whose threshold is passed, and what that does."),
    "x-gateway-usage": ({"const": "estimated"}, "Of a count of tokens that no server made."),
    **{
        f"x-ratelimit-{what}-{kind}": (_TEXT if what == "reset" else _COUNT, f"Of the limit on {kind}: {word}.")
        for kind in ("requests", "tokens")
        for what, word in (("limit", "how many"), ("remaining", "how many are left"), ("reset", "full again in"))
    },
}
