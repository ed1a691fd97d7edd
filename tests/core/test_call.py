"""A request's bytes -> Call, and back to the bytes that go upstream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.call import Call, Endpoint, Principal, outgoing_body, parse
from gateway.core.globs import fits
from gateway.errors import RequestError
from gateway.wire import CODEC

HELLO = [{"role": "user", "content": "Hello"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def call(headers: dict[str, str] | None = None, endpoint: Endpoint = Endpoint.CHAT, **members: Any) -> Call:
    body: dict[str, Any] = {"model": "auto"}
    body |= {Endpoint.CHAT: {"messages": HELLO}}.get(endpoint, {}) | members
    return parse(
        endpoint,
        [(k.encode(), v.encode("latin-1")) for k, v in (headers or {}).items()],
        json.dumps(body).encode(),
        CODEC,
    )


def ask(*contents: Any, role: str = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for content in contents]


def test_a_plain_call() -> None:
    it = call({"X-App": "first", "x-app": "last"}, stream=True, stream_options={"include_usage": True}, n=2)
    assert (it.model, it.stream, it.wants_usage, it.n, it.max_output) == ("auto", True, True, 2, None)
    assert it.headers == {"x-app": "last"}
    assert it.hints == call().hints
    assert it.has == frozenset()


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7, "max_tokens": 5}, 7),
        ({"max_completion_tokens": None, "max_tokens": 5}, 5),
        ({"max_tokens": None}, None),
        ({"max_tokens": 5.0}, 5),  # JSON has one kind of number
    ],
)
def test_max_output(members: dict[str, Any], expected: int | None) -> None:
    assert call(**members).max_output == expected


NO_NUMBERS: list[Any] = [0, -1, 1.5, "1", True, [1]]
NO_CHOICES: list[Any] = [0, 129, "1", 1.5, 0.0, True]
NO_OBJECTS: list[Any] = ["secret", [], 1, True]
NO_ARRAYS: list[Any] = ["secret", {}, 1]
NO_TASKS: list[Any] = [1, ["secret"], "s" * 65, "secret\n\n1"]
NO_TAGS: list[Any] = [1, [1], {}, "s" * 65, ["s\x00"]]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"model": ["auto"]}, "model"),
        ({"model": "secret" * 100}, "model"),
        ({"model": "secret\n"}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": "secret"}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["secret"]}, "messages"),
        ({"messages": [HELLO[0], None]}, "messages"),
        ({"stream": "secret"}, "stream"),
        ({"stream": 1}, "stream"),
        *(({name: wrong}, name) for name in ("max_tokens", "max_completion_tokens") for wrong in NO_NUMBERS),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"max_tokens": 10**3999}, "max_tokens"),
        *(({"n": wrong}, "n") for wrong in NO_CHOICES),
        *(({name: wrong}, name) for name in ("metadata", "stream_options") for wrong in NO_OBJECTS),
        ({"stream": True, "stream_options": {"include_usage": "secret"}}, "stream_options.include_usage"),
        ({"stream": False, "stream_options": {"include_usage": "secret"}}, "stream_options.include_usage"),
        *(({"tools": wrong}, "tools") for wrong in NO_ARRAYS),
        *(({"metadata": {"task": wrong}}, "metadata.task") for wrong in NO_TASKS),
        *(({"metadata": {"tags": wrong}}, "metadata.tags") for wrong in NO_TAGS),
        ({"metadata": {"tags": [f"t{i}" for i in range(33)]}}, "metadata.tags"),
    ],
)
def test_wrong_members_are_named_and_not_repeated(members: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as error:
        call(**members)
    assert (error.value.status, error.value.param) == (400, param)
    assert param in error.value.message
    assert "secret" not in error.value.message


def test_a_headers_task_does_not_hide_a_wrong_one_in_the_body() -> None:
    with pytest.raises(RequestError) as error:
        call({"x-gateway-task": "coding"}, metadata={"task": "s" * 65})
    assert error.value.param == "metadata.task"


def test_a_ranking_comes_in_no_events() -> None:
    """No such API has `stream`: an upstream that takes no notice of it would be called again and again."""
    asked = b'{"model": "m", "query": "x", "documents": ["y"], "stream": true}'
    it = parse(Endpoint.RERANK, [], asked, CODEC)
    assert not it.stream
    assert outgoing_body(it, model="m", set={}, drop=frozenset(), ask_usage=True) == asked


@pytest.mark.parametrize(
    ("endpoint", "body", "param"),
    [
        (Endpoint.CHAT, b"{}", "model"),
        (Endpoint.CHAT, b'{"model":"m"}', "messages"),
        (Endpoint.CHAT, b'{"model":"m","messages":[{"n":1e999}]}', "messages"),
        (Endpoint.COMPLETIONS, b'{"model":"m"}', "prompt"),
        (Endpoint.COMPLETIONS, b'{"model":"m","prompt":null}', "prompt"),
        (Endpoint.EMBEDDINGS, b'{"model":"m","messages":[{}]}', "input"),
        (Endpoint.CHAT, b'{"model":"a","messages":[{}],"metadata":{"task":"a","task":"b"}}', "metadata"),
        (Endpoint.CHAT, b'{"model":"a","model":"b","messages":[{}]}', "model"),
        (Endpoint.CHAT, b'{"model":"\\ud800","messages":[{}]}', None),
        (Endpoint.CHAT, b'{"model":"\\udc00","messages":[{}]}', None),
        (Endpoint.CHAT, b"[1]", None),
        (Endpoint.CHAT, b"secret", None),
        (Endpoint.CHAT, b'{"a":"\xff"}', None),
        (Endpoint.CHAT, b'{"messages":' + b"[" * 20_000, None),
    ],
)
def test_malformed_bodies(endpoint: Endpoint, body: bytes, param: str | None) -> None:
    with pytest.raises(RequestError) as error:
        parse(endpoint, [], body, CODEC)
    assert (error.value.status, error.value.param) == (400, param)
    assert "secret" not in error.value.message


def test_embeddings_are_never_streams() -> None:
    assert not call(endpoint=Endpoint.EMBEDDINGS, input="x", stream=True).stream


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, set()),
        ({"messages": ask("image_url input_audio")}, set()),
        ({"messages": ask([IMAGE])}, {"images"}),
        ({"messages": ask([{"type": "text", "text": "x"}, SOUND])}, {"audio"}),
        ({"messages": ask([{**IMAGE, "text": "an image all the same"}])}, {"images"}),
        ({"messages": ask([{"type": "file", "file": {}}])}, set()),
        ({"messages": ask(None, ["x", 1, None, {"type": []}], 5)}, set()),
        ({"modalities": ["text", "audio"]}, {"audio"}),
        ({"modalities": ["text"]}, set()),
        ({"tools": [TOOL]}, {"tools"}),
        ({"tools": []}, set()),
        ({"tools": None}, set()),
        ({"functions": [{}]}, {"tools"}),
        ({"functions": []}, set()),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"json_schema"}),
        ({"response_format": {"type": "json_object"}}, {"json_schema"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"response_format": None}, set()),
        ({"messages": ask([IMAGE, SOUND]), "tools": [TOOL]}, {"images", "audio", "tools"}),
    ],
)
def test_has(members: dict[str, Any], expected: set[str]) -> None:
    assert call(**members).has == expected


def test_has_sees_through_escapes() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":[{"type":"im\\u0061ge_url"}]}],"t\\u006fols":[ 1 ]}'
    assert parse(Endpoint.CHAT, [], body, CODEC).has == {"images", "tools"}


def test_texts_of_a_chat() -> None:
    parts = [{"type": "text", "text": "look"}, IMAGE, {"type": "text", "text": "here"}]
    it = call(
        messages=[
            *ask("Be", role="system"),
            *ask("kind", role="developer"),
            *ask("first", parts),
            *ask("ok", role="assistant"),
        ]
    )
    assert (it.system_prompt, it.last_message, it.ends_in_tool_result) == ("Be\nkind", "look\nhere", False)
    assert call(messages=[*HELLO, *ask("42", role="tool")]).ends_in_tool_result
    assert call(messages=ask("x", role="assistant")).last_message == ""


@pytest.mark.parametrize(
    ("endpoint", "members", "text", "tokens"),
    [
        (Endpoint.CHAT, {"messages": ask("x" * 400)}, "x" * 400, 100),
        (Endpoint.CHAT, {"messages": ask("x")}, "x", 1),
        (Endpoint.CHAT, {"messages": ask([IMAGE, IMAGE])}, "", 1600),
        (Endpoint.CHAT, {"messages": ask(""), "tools": [TOOL]}, "", -(-len(json.dumps([TOOL])) // 4)),
        (
            Endpoint.CHAT,
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f" * 10, "arguments": "a" * 30}}, 1]}
                ]
            },
            "",
            10,
        ),
        (Endpoint.COMPLETIONS, {"prompt": "x" * 8}, "x" * 8, 2),
        (Endpoint.COMPLETIONS, {"prompt": [1, 2, 3]}, "", 3),
        (Endpoint.EMBEDDINGS, {"input": ["ab", "cd"]}, "ab\ncd", 1),
        (Endpoint.EMBEDDINGS, {"input": [[1, 2, 3], [4]]}, "", 4),
        (Endpoint.EMBEDDINGS, {"input": {"image": "x"}}, "", 0),
    ],
)
def test_estimated_input(endpoint: Endpoint, members: dict[str, Any], text: str, tokens: int) -> None:
    it = call(endpoint=endpoint, **members)
    assert (it.last_message, it.estimated_input) == (text, tokens)


def test_messages_are_decoded_once() -> None:
    decoded: list[bytes] = []

    class Counting(type(CODEC)):  # type: ignore[misc] # the class of the real codec
        def loads(self, raw: bytes | memoryview) -> Any:
            decoded.append(bytes(raw))
            return super().loads(raw)

    body = json.dumps({"model": "m", "messages": HELLO}).encode()
    it = parse(Endpoint.CHAT, [], body, Counting())
    assert (it.has, it.last_message, it.estimated_input, it.has) == (frozenset(), "Hello", 2, frozenset())
    assert decoded.count(json.dumps(HELLO).encode()) == 1


def sent(it: Call, **how: Any) -> bytes:
    return outgoing_body(it, **{"model": it.model, "set": {}, "drop": frozenset(), "ask_usage": True, **how})


def test_nothing_to_change_is_the_clients_own_bytes() -> None:
    it = call(temperature=0.0)
    assert sent(it) is it.body


@pytest.mark.parametrize(
    ("members", "how", "expected"),
    [
        ('"x": 1.0', {"model": 'Qw"en'}, '{"model": "Qw\\"en", "messages": [{}], "x": 1.0}'),
        ('"x":1', {"drop": {"x"}}, '{"model": "auto", "messages": [{}]}'),
        ('"x":1', {"set": {"x": [2], "y": {"z": None}}}, '{"model": "auto", "messages": [{}], "x":[2],"y":{"z":null}}'),
        (
            '"k": {"a": 1.0, "b": {"c": 1}, "d":2}',
            {"set": {"k": {"b": {"c": 2, "e": 3}, "d": {}}}},
            '{"model": "auto", "messages": [{}], "k": {"a": 1.0, "b": {"c": 2,"e":3}, "d":{}}}',
        ),
        ('"k": {"a": 1}', {"set": {"k": {"b": 2}}, "drop": {"k"}}, '{"model": "auto", "messages": [{}], "k": {"b":2}}'),
        ('"x":1', {"set": {"model": "theirs"}}, '{"model": "auto", "messages": [{}], "x":1}'),
        (
            '"stream":true',
            {},
            '{"model": "auto", "messages": [{}], "stream":true,"stream_options":{"include_usage":true}}',
        ),
        (
            '"stream":true,"stream_options": {"include_usage": false, "x": 1}',
            {},
            '{"model": "auto", "messages": [{}], "stream":true,"stream_options": {"include_usage": true, "x": 1}}',
        ),
        (
            '"stream":true,"stream_options": null',
            {},
            '{"model": "auto", "messages": [{}], "stream":true,"stream_options": {"include_usage":true}}',
        ),
        (
            '"stream":true,"stream_options": {}',
            {"ask_usage": False},
            '{"model": "auto", "messages": [{}], "stream":true}',
        ),
        ('"stream":true', {"ask_usage": False}, '{"model": "auto", "messages": [{}], "stream":true}'),
        ('"stream":true', {"drop": {"stream_options"}}, '{"model": "auto", "messages": [{}], "stream":true}'),
        ('"stream":false', {}, '{"model": "auto", "messages": [{}], "stream":false}'),
        ('"metadata": {"task":"t"}', {}, '{"model": "auto", "messages": [{}]}'),
        (
            '"metadata": {"tags":["a"], "mine": "1" ,"task":"t"}, "z":0',
            {},
            '{"model": "auto", "messages": [{}], "metadata": { "mine": "1" }, "z":0}',
        ),
        ('"metadata": {}', {}, '{"model": "auto", "messages": [{}], "metadata": {}}'),
        ('"metadata": {"task":"t","x":1}', {"drop": {"metadata"}}, '{"model": "auto", "messages": [{}]}'),
    ],
)
def test_outgoing_body(members: str, how: dict[str, Any], expected: str) -> None:
    body = f'{{"model": "auto", "messages": [{{}}], {members}}}'.encode()
    how["drop"] = frozenset(how.get("drop", ()))
    result = sent(parse(Endpoint.CHAT, [], body, CODEC), **how)
    # A merged `set` may differ in spacing only where the member was replaced whole.
    assert json.loads(result) == json.loads(expected)
    assert result.replace(b" ", b"") == expected.replace(" ", "").encode()


@pytest.mark.parametrize(
    ("headers", "members", "expected"),
    [
        ({"x-gateway-task": "coding"}, {}, {"task": "coding", "task_source": "header x-gateway-task"}),
        (
            {},
            {"metadata": {"task": "coding"}},
            {"task": "coding", "task_source": "metadata.task", "strip_metadata": b""},
        ),
        (
            {"x-gateway-task": "coding"},
            {"metadata": {"task": "support"}},
            {"task": "coding", "task_source": "header x-gateway-task", "strip_metadata": b""},
        ),
        ({"x-gateway-tags": " a, b ,,"}, {}, {"tags": {"a", "b"}}),
        ({"x-gateway-tags": "a"}, {"metadata": {"tags": ["b"]}}, {"tags": {"a", "b"}, "strip_metadata": b""}),
        ({}, {"metadata": {"tags": "b,c"}}, {"tags": {"b", "c"}, "strip_metadata": b""}),
        ({}, {"metadata": {"tags": None, "x": 1}}, {"strip_metadata": b'{ "x": 1}'}),
        ({}, {"metadata": {"x": "1"}}, {}),
        ({"x-gateway-max-cost-usd": "0.01"}, {}, {"max_cost_nano_usd": 10_000_000}),
        ({"x-gateway-max-cost-usd": "0"}, {}, {"max_cost_nano_usd": 0}),
        ({"x-gateway-max-cost-usd": "0.1234567899"}, {}, {"max_cost_nano_usd": 123_456_789}),
        ({"x-gateway-max-cost-usd": "1e-7"}, {}, {"max_cost_nano_usd": 100}),
        ({"x-gateway-max-cost-usd": "99999999999999999999.999999999999"}, {}, {"max_cost_nano_usd": 10**29 - 1}),
        ({"x-gateway-timeout": "2.5"}, {}, {"timeout": 2.5}),
        ({"x-gateway-no-fallback": "true", "x-gateway-dry-run": "True"}, {}, {"no_fallback": True, "dry_run": True}),
        ({"x-gateway-no-fallback": "false", "x-gateway-dry-run": "false"}, {}, {}),
        ({"x-session-id": "s 1", "x-request-id": "r" * 128}, {}, {"session": "s 1", "client_request_id": "r" * 128}),
    ],
)
def test_hints(headers: dict[str, str], members: dict[str, Any], expected: dict[str, Any]) -> None:
    hints = call(headers, **members).hints
    assert hints == call().hints._replace(**expected)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x-gateway-max-cost-usd", ["", "-1", "nan", "inf", "1e999999999", "1,5", "$1", "0x1", "٣", "1" * 99]),
        ("x-gateway-timeout", ["", "0", "-1", "nan", "inf", "5s", "0e9"]),
        ("x-gateway-no-fallback", ["", "yes", "1"]),
        ("x-gateway-dry-run", ["no"]),
        ("x-gateway-task", ["t" * 65, "t\x01x"]),
        ("x-gateway-tags", [",".join(f"t{i}" for i in range(33)), "t" * 65]),
        ("x-session-id", ["s" * 129, "s\x01", "é"]),
        ("x-request-id", ["r" * 129, "r\r\n", "é"]),
    ],
)
def test_wrong_headers_are_named(name: str, values: list[str]) -> None:
    for value in values:
        with pytest.raises(RequestError, match=name) as error:
            parse(
                Endpoint.CHAT,
                [(name.encode(), value.encode())],
                json.dumps({"model": "m", "messages": HELLO}).encode(),
                CODEC,
            )
        assert (error.value.status, error.value.param) == (400, name)


@pytest.mark.parametrize(
    ("allow", "model", "may"),
    [
        (("*",), "anything", True),
        ((), "auto", False),
        (("auto", "gpt-*"), "gpt-5", True),
        (("auto", "gpt-*"), "gpt", False),
        (("auto",), "AUTO", False),
        (("*-mini",), "gpt-5-mini", True),
        (("gpt-[45]",), "gpt-4", True),
        (("gpt-[45]",), "gpt-6", False),
        (("a?c", "x"), "abc", True),
        (("a?*",), "a", False),
    ],
)
def test_may_use(allow: tuple[str, ...], model: str, may: bool) -> None:
    assert Principal(allow=allow).may_use(model) is may
    assert any(fits(model, glob) for glob in allow) is may


DATA = "data:image/png;base64,AAAA"
SOURCE = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
ELSEWHERE = "https://example.com/a.png"
PARTS: list[tuple[dict[str, object], bool]] = [
    ({"type": "image_url", "image_url": {"url": DATA}}, False),
    ({"type": "image_url", "image_url": {"url": ELSEWHERE}}, True),
    ({"type": "image_url", "image_url": {"url": ELSEWHERE, "data": ""}}, True),
    ({"type": "input_image", "image_url": DATA}, False),
    ({"type": "input_image", "image_url": ELSEWHERE}, True),
    ({"type": "input_file", "file_id": "file-1"}, True),
    ({"type": "file", "file": {"file_data": DATA}}, False),
    ({"type": "image", "source": SOURCE}, False),
    ({"type": "image", "source": {"type": "url", "url": ELSEWHERE}}, True),
    ({"type": "image", "source": {"type": "url", "url": ELSEWHERE, "data": "AAAA"}}, True),
    ({"type": "image", "source": {"type": "file", "file_id": "file-1"}}, True),
    ({"type": "tool_result", "content": [{"type": "image", "source": SOURCE}]}, False),
    ({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": ELSEWHERE}}]}, True),
    ({"type": "text", "text": ELSEWHERE}, False),
    ({"type": "audio_url", "audio_url": {"url": ELSEWHERE}}, True),
    ({"type": "video", "video": [ELSEWHERE]}, True),
    ({"image_url": {"url": ELSEWHERE}}, True),  # vLLM
    ({"image_url": {"url": DATA}}, False),
    ({"text": ELSEWHERE}, False),
    ({"type": "file", "file": {"file_data": ELSEWHERE}}, True),  # OpenRouter
    ({"type": "input_audio", "input_audio": {"data": ELSEWHERE, "format": "mp3"}}, True),  # DashScope
    ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}, False),
]


@pytest.mark.parametrize(("part", "remote"), PARTS, ids=[json.dumps(part) for part, _ in PARTS])
def test_what_is_only_an_address_is_told(part: dict[str, object], remote: bool) -> None:
    """Nobody can say what it will count, so a budget does not let it in: not within a tool's result either."""
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    assert parse(Endpoint.MESSAGES, [], json.dumps(body).encode(), CODEC).remote is remote


@pytest.mark.parametrize(
    ("item", "has", "remote"),
    [
        ({"type": "function_call_output", "output": "a text"}, set(), False),
        ({"type": "function_call_output", "output": [{"type": "input_text", "text": "x"}]}, set(), False),
        ({"type": "function_call_output", "output": [{"type": "input_image", "image_url": DATA}]}, {"images"}, False),
        (
            {"type": "custom_tool_call_output", "output": [{"type": "input_image", "image_url": ELSEWHERE}]},
            {"images"},
            True,
        ),
        ({"type": "function_call_output", "output": [{"type": "input_file", "file_id": "file-1"}]}, set(), True),
        (
            {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": ELSEWHERE}},
            {"images"},
            True,
        ),
    ],
)
def test_what_a_tool_shows_counts(item: dict[str, Any], has: set[str], remote: bool) -> None:
    """In responses, too: it goes only to models that see, and a budget does not let in what has no bound."""
    body = {"model": "m", "input": [{"role": "user", "content": "x"}, {"call_id": "1", **item}]}
    asked = parse(Endpoint.RESPONSES, [], json.dumps(body).encode(), CODEC)
    attached = int("_image" in str(item) or "file" in str(item) or "screenshot" in str(item))
    assert (set(asked.has), asked.remote, asked.attachments) == (has, remote, attached)
    assert asked.ends_in_tool_result


def test_lines_of_one_header() -> None:
    """RFC 9110, 5.3: of a list they are one; of anything else the last counts."""
    headers = [(b"anthropic-beta", b"a"), (b"x-session-id", b"1"), (b"Anthropic-Beta", b"b"), (b"x-session-id", b"2")]
    asked = parse(Endpoint.CHAT, headers, b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}', CODEC)
    assert asked.headers == {"anthropic-beta": "a, b", "x-session-id": "2"}
