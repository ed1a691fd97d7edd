"""What litellm is told of a call, and what its exceptions mean: tables and pure functions, without litellm.

A body's members reach litellm as keyword arguments, and litellm has arguments that no client may set: `api_base` would
send our key to an address of the client's choice. So members pass by name, never by default, and what does not pass is
named, never left out in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from traceback import walk_tb
from typing import Any, NamedTuple

FAILURE = "x-gateway-failure"  # of the child's answer: the kind of failure, where a status cannot say it
DROPPED = "x-gateway-dropped"  # members that did not go upstream
ACCOUNT = "x-gateway-account"  # of a request to the child: whose key and address

# Members of a chat's body that may pass where a provider has them, by what their absence would do.
# Without these the answer is another one than was asked for: platform.openai.com/docs/api-reference/chat/create.
_MEANING = frozenset(
    {"tools", "tool_choice", "functions", "function_call", "response_format", "n", "stop", "logit_bias", "logprobs"}
    | {"top_logprobs", "modalities", "audio", "web_search_options", "max_tokens", "max_completion_tokens"}
)
# These are hints: an answer without them is still an answer to the question.
_HINTS = frozenset(
    {"temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "user", "parallel_tool_calls"}
    | {"reasoning_effort", "verbosity", "service_tier", "prediction", "store", "safety_identifier", "prompt_cache_key"}
    | {"prompt_cache_retention", "thinking", "cache_control", "context_management", "output_config", "speed"}
)
# Providers' own, which litellm hands on as they are: docs.anthropic.com/en/api/messages, ai.google.dev/api/caching,
# docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html.
_OWN: Mapping[str, frozenset[str]] = {
    "anthropic": frozenset({"top_k"}),
    "bedrock": frozenset({"top_k", "guardrailConfig", "performanceConfig", "requestMetadata"}),
    "gemini": frozenset({"top_k", "safety_settings", "cached_content"}),
    "vertex_ai": frozenset({"top_k", "safety_settings", "cached_content"}),
}
_OURS = frozenset({"model", "messages", "stream", "stream_options"})
_EMBEDDING = frozenset({"dimensions", "encoding_format", "user", "input_type"})
_TEXT_PARTS = ("text", "thinking", "redacted_thinking", "refusal")
_LONGEST_NAME, _MOST_NAMES = 80, 100  # of what is told as dropped
_TOOLS_OF_LITELLM = "mcp"  # litellm would call such servers itself


# litellm fetches what stands in a request by its address, with our network and our accounts, and hands it on, except
# where the provider takes addresses itself.
_FETCH_THEMSELVES = frozenset({"anthropic", "azure", "openai"})
_ADDRESS = re.compile(r"(?!data:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)


class Arguments(NamedTuple):
    passed: dict[str, Any]
    dropped: tuple[str, ...]


class Unsupported(Exception):
    """The request asks for what this provider does not have."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def chat_arguments(body: Mapping[str, Any], provider: str, supported: Collection[str]) -> Arguments:
    """Raises Unsupported. `supported`: what litellm says the model has (`get_supported_openai_params`)."""
    own = _OWN.get(provider, frozenset())
    passed: dict[str, Any] = {"messages": body.get("messages")}
    dropped: list[str] = []
    for name, value in body.items():
        if name in _OURS or value is None:
            continue
        known = name in _MEANING or name in _HINTS
        if name in own or (known and name in supported):
            passed[name] = value
        elif name in _MEANING and not _says_nothing(name, value):
            raise Unsupported(f"{provider} has no `{name}`", name)
        else:
            dropped.append(name)
    itself = provider in _FETCH_THEMSELVES
    if any(not (itself and each.lower().startswith("https://")) for each in _addresses(body.get("messages"))):
        raise Unsupported("images and files by address are not fetched for this model: send a data: URI", "messages")
    for tool in body.get("tools") or ():
        if isinstance(tool, Mapping) and tool.get("type") == _TOOLS_OF_LITELLM:
            raise Unsupported("`tools` of the type `mcp` are not available through litellm", "tools")
    return Arguments(passed, tuple(dropped))


def _addresses(given: object, inside: bool = False) -> Iterator[str]:
    """Of images, files and sounds in messages: every string of a part that is no text."""
    if isinstance(given, str):
        if inside and _ADDRESS.match(given):
            yield given
    elif isinstance(given, list):
        for each in given:
            yield from _addresses(each, inside)
    elif isinstance(given, Mapping):
        is_part = not inside and "role" not in given and given.get("type") not in (None, *_TEXT_PARTS)
        for name, value in given.items():
            if inside or is_part or name == "content":
                yield from _addresses(value, inside or is_part)


def header_of(dropped: Iterable[str]) -> str:
    """Names that a client made up, as a header: none may break the answer that tells them."""
    told = (re.sub(r"[^ -~]", "?", name[:_LONGEST_NAME]) for name in dropped)
    return ", ".join(islice(told, _MOST_NAMES))


def embedding_arguments(body: Mapping[str, Any], supported: Collection[str]) -> Arguments:
    """Raises Unsupported: vectors of another length than was asked for are no answer."""
    passed: dict[str, Any] = {"input": body.get("input")}
    dropped: list[str] = []
    for name, value in body.items():
        if name in {"model", "input"} or value is None:
            continue
        if name in _EMBEDDING and name in supported:
            passed[name] = value
        elif name == "dimensions" or (name == "encoding_format" and value != "float"):
            raise Unsupported(f"this model has no `{name}`", name)
        elif name != "encoding_format":
            dropped.append(name)
    return Arguments(passed, tuple(dropped))


def _says_nothing(name: str, value: object) -> bool:
    """Whether a member asks for what happens without it anyway."""
    return (name, value) in (("n", 1), ("logprobs", False), ("top_logprobs", 0), ("tool_choice", "auto")) or value in (
        [],
        {},
        ["text"],
        {"type": "text"},
    )


class Said(NamedTuple):
    """An exception, as the status and body of an answer; `kind` where the status is not enough."""

    status: int
    message: str
    code: str | None = None
    kind: str = ""


class Row(NamedTuple):
    status: int  # 0: the exception's own
    code: str | None = None


# By class name, since a subclass says more than its parent: docs.litellm.ai/docs/exception_mapping, litellm 1.106.2.
_EXCEPTIONS: Mapping[str, Row] = {
    "ContextWindowExceededError": Row(400, "context_length_exceeded"),
    "ContentPolicyViolationError": Row(400, "content_policy_violation"),
    "ImageFetchError": Row(400, "image_not_fetched"),
    "UnsupportedParamsError": Row(400, "unsupported_parameter"),
    "PaymentRequiredError": Row(402),
    "BadRequestError": Row(400),
    "UnprocessableEntityError": Row(422),
    "AuthenticationError": Row(401),
    "PermissionDeniedError": Row(403),
    "NotFoundError": Row(404),
    "RateLimitError": Row(429),
    "Timeout": Row(504),
    "ServiceUnavailableError": Row(503),
    "BadGatewayError": Row(502),
    "InternalServerError": Row(500),
    "APIConnectionError": Row(502),
    "APIResponseValidationError": Row(502),
    "APIError": Row(0),
}
# Somewhere behind an exception: nobody was reached, so nothing was done. httpx and aiohttp.
_NOT_REACHED = frozenset(
    {"ConnectError", "ConnectTimeout", "ClientConnectorError", "ClientConnectorDNSError", "ClientConnectorSSLError"}
    | {"ConnectionTimeoutError", "ConnectionRefusedError", "gaierror", "EndpointConnectionError"}
)
# Functions of litellm, all providers' (1.106.2): what is raised in them is raised before anything is sent.
_WRITES_REQUESTS = re.compile(r"transform_\w*request|^get_optional_params|^(?:validate|update)_\w*messages")
_SENDS = frozenset({"aiohttp", "httpx", "httpcore", "botocore", "openai"})
_PREFIX = re.compile(r"^(?:litellm\.\w+: |\w+Exception(?: \w+)? - |\w+Error: )+")
_SUFFIX = re.compile(r"\s*(?:Traceback \(most recent call last\)|\.? ?Handle with `litellm\.).*", re.DOTALL)
_LONGEST = 2000  # characters of a message


def said_by(error: BaseException, secrets: Iterable[str] = ()) -> Said:
    """What to answer where litellm raised `error`. Secrets that got into its message are taken out."""
    row = next((_EXCEPTIONS[each.__name__] for each in type(error).__mro__ if each.__name__ in _EXCEPTIONS), Row(500))
    own = getattr(error, "status_code", None)
    status = row.status or (own if isinstance(own, int) and 400 <= own < 600 else 500)
    message = hidden(_message(error), secrets)
    if any(type(each).__name__ in _NOT_REACHED for each in _chain(error)):
        return Said(502, message, None, "connect")
    if status >= 500 and not_sent(error):
        return Said(400, message, "invalid_request")
    return Said(status, message, row.code or _word(getattr(error, "code", None)))


def not_sent(error: BaseException) -> bool:
    """Whether litellm gave up while it wrote the provider's request, which is then the request's fault.

    It says so in many ways, most often as an internal error. Were those taken for the provider's, a client could shut
    out a model for all with messages of a wrong shape.
    """
    frames = [frame for each in _chain(error) for frame, _ in walk_tb(each.__traceback__)]
    if any(str(frame.f_globals.get("__name__")).partition(".")[0] in _SENDS for frame in frames):
        return False  # some providers are asked for a cache of the messages on the way
    return any(_WRITES_REQUESTS.search(frame.f_code.co_name) for frame in frames)


def hidden(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text[:_LONGEST]


def _message(error: BaseException) -> str:
    """The provider's own words, where they can be told from litellm's around them."""
    text = getattr(error, "message", None)
    text = _PREFIX.sub("", _SUFFIX.sub("", text if isinstance(text, str) and text else str(error)))
    start = text.find("{")
    if start >= 0:
        try:
            value, _ = json.JSONDecoder().raw_decode(text[start:])
        except ValueError:
            return text
        inner = value.get("error", value) if isinstance(value, dict) else value
        said = inner.get("message") if isinstance(inner, dict) else inner
        return said if isinstance(said, str) and said else text
    return text


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    left: BaseException | None = error
    while left is not None and left not in found and len(found) < 20:
        found.append(left)
        left = left.__cause__ or left.__context__
    return found


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"[\w.-]{1,64}", value) else None
