"""What requests hold that are no conversation: to be moderated, ranked, drawn, spoken or heard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.core.content import ATTACHMENT_TOKENS, Content, read_input, read_messages
from gateway.core.usage import text_bytes as size_of

if TYPE_CHECKING:  # it imports `forms`, which imports this module
    from gateway.core.fields import Fields


def read_moderation(_: Fields, given: Any) -> Content:  # noqa: ANN401 - JSON can be anything
    """A string, strings, or parts of one message: platform.openai.com/docs/api-reference/moderations.

    What a model must be able to take is not asked: the endpoint itself says it.
    """
    if isinstance(given, list) and any(isinstance(part, dict) for part in given):
        return read_messages([{"role": "user", "content": given}])._replace(has=frozenset())
    return read_input(given)


def read_ranking(fields: Fields, given: Any) -> Content:  # noqa: ANN401 - JSON can be anything
    """A query, which the model reads anew with each document: docs.cohere.com/reference/rerank, jina.ai/reranker.

    A document is a string, or an object whose strings are its text.
    """
    query = fields.value("query")
    query = query if isinstance(query, str) else ""
    sizes = document_sizes(given)
    items = max(1, len(sizes))
    return Content(last_message=query, text_bytes=sum(sizes) + items * size_of(query), items=items)


def document_sizes(documents: object) -> list[int]:
    """Bytes of each document's text."""
    return [_document_size(each) for each in documents] if isinstance(documents, list) else []


def _document_size(document: object) -> int:
    texts = document.values() if isinstance(document, Mapping) else (document,)
    return sum(size_of(text) for text in texts if isinstance(text, str))


def read_text(_: Fields, given: Any) -> Content:  # noqa: ANN401 - JSON can be anything
    """One text: what is to be drawn or spoken."""
    text = given if isinstance(given, str) else ""
    return Content(last_message=text, text_bytes=size_of(text))


def read_edit(fields: Fields, given: Any) -> Content:  # noqa: ANN401 - JSON can be anything
    """The same, with the pictures that are to be changed: files, or in JSON `images` by URL or by a file's id."""
    pictures = [picture for name in ("image", "images", "mask") for picture in _listed(fields.value(name))]
    count = len(pictures)
    remote = any(isinstance(each, dict) and "bytes" not in each and not _inline(each) for each in pictures)
    return read_text(fields, given)._replace(attachments=count, tokens=count * ATTACHMENT_TOKENS, remote=remote)


def read_sound(fields: Fields, _: Any) -> Content:  # noqa: ANN401 - JSON can be anything
    """A recording, and a text that says what it may be about."""
    text = read_text(fields, fields.value("prompt"))
    return text._replace(attachments=1, tokens=ATTACHMENT_TOKENS)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _inline(picture: Mapping[str, object]) -> bool:
    return any(isinstance(value, str) and value.startswith("data:") for value in picture.values())
