"""Editing JSON in place: the result says what it should, and no byte moves that need not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import splice
from gateway.wire import CODEC

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(["model", "usage", 'a"b', "\\"])
SPACES = st.text(" \t\r\n", max_size=3)


@st.composite
def sources(draw: st.DrawFn) -> tuple[bytes, dict[str, bytes]]:
    """An object written in some way, and the exact source of each of its values."""
    members: dict[str, bytes] = {}
    text = draw(SPACES) + "{"
    for index, (name, value) in enumerate(draw(st.dictionaries(NAMES, VALUES, max_size=6)).items()):
        source = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
        key = json.dumps(name, ensure_ascii=draw(st.booleans()))
        text += ("," if index else "") + draw(SPACES) + key + draw(SPACES) + ":" + draw(SPACES) + source + draw(SPACES)
        members[name] = source.encode()
    return (text + draw(SPACES) + "}" + draw(SPACES)).encode(), members


@given(sources(), st.data())
def test_edit_any_object(source: tuple[bytes, dict[str, bytes]], data: st.DataObject) -> None:
    body, members = source
    names = st.sampled_from(sorted(members)) | NAMES if members else NAMES
    wanted: dict[str, Any] = data.draw(st.dictionaries(names, st.just("remove") | VALUES, max_size=4))
    edits = {name: None if value == "remove" else json.dumps(value).encode() for name, value in wanted.items()}

    result = splice.edit(body, CODEC, edits)

    expected = {name: json.loads(value) for name, value in members.items()}
    for name, value in edits.items():
        if value is None:
            expected.pop(name, None)
        else:
            expected[name] = json.loads(value)
    assert list(json.loads(result).items()) == list(expected.items())  # in this order
    places = splice.spans(result, CODEC)
    for name in members.keys() - edits.keys():
        start, end = places[name]
        assert result[start:end] == members[name]
    if not edits:
        assert result is body


@given(sources(), st.data())
def test_spans_are_the_exact_sources(source: tuple[bytes, dict[str, bytes]], data: st.DataObject) -> None:
    body, members = source
    assert {name: body[start:end] for name, (start, end) in splice.spans(body, CODEC).items()} == members
    if members:
        name = data.draw(st.sampled_from(sorted(members)))
        again = json.dumps(name) + ":" + data.draw(VALUES.map(json.dumps))
        twice = body.rstrip()[:-1] + b"," + again.encode() + b"}"
        with pytest.raises(ValueError, match="stands twice"):
            splice.spans(twice, CODEC)


@pytest.mark.parametrize(
    ("body", "edits", "expected"),
    [
        (b'{"a":1}', {"a": b"2"}, b'{"a":2}'),
        (b' {\n "a" : 1 ,\t"b": 2 } ', {"b": b"[]"}, b' {\n "a" : 1 ,\t"b": [] } '),
        (b'{"a": 1, "b": 2, "c": 3}', {"a": None}, b'{ "b": 2, "c": 3}'),
        (b'{"a": 1, "b": 2, "c": 3}', {"b": None}, b'{"a": 1, "c": 3}'),
        (b'{"a": 1, "b": 2, "c": 3}', {"c": None}, b'{"a": 1, "b": 2}'),
        (b'{"a": 1, "b": 2}', {"a": None, "b": None}, b"{ }"),
        (b'{"a": 1 }', {"z": b"0"}, b'{"a": 1,"z":0 }'),
        (b"{ }", {"z": b"0"}, b'{"z":0 }'),
        (b'{"a":1}', {"a": None, "z": b"0"}, b'{"z":0}'),
        (b'{"a":1}', {"nothing": None}, b'{"a":1}'),
        (b'{"mod\\u0065l":1,"n":1.0}', {"model": b"2"}, b'{"mod\\u0065l":2,"n":1.0}'),
        (b'{"a":{"model":1},"model":"}{,\\"model\\":"}', {"model": b"2"}, b'{"a":{"model":1},"model":2}'),
    ],
)
def test_edit(body: bytes, edits: dict[str, bytes | None], expected: bytes) -> None:
    assert splice.edit(body, CODEC, edits) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","model":"a"}',
        b'{"model":"a","mod\\u0065l":"longer"}',
        b'{"model":1,"model":12}',
        b'{"model":12,"model":1}',
        b'{"a":0,"model":{"model":1},"b":[],"model":"x"}',
        # The last value's length leads a careless walk from the first one into the middle of another member.
        b'{"model":"x","q":{"z":0,"b":1},"model":"yyyyyyyyyyyyyyyyyyyyyyyyyyyy"}',
        b'{"model":"a","pad":"' + b"x" * 100_000 + b'","model":"b"}',
    ],
)
def test_a_repeated_name_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="the member 'model' stands twice"):
        splice.spans(body, CODEC)


def test_a_repeated_name_of_a_large_value_is_found() -> None:
    one, other = b'"' + b"x" * 100_000 + b'1"', b'"' + b"x" * 100_000 + b'2"'
    with pytest.raises(ValueError, match="the member 'a' stands twice"):
        splice.spans(b'{"a":' + one + b',"b":0,"a":' + other + b"}", CODEC)
    assert len(splice.spans(b'{"a":' + one + b',"b":' + other + b"}", CODEC)) == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a":1,}', "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a":"\xff"}', "not valid UTF-8"),
        (b'{"a":"\xe2\x82"}', "not valid UTF-8"),
        (b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "nested too deeply"),
        (b'{"a":' + b'{"a":' * 20_000, "nested too deeply"),
    ],
)
def test_what_is_no_object_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        splice.spans(body, CODEC)


def test_utf8_is_checked_across_the_pieces() -> None:
    body = b'{"a":"' + "é€😀".encode() * 30_000 + b'"}'
    assert list(splice.spans(body, CODEC)) == ["a"]
    with pytest.raises(ValueError, match="UTF-8"):
        splice.spans(body[:-3] + b'"}', CODEC)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"id":"x","usage":{"total_tokens":3}}', b'{"id":"x","usage":{"total_tokens":3,"cost":0.0000015}}'),
        (b'{"usage":{"cost": 1e-9, "n":1},"id":1}', b'{"usage":{"cost": 0.0000015, "n":1},"id":1}'),
        (b'{"usage":{}}', b'{"usage":{"cost":0.0000015}}'),
        (b'{"usage":null}', b'{"usage":null}'),
        (b'{"usage":{},"usage":{}}', b'{"usage":{},"usage":{}}'),
        (b'{"usage":{"a":1,"a":2}}', b'{"usage":{"a":1,"a":2}}'),
        (b"<html>", b"<html>"),
        # into a choice only where the top level has no usage
        (b'{"choices":[{"usage": {"a":1}}]}', b'{"choices":[{"usage": {"a":1,"cost":0.0000015}}]}'),
        (b'{"choices":[{"usage":{"d":{"x":"}"}}}]}', b'{"choices":[{"usage":{"d":{"x":"}"},"cost":0.0000015}}]}'),
        (b'{"choices":["\\"usage\\":",{"usage":{}}]}', b'{"choices":["\\"usage\\":",{"usage":{"cost":0.0000015}}]}'),
        (b'{"choices":[{"t":"usage"}]}', b'{"choices":[{"t":"usage"}]}'),
        (b'{"other":[{"usage":{}}]}', b'{"other":[{"usage":{}}]}'),
        (b'{"usage":null,"choices":[{"usage":{}}]}', b'{"usage":null,"choices":[{"usage":{"cost":0.0000015}}]}'),
        (b'{"usage":"much","n":{"usage":{}}}', b'{"usage":"much","n":{"usage":{}}}'),
    ],
)
def test_add_cost(body: bytes, expected: bytes) -> None:
    assert splice.add_cost(body, CODEC, 1500) == expected
