"""OpenAI's `/v1/responses` for servers that have only its chat: the request. Answers: `responses_answers`.

`CARRIED` and `NOT_CARRIED` are the table in docs/translation.md. A member that stands in neither goes upstream as it
is: it may be one of the server's own, such as `chat_template_kwargs`. Members and items as in
developers.openai.com/api/reference/resources/responses/methods/create and the types of the SDK, openai 3.54 (2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.call import Call
from gateway.core.forms import Endpoint
from gateway.core.translate.base import Losses, Notes, Translation
from gateway.core.translate.members import Body, Carry, Made, carry, chat, same
from gateway.core.translate.responses_answers import Stream, read_answer, read_error
from gateway.core.translate.responses_input import INPUT, chat_messages

_APART = frozenset({"input", "instructions"})  # members that are written together
_FUNCTION = frozenset({"type", "name", "description", "parameters", "strict"})
_CUSTOM = frozenset({"type", "name", "description", "format"})
_FREE_TEXT: Mapping[str, Any] = {  # the parameters of a function that stands for a custom tool
    "type": "object",
    "properties": {INPUT: {"type": "string"}},
    "required": [INPUT],
    "additionalProperties": False,
}
_LOGPROBS = "message.output_text.logprobs"


def _make(call: Call) -> Made:
    """The body of the chat call, its members in the order of the client's."""
    body, notes = carry(call, CARRIED, NOT_CARRIED, _APART)
    body["messages"] = chat_messages(call.decoded("instructions"), call.decoded("input"), call.codec, notes)
    _choose(call.decoded("tool_choice"), body, notes)
    return Made(body, notes.losses)


def obstacles(call: Call) -> Losses:
    return call.once(_make).losses


def request(call: Call) -> Call:
    return chat(call, call.once(_make).body, call.headers)


def _is_for_us(_value: Any, _body: Body, _notes: Notes) -> None:  # noqa: ANN401 - JSON can be anything
    """Read elsewhere: by `_choose`, or when the answer is written, which repeats it."""


def _only(name: str, harmless: object) -> Carry:
    """Of a hint: the one value with which nothing is lost."""

    def look(value: Any, _body: Body, notes: Notes) -> None:  # noqa: ANN401 - as above
        if value != harmless:
            notes.drop(name)

    return look


def _include(value: Any, body: Body, notes: Notes) -> None:  # noqa: ANN401 - as above
    for wanted in value if isinstance(value, list) else [value]:
        if wanted == _LOGPROBS:
            body["logprobs"] = True
        else:
            notes.drop(f"include: {wanted}")


def _top_logprobs(value: Any, body: Body, _notes: Notes) -> None:  # noqa: ANN401 - as above
    body["top_logprobs"] = value
    body["logprobs"] = True  # chat refuses the one without the other


def _reasoning(value: Any, body: Body, notes: Notes) -> None:  # noqa: ANN401 - as above
    """The effort. A summary is not made: the model's own reasoning is there, where its server shows it."""
    if not isinstance(value, dict):
        notes.refuse("reasoning (not an object)")
        return
    if value.get("effort") is not None:
        body["reasoning_effort"] = value["effort"]
    if value.get("mode") not in (None, "standard"):
        notes.refuse("reasoning.mode")
    notes.drop_others("reasoning", value, frozenset({"effort", "mode"}))


def _text(value: Any, body: Body, notes: Notes) -> None:  # noqa: ANN401 - as above
    if not isinstance(value, dict):
        notes.refuse("text (not an object)")
        return
    wanted = value.get("format") or {"type": "text"}
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if isinstance(wanted, dict) and kind == "json_schema":
        schema = {name: each for name, each in wanted.items() if name != "type" and each is not None}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif kind == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif kind != "text":
        notes.refuse(f"text.format {kind!r}")
    notes.drop_others("text", value, frozenset({"format"}))


def _tools(value: Any, body: Body, notes: Notes) -> None:  # noqa: ANN401 - as above
    """Functions; custom tools as functions of one text, because few servers of open models know them."""
    tools: list[Body] = []
    for tool in value if isinstance(value, list) else [None]:
        if not isinstance(tool, dict):
            notes.refuse("tools (not an array of objects)")
            continue
        kind = tool.get("type")
        if kind == "function":
            given = {name: tool.get(name) for name in ("name", "description", "parameters", "strict")}
            notes.drop_others("tools", tool, _FUNCTION)
        elif kind == "custom":
            given = {"name": tool.get("name"), "description": tool.get("description"), "parameters": _FREE_TEXT}
            _look_at_format(tool.get("format"), notes)
            notes.drop_others("tools", tool, _CUSTOM)
        else:
            notes.refuse(f"tools: {kind}")
            continue
        tools.append({"type": "function", "function": {name: each for name, each in given.items() if each is not None}})
    if tools:
        body["tools"] = tools


def _look_at_format(given: object, notes: Notes) -> None:
    kind = given.get("type") if isinstance(given, dict) else None
    if given is not None and kind != "text":
        notes.refuse(f"tools: a custom tool with a {kind}")


def _choose(value: Any, body: Body, notes: Notes) -> None:  # noqa: ANN401 - as above
    """`tool_choice`, once the tools are known: a choice among some of them is a shorter list."""
    if "tools" not in body:
        body.pop("parallel_tool_calls", None)  # servers refuse both alone, and without tools they say nothing
        return
    kind = value.get("type") if isinstance(value, dict) else value
    if kind is None:
        return
    if kind in ("auto", "required", "none"):
        body["tool_choice"] = kind
    elif kind in ("function", "custom"):
        body["tool_choice"] = {"type": "function", "function": {"name": value.get("name")}}
    elif kind == "allowed_tools" and isinstance(value.get("tools"), list):
        names = [tool.get("name") for tool in value["tools"] if isinstance(tool, dict)]
        body["tools"] = [tool for tool in body["tools"] if tool["function"].get("name") in names]
        body["tool_choice"] = value.get("mode", "auto")
        if not body["tools"]:
            notes.refuse("tool_choice: allowed_tools that are not among the tools")
    else:
        notes.refuse(f"tool_choice {kind!r}")


CARRIED: Mapping[str, Carry] = {
    "model": same("model"),
    "max_output_tokens": same("max_tokens"),  # under the name that the server has for it: `Model.cap_name`
    "stream": same("stream"),
    "temperature": same("temperature"),
    "top_p": same("top_p"),
    "top_logprobs": _top_logprobs,
    "parallel_tool_calls": same("parallel_tool_calls"),
    "service_tier": same("service_tier"),
    "user": same("user"),
    "include": _include,
    "reasoning": _reasoning,
    "text": _text,
    "tools": _tools,
    "tool_choice": _is_for_us,
    "metadata": _is_for_us,
    "background": _is_for_us,  # false: anything else has been refused
    "store": _only("store", False),  # answers are not kept; who does not ask for it may not need it
    "truncation": _only("truncation", "disabled"),
}
NOT_CARRIED: Mapping[str, bool] = {  # whether the answer means the same without it: then it is dropped, else refused
    "access_programs": True,
    "background_options": True,
    "context_management": True,  # a longer history says the same
    "image": True,
    "max_tool_calls": True,  # of tools that the provider runs, which are refused
    "prompt_cache_key": True,  # servers that cache do so of themselves
    "prompt_cache_options": True,
    "prompt_cache_retention": True,
    "safety_identifier": True,
    "stream_options": True,  # padding
    "conversation": False,  # what only its own provider has
    "previous_response_id": False,
    "prompt": False,
    "moderation": False,
    # Members of chat that this API does not have, and that would say otherwise than those it has.
    "audio": False,
    "best_of": False,
    "function_call": False,
    "functions": False,
    "max_completion_tokens": False,
    "max_tokens": False,
    "messages": False,
    "modalities": False,
    "n": False,
    "response_format": False,
}

RESPONSES_TO_CHAT = Translation(
    to=Endpoint.CHAT,
    obstacles=obstacles,
    request=request,
    answer=read_answer,
    events=Stream,
    error=read_error,
    # As in `gateway.core.resume`: vLLM goes on with the last message where it is told to, llama.cpp of itself.
    prefill={"continue_final_message": True, "add_generation_prompt": False},
)
