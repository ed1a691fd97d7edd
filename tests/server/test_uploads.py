"""Forms with files: wherever a form is cut, its parts stand where they stand, and go upstream byte for byte."""

from __future__ import annotations

import asyncio
from email.parser import BytesParser
from email.policy import HTTP
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Endpoint
from gateway.core.multipart import Part, Parts, outgoing_parts, parse_form
from gateway.errors import Overloaded, RequestError
from gateway.providers.streamed import Streamed
from gateway.server.uploads import IN_MEMORY, WRITTEN, FormReader, Room, Spool, boundary_of
from gateway.wire import CODEC

NOISE = st.lists(st.sampled_from([b"\r\n", b"--", b"B", b"\r", b"\n--B", b"x" * 30, b"\r\n--C"]), max_size=8).map(
    b"".join
)


def form(*values: tuple[str, bytes]) -> bytes:
    parts = [b'--B\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (n.encode(), v) for n, v in values]
    return b"".join(parts) + b"--B--\r\n"


def plain(value: bytes) -> bytes:
    """Without what would end the part: a form's author picks a boundary that is not in it."""
    while b"\r\n--B" in b"\r\n" + value:
        value = (b"\r\n" + value).replace(b"\r\n--B", b"\r\n")[2:]
    return value


def read(body: bytes, *cuts: int) -> Parts:
    reader = FormReader(b"B")
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(places):
        reader.feed(body[start:end])
    return reader.parts()._replace(boundary=b"ours")


@given(NOISE, NOISE, st.lists(st.integers(0, 10_000), max_size=6))
def test_cut_anywhere(first: bytes, second: bytes, cuts: list[int]) -> None:
    values = [("prompt", plain(first)), ("model", b"m"), ("empty", b""), ("more", plain(second))]
    body = form(*values)
    whole = read(body)
    assert read(body, *cuts) == whole
    assert [(part.name, body[part.start : part.start + part.size]) for part in whole.parts if part.size] == [
        value for value in values if value[1]
    ]


def test_at_every_byte() -> None:
    body = form(("a", b"\r\n--A"), ("model", b"m"), ("b", b"\r\n--"))
    assert all(read(body, cut) == read(body) for cut in range(len(body)))
    assert read(body, *range(len(body))) == read(body)


@given(NOISE, st.integers(1, 50))
def test_what_goes_upstream_is_read_as_it_was_meant(value: bytes, step: int) -> None:
    value = plain(value)
    body = form(("prompt", value), ("model", b"mine"), ("image[]", b"1"), ("image[]", b"2"))
    parts = read(body)
    pieces = outgoing_parts(parts, model="theirs", set={"n": 2}, drop=frozenset({"image"}), json=CODEC)

    async def run() -> bytes:
        spool = Spool(Room())
        await spool.write(body)
        streamed = Streamed(pieces, spool)
        sent = b""
        while piece := await streamed.read(len(sent), step):
            assert len(piece) <= step
            sent += piece
        assert len(sent) == len(streamed)
        return sent

    head = b"content-type: " + parts.content_type + b"\r\n\r\n"
    message = BytesParser(policy=HTTP).parsebytes(head + asyncio.run(run()))
    found = [
        (part.get_param("name", header="content-disposition"), part.get_payload(decode=True))
        for part in message.iter_parts()
    ]
    assert found == [("prompt", value), ("model", b"theirs"), ("n", b"2")]


def test_a_call_of_a_form() -> None:
    body = form(("model", b"m"), ("stream", b"true"), ("prompt", "\u4f60".encode()), ("include[]", b"logprobs"))
    file = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n'
    body = body.replace(b"--B--", file + b"--B--")
    call = parse_form(Endpoint.TRANSCRIPTIONS, [], read(body), CODEC)
    assert (call.model, call.stream, call.last_message, call.attachments) == ("m", True, "\u4f60", 1)
    assert call.decoded("include") == ["logprobs"]
    assert call.body_size == len(body)


def test_an_object_in_a_form() -> None:
    """`chunking_strategy={"type": "server_vad", ...}` as openai 3.57 (Python) writes it."""
    strategy = (("chunking_strategy[type]", b"server_vad"), ("chunking_strategy[threshold]", b"0.5"))
    parts = read(
        form(("model", b"m"), *strategy, ("a[b][c]", b"1"), ("a[d][]", b"2"), ("a[d][]", b"3"), ("file", b"x"))
    )
    call = parse_form(Endpoint.TRANSCRIPTIONS, [], parts, CODEC)
    assert call.decoded("chunking_strategy") == {"type": "server_vad", "threshold": "0.5"}
    assert call.decoded("a") == {"b][c": "1", "d": ["2", "3"]}

    def names(**edits: Any) -> bytes:
        pieces = outgoing_parts(parts, model="m", **{"set": {}, "drop": frozenset(), **edits}, json=CODEC)
        return b"".join(piece for piece in pieces if isinstance(piece, bytes))

    assert names().count(b'name="chunking_strategy[') == 2
    assert b"chunking_strategy" not in names(drop=frozenset({"chunking_strategy"}))
    assert names(set={"chunking_strategy": "auto"}).count(b'name="chunking_strategy') == 1


@pytest.mark.parametrize(
    "names",
    [("a", "a[]"), ("a[]", "a"), ("a", "a[b]"), ("a[b]", "a"), ("a[]", "a[b]"), ("a[b]", "a[b]"), ("a[b]", "a[b][]")],
)
def test_what_stands_twice(names: tuple[str, ...]) -> None:
    parts = read(form(("model", b"m"), ("file", b"x"), *((name, b"1") for name in names)))
    with pytest.raises(RequestError, match="stands twice"):
        parse_form(Endpoint.TRANSCRIPTIONS, [], parts, CODEC)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("image", "image[1]"), "no object may hold"),
        (("image[0]", "image[1]"), "no object may hold"),
        (("image[a][]",), "no object may hold"),
    ],
)
def test_a_file_stands_alone_or_in_a_list(names: tuple[str, ...], says: str) -> None:
    """Else a server could be sent several pictures where one is counted."""
    texts = read(form(("model", b"m"), ("prompt", b"x")))
    files = tuple(Part(name, 0, 9, filename="a.png") for name in names)
    with pytest.raises(RequestError, match=says):
        parse_form(Endpoint.IMAGE_EDITS, [], texts._replace(parts=texts.parts + files), CODEC)


def test_a_file_has_no_members() -> None:
    texts = read(form(("model", b"m"), ("prompt", b"x"), ("image[x]", b"1")))
    parts = (Part("image", 0, 9, filename="a.png"), *texts.parts)
    with pytest.raises(RequestError, match="stands twice"):
        parse_form(Endpoint.IMAGE_EDITS, [], texts._replace(parts=parts), CODEC)


def test_hints_in_a_form_stay_here() -> None:
    """As `extra_body={"metadata": {...}}` is written by OpenAI's SDKs; of a JSON body they are taken out, too."""
    hints = (("metadata[task]", b"notes"), ("metadata[tags][]", b"a"), ("metadata[tags][]", b"b"))
    parts = read(form(("model", b"m"), *hints, ("metadata[own]", b"1"), ("file", b"x")))
    call = parse_form(Endpoint.TRANSCRIPTIONS, [], parts, CODEC)
    assert (call.hints.task, call.hints.tags) == ("notes", frozenset({"a", "b"}))
    pieces = outgoing_parts(parts, model="m", set={}, drop=frozenset(), json=CODEC)
    sent = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    assert b'name="metadata[own]"' in sent
    assert b"metadata[t" not in sent


def test_a_model_has_one_name() -> None:
    with pytest.raises(RequestError, match="model must be"):
        parse_form(Endpoint.TRANSCRIPTIONS, [], read(form(("model[a]", b"m"), ("file", b"x"))), CODEC)


@pytest.mark.parametrize("size", [0, IN_MEMORY, IN_MEMORY + 1, WRITTEN * 3 + 5])
def test_what_is_written_can_be_read_again(size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]

    async def run() -> None:
        spool = Spool(Room())
        for at in range(0, size, 10_000):
            await spool.write(content[at : at + 10_000])
        await spool.finish()
        assert await spool.read(0, size) == content
        assert await asyncio.gather(*(spool.read(at, 7) for at in range(0, size - 7, 50_000))) == [
            content[at : at + 7] for at in range(0, size - 7, 50_000)
        ]
        spool.close()

    asyncio.run(run())


def test_there_is_only_so_much_room() -> None:
    room = Room(1_000_000)

    async def fill() -> Spool:
        spool = Spool(room)
        await spool.write(bytes(600_000))
        return spool

    async def run() -> None:
        first = await fill()
        with pytest.raises(Overloaded):
            await fill()
        first.close()
        (await fill()).close()

    asyncio.run(run())


def test_which_requests_are_forms() -> None:
    assert boundary_of("application/json") is None
    assert boundary_of('multipart/form-data; boundary="a b"') == b"a b"
