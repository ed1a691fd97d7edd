"""Anthropic's `/v1/messages` for servers that speak OpenAI's chat: the request. Answers: `messages_answers`.

`CARRIED` and `NOT_CARRIED` are the table in docs/translation.md. A member that stands in neither goes upstream as it
is: it may be one of the server's own, such as `chat_template_kwargs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.call import Call
from gateway.core.forms import Endpoint
from gateway.core.translate.base import Losses, Notes, Translation
from gateway.core.translate.members import Body, Carry, Made, carry, chat, same
from gateway.core.translate.messages_answers import Stream, read_answer, read_error
from gateway.core.translate.messages_content import chat_messages, system_text

_APART = frozenset({"system", "messages"})  # members that are written together
LONGEST_USER = 64  # characters: OpenAI refuses longer ones, and Claude Code's are
_TOOL = frozenset({"type", "name", "description", "input_schema", "strict"})
_EFFORTS: Mapping[str, str] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_BUDGETS = ((4096, "low"), (16384, "medium"))  # tokens of thinking below which an effort is meant; above: high


def _make(call: Call) -> Made:
    """The body of the chat call, its members in the order of the client's."""
    body, notes = carry(call, CARRIED, NOT_CARRIED, _APART)
    if any(name.startswith("anthropic-beta") for name in call.headers):
        notes.drop("anthropic-beta")
    system = system_text(call.decoded("system"), notes)
    messages = chat_messages(call.decoded("messages"), call.codec, notes)
    body["messages"] = [{"role": "system", "content": system}, *messages] if system else messages
    if "tools" not in body:
        for name in ("tool_choice", "parallel_tool_calls"):
            body.pop(name, None)  # servers refuse them alone, and without tools they say nothing
    return Made(body, notes.losses)


def obstacles(call: Call) -> Losses:
    return call.once(_make).losses


def request(call: Call) -> Call:
    headers = {name: value for name, value in call.headers.items() if not name.startswith("anthropic-")}
    return chat(call, call.once(_make).body, headers)


def _metadata(value: Any, body: Body, notes: Notes) -> None:  # noqa: ANN401 - JSON can be anything
    """`task` and `tags` are ours, and have been read."""
    if not isinstance(value, dict):
        notes.refuse("metadata (not an object)")
        return
    user = value.get("user_id")
    if isinstance(user, str) and len(user) <= LONGEST_USER:
        body["user"] = user
    elif user is not None:
        notes.drop("metadata.user_id")
    notes.drop_others("metadata", value, frozenset({"user_id", "task", "tags"}))


def _tools(value: Any, body: Body, notes: Notes) -> None:  # noqa: ANN401 - as above
    tools: list[Body] = []
    for tool in value if isinstance(value, list) else [None]:
        if not isinstance(tool, dict) or tool.get("type", "custom") not in (None, "custom"):
            notes.refuse(f"tools: {tool.get('type')}" if isinstance(tool, dict) else "tools (not an array of objects)")
            continue
        notes.drop_others("tools", tool, _TOOL)
        function = {"name": tool.get("name"), "description": tool.get("description")}
        function |= {"parameters": tool.get("input_schema"), "strict": tool.get("strict")}
        tools.append(
            {"type": "function", "function": {name: each for name, each in function.items() if each is not None}}
        )
    if tools:
        body["tools"] = tools


def _tool_choice(value: Any, body: Body, notes: Notes) -> None:  # noqa: ANN401 - as above
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "tool":
        body["tool_choice"] = {"type": "function", "function": {"name": value.get("name")}}
    elif isinstance(kind, str) and kind in _CHOICES:
        body["tool_choice"] = _CHOICES[kind]
    else:
        notes.refuse(f"tool_choice {kind!r}")
        return
    if value.get("disable_parallel_tool_use") is True:
        body["parallel_tool_calls"] = False
    notes.drop_others("tool_choice", value, frozenset({"type", "name", "disable_parallel_tool_use"}))


_CHOICES: Mapping[str, str] = {"auto": "auto", "any": "required", "none": "none"}


def _thinking(value: Any, body: Body, notes: Notes) -> None:  # noqa: ANN401 - as above
    """Chat knows an effort, not a budget; a model that thinks of itself does so unless its server has a switch."""
    kind = value.get("type") if isinstance(value, dict) else None
    budget = value.get("budget_tokens") if kind == "enabled" else None
    if isinstance(budget, int):
        effort = next((effort for below, effort in _BUDGETS if budget < below), "high")
        body.setdefault("reasoning_effort", effort)
        notes.drop("thinking.budget_tokens")
    elif kind != "adaptive":  # which is to say: as the model sees fit
        notes.drop("thinking")
    if isinstance(value, dict):
        notes.drop_others("thinking", value, frozenset({"type", "budget_tokens"}))


def _output_config(value: Any, body: Body, notes: Notes) -> None:  # noqa: ANN401 - as above
    if not isinstance(value, dict):
        notes.refuse("output_config (not an object)")
        return
    effort = value.get("effort")
    if isinstance(effort, str) and effort in _EFFORTS:
        body["reasoning_effort"] = _EFFORTS[effort]
        if _EFFORTS[effort] != effort:
            notes.drop(f"output_config.effort {effort} (high instead)")
    elif effort is not None:
        notes.drop("output_config.effort")
    if value.get("format") is not None:
        _output_format(value["format"], body, notes)
    notes.drop_others("output_config", value, frozenset({"effort", "format"}))


def _output_format(value: Any, body: Body, notes: Notes) -> None:  # noqa: ANN401 - as above
    """docs.anthropic.com/en/docs/build-with-claude/structured-outputs; chat's `response_format`."""
    if not isinstance(value, dict) or value.get("type") != "json_schema":
        notes.refuse("output_config.format (not a JSON schema)")
        return
    schema = {"name": "answer", "schema": value.get("schema"), "strict": True}
    body["response_format"] = {"type": "json_schema", "json_schema": schema}
    notes.drop_others("output_config.format", value, frozenset({"type", "schema"}))


CARRIED: Mapping[str, Carry] = {
    "model": same("model"),
    "max_tokens": same("max_tokens"),  # under the name that the server has for it: `Model.cap_name`
    "stream": same("stream"),
    "temperature": same("temperature"),
    "top_p": same("top_p"),
    "top_k": same("top_k"),  # llama.cpp, vLLM, SGLang, OpenRouter; OpenAI knows none
    "stop_sequences": same("stop"),
    "metadata": _metadata,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "thinking": _thinking,
    "output_config": _output_config,
    "output_format": _output_format,  # its name while it was a beta
}
NOT_CARRIED: Mapping[str, bool] = {  # whether the answer means the same without it: then it is dropped, else refused
    "cache_control": True,  # servers that cache do so of themselves
    "context_management": True,  # a longer history says the same
    "diagnostics": True,
    "service_tier": True,
    "speed": True,
    "user_profile_id": True,
    "workspace_id": True,
    "container": False,
    "inference_geo": False,  # where data go is a promise that we cannot make for another's server
    "mcp_servers": False,
    # Members of chat whose answers this API has no words for.
    **dict.fromkeys(("audio", "best_of", "function_call", "functions", "modalities", "n"), False),
    "stream_options": True,
}

MESSAGES_TO_CHAT = Translation(
    to=Endpoint.CHAT,
    obstacles=obstacles,
    request=request,
    answer=read_answer,
    events=Stream,
    error=read_error,
    # As in `gateway.core.resume`: vLLM goes on with the last message where it is told to, llama.cpp of itself.
    prefill={"continue_final_message": True, "add_generation_prompt": False},
)
