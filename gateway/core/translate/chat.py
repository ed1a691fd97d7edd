"""What OpenAI's chat says in its answers, whole and streamed, whoever's server it is: read for every translation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from json import dumps
from typing import Any

from gateway.core.call import Json

THOUGHTS = ("reasoning_content", "reasoning", "thinking")  # names for what a model thinks, as in `gateway.views.openai`


def json_object(body: bytes, json: Json) -> dict[str, Any] | None:
    """None where it is no JSON object."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    if isinstance(value, list) and value:
        value = value[0]  # Gemini's OpenAI endpoint wraps its errors
    return value if isinstance(value, dict) else None


def failure(answer: Mapping[str, Any]) -> object:
    """The error that an answer or a chunk is; None where it is none."""
    if answer.get("error"):
        return answer["error"]
    # Older vLLM has no envelope: {"object": "error", "message": ..., "type": ..., "code": ...}.
    return answer if answer.get("object") == "error" else None


def first_choice(choices: object) -> dict[str, Any] | None:
    """The first of several answers, which is all that other APIs have room for."""
    found = [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
    return next((each for each in found if each.get("index") in (0, None)), None)


def texts(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is to be read in a message or a delta as (thinking | text | refusal, text), thoughts first."""
    # Servers that say it twice, under an old and a new name, mean the same thoughts.
    for name in THOUGHTS:
        if isinstance(message.get(name), str) and message[name]:
            yield "thinking", message[name]
            break
    content = message.get("content")
    for part in content if isinstance(content, list) else [{"text": content}]:
        if isinstance(part, dict):
            for kind in ("thinking", "text", "refusal"):  # Mistral's models think among the parts of their content
                if text := _inner_text(part.get(kind)):
                    yield kind, text
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        yield "refusal", message["refusal"]


def _inner_text(value: object) -> str:
    if isinstance(value, list):
        return "".join(_inner_text(part.get("text")) for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else ""


def tool_calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    found = [_call(each) for each in calls if isinstance(each, dict)] if isinstance(calls, list) else []
    old = message.get("function_call")  # how servers said it before there were several
    return found or ([_call({"function": old})] if isinstance(old, dict) else [])


def _call(given: dict[str, Any]) -> dict[str, Any]:
    """With its arguments as text. Of TGI (huggingface/text-generation-inference#2136) and of some versions of llama.cpp
    (ggml-org/llama.cpp#20198) they are an object.
    """
    function = given.get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(arguments, dict):
        return given
    return {**given, "function": {**given["function"], "arguments": dumps(arguments, ensure_ascii=False)}}


def reported_usage(answer: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """Wherever a server puts it, as in `gateway.views.openai`; empty where it says nothing."""
    groq = answer.get("x_groq")
    places = (answer.get("usage"), choice.get("usage"), groq.get("usage") if isinstance(groq, dict) else None)
    usage = next((place for place in places if isinstance(place, dict) and place), {})
    tier = answer.get("service_tier")
    if usage and tier is not None and usage.get("service_tier") is None:
        return {**usage, "service_tier": tier}
    return usage


def word(value: object) -> str:
    return value if isinstance(value, str) else ""
