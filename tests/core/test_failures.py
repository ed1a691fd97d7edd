"""What upstreams say when they refuse, and which kind of failure it is (contract section 2)."""

from __future__ import annotations

import pytest

from gateway.core.answers import Seen
from gateway.core.failures import (
    DEFAULT_FALLBACK_ON,
    Kind,
    Refusal,
    blames_request,
    judge_answer,
    judge_refusal,
    retry_after,
)

SILENT = Refusal()

BY_STATUS: list[tuple[int, Kind | None]] = [
    (400, None), (401, Kind.ACCOUNT), (402, Kind.ACCOUNT), (403, Kind.ACCOUNT), (404, Kind.ACCOUNT), (405, None),
    (406, None), (408, Kind.SERVER_ERROR), (409, None), (413, Kind.CONTEXT_LENGTH), (415, None), (422, None),
    (429, Kind.RATE_LIMITED), (451, None), (499, None), (500, Kind.SERVER_ERROR), (502, Kind.SERVER_ERROR),
    (503, Kind.SERVER_ERROR), (504, Kind.SERVER_ERROR), (520, Kind.SERVER_ERROR), (529, Kind.SERVER_ERROR),
    (599, Kind.SERVER_ERROR),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), BY_STATUS)
def test_by_status_alone(status: int, kind: Kind | None) -> None:
    assert judge_refusal(status, {}, SILENT) is kind


# who says it, status, what it says, what it is
SAYINGS: list[tuple[str, int, Refusal, Kind | None]] = [
    # --- the input is too long
    (
        "OpenAI",
        400,
        Refusal(
            "This model's maximum context length is 8191 tokens.", "invalid_request_error", "context_length_exceeded"
        ),
        Kind.CONTEXT_LENGTH,
    ),
    (
        "OpenAI, one string",
        400,
        Refusal("too long", "invalid_request_error", "string_above_max_length"),
        Kind.CONTEXT_LENGTH,
    ),
    ("OpenAI responses", 400, Refusal("Your input exceeds the context window of this model."), Kind.CONTEXT_LENGTH),
    (
        "vLLM: vllm-project/vllm#20409",
        400,
        Refusal(
            "This model's maximum context length is 16384 tokens. However, you requested 122946 tokens",
            "BadRequestError",
        ),
        Kind.CONTEXT_LENGTH,
    ),
    (
        "vLLM, the cap does not fit",
        400,
        Refusal("'max_tokens' is too large: 8192. This model's maximum context length is 65536 tokens", code="400"),
        Kind.CONTEXT_LENGTH,
    ),
    (
        "SGLang",
        400,
        Refusal("The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
        Kind.CONTEXT_LENGTH,
    ),
    (
        "llama.cpp",
        400,
        Refusal("the request exceeds the available context size", "exceed_context_size_error", "400"),
        Kind.CONTEXT_LENGTH,
    ),
    ("Anthropic", 400, Refusal("prompt is too long: 215000 tokens > 200000 maximum"), Kind.CONTEXT_LENGTH),
    (
        "Anthropic, with the cap",
        400,
        Refusal("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"),
        Kind.CONTEXT_LENGTH,
    ),
    (
        "Anthropic, too many bytes",
        413,
        Refusal("Request exceeds the maximum size", "request_too_large"),
        Kind.CONTEXT_LENGTH,
    ),
    (
        "Gemini",
        400,
        Refusal(
            "The input token count (1594712) exceeds the maximum number of tokens allowed (1048576).",
            "INVALID_ARGUMENT",
        ),
        Kind.CONTEXT_LENGTH,
    ),
    (
        "DashScope: QwenLM/qwen-code#98",
        400,
        Refusal("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 204800]"),
        Kind.CONTEXT_LENGTH,
    ),
    ("Moonshot", 400, Refusal("Invalid request: Your request exceeded model token limit: 8192"), Kind.CONTEXT_LENGTH),
    ("Ollama", 400, Refusal("prompt too long; exceeded max context length by 4 tokens"), Kind.CONTEXT_LENGTH),
    ("Ollama, embeddings", 400, Refusal("the input length exceeds the context length"), Kind.CONTEXT_LENGTH),
    ("TGI", 422, Refusal("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"), Kind.CONTEXT_LENGTH),
    (
        "xAI",
        400,
        Refusal("This model's maximum prompt length is 131072 but the request contains 140000"),
        Kind.CONTEXT_LENGTH,
    ),
    # --- the content filter
    (
        "Azure: stanford-crfm/helm#3327",
        400,
        Refusal("The response was filtered due to ... Azure OpenAI's content management policy.", "", "content_filter"),
        Kind.CONTENT_FILTER,
    ),
    (
        "DashScope",
        400,
        Refusal("Input data may contain inappropriate content.", "", "data_inspection_failed"),
        Kind.CONTENT_FILTER,
    ),
    ("DashScope, native", 400, Refusal("x", "", "DataInspectionFailed"), Kind.CONTENT_FILTER),
    ("DeepSeek", 400, Refusal("Content Exists Risk", "invalid_request_error"), Kind.CONTENT_FILTER),
    ("Moonshot", 400, Refusal("The request was rejected because it was considered high risk"), Kind.CONTENT_FILTER),
    ("Doubao", 400, Refusal("x", "BadRequest", "InputTextSensitiveContentDetected"), Kind.CONTENT_FILTER),
    # --- our account
    (
        "OpenAI, spent",
        429,
        Refusal("You exceeded your current quota, please check your plan and billing details.", "insufficient_quota"),
        Kind.ACCOUNT,
    ),
    ("OpenAI, spent, by its code", 429, Refusal("x", "insufficient_quota", "insufficient_quota"), Kind.ACCOUNT),
    ("OpenAI, spent, by its words", 429, Refusal("You exceeded your current quota"), Kind.ACCOUNT),
    (
        "OpenAI, billing limit",
        400,
        Refusal("Billing hard limit has been reached", "", "billing_hard_limit_reached"),
        Kind.ACCOUNT,
    ),
    ("Moonshot, suspended", 429, Refusal("x", "exceeded_current_quota_error"), Kind.ACCOUNT),
    ("Zhipu, no balance", 429, Refusal("x", "", "1113"), Kind.ACCOUNT),
    (
        "Anthropic, no balance",
        400,
        Refusal("Your credit balance is too low to access the Anthropic API."),
        Kind.ACCOUNT,
    ),
    (
        "Gemini, a bad key",
        400,
        Refusal("API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"),
        Kind.ACCOUNT,
    ),
    ("DashScope, arrears", 400, Refusal("Access denied", "Arrearage", "Arrearage"), Kind.ACCOUNT),
    ("an unknown model", 404, Refusal("The model `gpt-9` does not exist", "", "model_not_found"), Kind.ACCOUNT),
    # --- too fast
    (
        "OpenAI's rate limit speaks of billing: mmz-001/knowledge_gpt#5",
        429,
        Refusal(
            "Rate limit reached on requests per min. Visit https://platform.openai.com/account/billing to add a method."
        ),
        Kind.RATE_LIMITED,
    ),
    (
        "Gemini's speaks of a quota, and when to come back: continuedev/continue#10062",
        429,
        Refusal("You exceeded your current quota, please check your plan and billing details. Please retry in 20.04s."),
        Kind.RATE_LIMITED,
    ),
    ("a 429 about length is still a 429", 429, Refusal("x", "", "context_length_exceeded"), Kind.RATE_LIMITED),
    # --- a failure of the server is not made ours by its words
    ("a 500 about length", 500, Refusal("maximum context length", "", "context_length_exceeded"), Kind.SERVER_ERROR),
    # --- the request's own fault: relayed
    ("a bad parameter", 400, Refusal("Unknown parameter: 'foo'.", "invalid_request_error", "unknown_parameter"), None),
    ("a filter is only mentioned", 400, Refusal("content_filter is not a valid tool name"), None),
    ("validation", 422, Refusal("Field required", "missing"), None),
    ("a cap above the model's", 400, Refusal("max_tokens: expected a value <= 4096, but got 8192 instead"), None),
]


@pytest.mark.parametrize(("status", "refusal", "kind"), [row[1:] for row in SAYINGS], ids=[row[0] for row in SAYINGS])
def test_sayings(status: int, refusal: Refusal, kind: Kind | None) -> None:
    assert judge_refusal(status, {}, refusal) is kind


def test_a_worded_quota_with_retry_after_is_a_rate_limit() -> None:
    words = Refusal("You exceeded your current quota")
    assert judge_refusal(429, {"retry-after": "7"}, words) is Kind.RATE_LIMITED
    assert judge_refusal(429, {"retry-after": "7"}, words._replace(code="insufficient_quota")) is Kind.ACCOUNT


def test_the_content_filter_alone_is_off_by_default() -> None:
    assert set(Kind) - DEFAULT_FALLBACK_ON == {Kind.CONTENT_FILTER}


@pytest.mark.parametrize(
    ("status", "message", "blamed"),
    [
        (500, "Failed to parse messages: Missing tool call type", True),
        (500, "Failed to parse tools: Missing tool function", True),
        (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj", True),
        (500, "audio input is not supported", True),
        (500, "internal error while reading: Failed to parse messages", False),
        (500, "", False),
        (503, "Failed to parse messages", False),
    ],
)
def test_a_500_may_be_about_the_request(status: int, message: str, blamed: bool) -> None:
    assert blames_request(status, Refusal(message)) is blamed


# what came with a 200, kind, kind where the last message was a tool result
ANSWERS: list[tuple[str, Seen | None, Kind | None, Kind | None]] = [
    ("content", Seen(True, 1, "stop"), None, None),
    ("content without a finish", Seen(True, 1), None, None),
    ("not an object", None, Kind.MALFORMED, Kind.MALFORMED),
    ("an error", Seen(error={"message": "boom"}), Kind.MALFORMED, Kind.MALFORMED),
    ("an error beside content", Seen(True, 1, "stop", error="boom"), Kind.MALFORMED, Kind.MALFORMED),
    ("a finish that says it broke", Seen(True, 1, "insufficient_system_resource"), Kind.MALFORMED, Kind.MALFORMED),
    ("no choices", Seen(), Kind.EMPTY, Kind.EMPTY),
    ("stop and nothing", Seen(False, 1, "stop"), Kind.EMPTY, None),
    ("neither finish nor content", Seen(False, 1), Kind.EMPTY, None),
    ("tool_calls without a call", Seen(False, 1, "tool_calls"), Kind.EMPTY, None),
    ("length is never empty", Seen(False, 1, "length"), None, None),
    ("filtered", Seen(False, 1, "content_filter"), Kind.CONTENT_FILTER, Kind.CONTENT_FILTER),
    ("filtered after some content", Seen(True, 1, "content_filter"), None, None),
]


@pytest.mark.parametrize(("seen", "kind", "after_tool"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_answers(seen: Seen | None, kind: Kind | None, after_tool: Kind | None) -> None:
    assert judge_answer(seen, ends_in_tool_result=False) is kind
    assert judge_answer(seen, ends_in_tool_result=True) is after_tool


NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 5.6.7

RETRY_AFTER: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "120"}, 120.0),
    ({"retry-after": "0"}, 0.0),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": " 3 "}, 3.0),
    ({"retry-after": "-4"}, 0.0),
    ({"retry-after": "999999999"}, 86400.0),
    ({"retry-after": "inf"}, 86400.0),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "Sun, 06 Nov 1994 08:50:07 GMT"}, 30.0),
    ({"retry-after": "Sunday, 06-Nov-94 08:50:07 GMT"}, 30.0),
    ({"retry-after": "Sun Nov  6 08:50:07 1994"}, 30.0),
    ({"retry-after": "Sun, 06 Nov 1994 08:49:07 GMT"}, 0.0),
    ({"retry-after": "Sun, 06 Nov 1994 09:50:07 +0100"}, 30.0),
    ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86400.0),
    ({"retry-after": "Sun, 99 Foo 1994 08:50:07 GMT"}, None),
    ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
    ({"x-ratelimit-reset-requests": "6m0s"}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER, ids=str)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds
