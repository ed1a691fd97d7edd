"""What a request looks like at each endpoint: where its content stands, what caps its output, what else differs.

Everything that asks "which endpoint is it?" of a request's body asks this table. To add an endpoint: a name in
`Endpoint`, a row in `FORMS`, and for answers a row in `gateway.views.VIEWS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.core.content import Content, read_input, read_items, read_messages, with_system
from gateway.core.inputs import read_edit, read_moderation, read_ranking, read_sound, read_text
from gateway.core.passing import MODEL

if TYPE_CHECKING:  # `fields` needs nothing of this module, but `call`, which it names, does
    from gateway.core.fields import Fields


class Endpoint(StrEnum):
    """What is asked for; the value is the path below `/v1`, on our side and upstream."""

    CHAT = "/chat/completions"
    COMPLETIONS = "/completions"
    EMBEDDINGS = "/embeddings"
    COUNT_TOKENS = "/messages/count_tokens"  # docs.anthropic.com/en/api/messages-count-tokens
    MESSAGES = "/messages"  # Anthropic's API: docs.anthropic.com/en/api/messages
    RESPONSES = "/responses"  # platform.openai.com/docs/api-reference/responses
    MODERATIONS = "/moderations"
    RERANK = "/rerank"  # Cohere's, as Jina, vLLM and others have it: docs.cohere.com/reference/rerank
    IMAGES = "/images/generations"
    IMAGE_EDITS = "/images/edits"
    SPEECH = "/audio/speech"
    TRANSCRIPTIONS = "/audio/transcriptions"
    TRANSLATIONS = "/audio/translations"
    PASSTHROUGH = "passthrough"  # whatever a provider's `passthrough:` lets through; no path of ours


class Form(NamedTuple):
    """A row. Growth: how many times as many tokens as bytes there may be of what is not ASCII, by normalisation."""

    content: str  # the member that must be there and holds the content
    read: Callable[[Fields, Any], Content]  # takes the content, decoded
    caps: tuple[str, ...] = ()  # members that cap the output, the one that wins first; none: it writes no text
    schema: tuple[str, ...] = ()  # members that ask for JSON of a shape
    user: tuple[str, ...] = ("user",)  # where the client's own word for its end user stands
    api: str = "chat"  # its name in a provider's `apis:`
    messages: bool = False  # the content is an array of message objects and nothing else
    turns: bool = False  # the content begins alike in every turn of a conversation
    choices: bool = False  # several answers may be asked for, with `n`
    free: bool = False  # it makes nothing and costs nothing; where its server lacks it, the gateway answers itself
    asks_usage: bool = False  # a stream brings usage only where `stream_options.include_usage` asks for it
    kept: tuple[str, ...] = ()  # members that refer to what one provider keeps
    refused: Mapping[str, str] = {}  # flags that nobody may set, and why
    streams: tuple[str, object] = ("stream", True)  # the member that asks for events, and its value; "": none does
    model: str = ""  # that is meant where the request names none
    sold: str = ""  # what is sold instead of tokens, or beside them: a row in `pieces.PIECES`
    binary: bool = False  # an answer that is not made of events is bytes, which pass as they come
    multipart: bool = False  # the request may be a form with files
    speaks_text: bool = False  # some `response_format` are no JSON
    may_be_whole: bool = False  # some models answer whole where a stream is asked for


def _messages(fields: Fields, messages: Any) -> Content:  # noqa: ANN401 - JSON can be anything
    return with_system(read_messages(messages), fields.value("system"))


def _responses(fields: Fields, given: Any) -> Content:  # noqa: ANN401 - JSON can be anything
    return with_system(read_items(given), fields.value("instructions"))


FORMS: Mapping[Endpoint, Form] = {
    Endpoint.CHAT: Form(
        "messages",
        lambda _, messages: read_messages(messages),
        caps=("max_completion_tokens", "max_tokens"),
        schema=("response_format",),
        messages=True,
        turns=True,
        choices=True,
        asks_usage=True,
    ),
    Endpoint.COMPLETIONS: Form(
        "prompt",
        lambda _, prompt: read_input(prompt),
        caps=("max_completion_tokens", "max_tokens"),
        choices=True,
        asks_usage=True,
    ),
    Endpoint.EMBEDDINGS: Form("input", lambda _, given: read_input(given)),
    Endpoint.COUNT_TOKENS: Form(
        "messages",
        _messages,
        schema=("output_config", "output_format"),
        user=("metadata", "user_id"),
        messages=True,
        turns=True,
        api="count_tokens",
        free=True,
    ),
    Endpoint.MESSAGES: Form(
        "messages",
        _messages,
        caps=("max_tokens",),
        schema=("output_config", "output_format"),  # the second while it was a beta
        user=("metadata", "user_id"),
        messages=True,
        turns=True,
        api="messages",
    ),
    Endpoint.RESPONSES: Form(
        "input",
        _responses,
        caps=("max_output_tokens",),
        schema=("text",),
        api="responses",
        turns=True,
        kept=("previous_response_id", "conversation", "prompt"),
        refused={"background": "is not served here: what it costs is known only after the answer, which nobody awaits"},
    ),
    # platform.openai.com/docs/api-reference/moderations/create says which model is meant by default.
    Endpoint.MODERATIONS: Form("input", read_moderation, model="omni-moderation-latest"),
    Endpoint.RERANK: Form("documents", read_ranking, streams=("", None), sold="searches"),
    Endpoint.IMAGES: Form("prompt", read_text, choices=True, sold="images"),
    Endpoint.IMAGE_EDITS: Form("prompt", read_edit, choices=True, sold="images", multipart=True),
    Endpoint.SPEECH: Form("input", read_text, streams=("stream_format", "sse"), sold="speech", binary=True),
    # whisper-1 takes no notice of `stream`: platform.openai.com/docs/api-reference/audio/createTranscription.
    Endpoint.TRANSCRIPTIONS: Form(
        "file", read_sound, sold="sound", multipart=True, speaks_text=True, may_be_whole=True
    ),
    Endpoint.TRANSLATIONS: Form("file", read_sound, sold="sound", multipart=True, speaks_text=True, may_be_whole=True),
    Endpoint.PASSTHROUGH: Form("input", read_text, model=MODEL),
}
