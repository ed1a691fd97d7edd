"""What Anthropic, Gemini and Bedrock answer, as their documentation says; none of it was recorded from them.

Sources, read 2026-11-25: docs.anthropic.com/en/api/messages, /messages-streaming and /errors;
ai.google.dev/api/generate-content; docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html,
/API_runtime_ConverseStream.html and docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html (the framing
of event streams). Azure's are OpenAI's: `tests/replies.py`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.replies import END, chunked, http, stream_head
from tests.upstream import Gate, Received, Reply, Step

ANTHROPIC_USAGE = {
    "input_tokens": 20,
    "cache_creation_input_tokens": 30,
    "cache_read_input_tokens": 50,
    "output_tokens": 12,
}
TOOL_INPUT = {"city": "Oslo", "unit": "c"}


def named(name: str, **data: Any) -> bytes:
    return chunked(f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode())


def anthropic(*blocks: Mapping[str, Any], stop: str = "end_turn", gate: Gate | None = None, error: str = "") -> Reply:
    """`blocks`: of the content. `gate`: after the first piece of the first. `error`: of an event after that piece."""

    def reply(received: Received) -> Iterator[Step]:
        message = {"id": "msg_01", "type": "message", "role": "assistant", "model": received.model}
        if not received.stream:
            whole = {**message, "content": list(blocks), "stop_reason": stop, "stop_sequence": None}
            if gate is not None:
                yield gate
            body = json.dumps({**whole, "usage": ANTHROPIC_USAGE}).encode()
            yield http(200, body, {"request-id": "req_anthropic"})
            return
        yield stream_head({"request-id": "req_anthropic"})
        begun = {**ANTHROPIC_USAGE, "output_tokens": 1}
        started: dict[str, Any] = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": begun}
        yield named("message_start", message=started)
        yield named("ping")
        for index, block in enumerate(blocks):
            empty, pieces = _pieces(block)
            yield named("content_block_start", index=index, content_block=empty)
            for number, piece in enumerate(pieces):
                yield named("content_block_delta", index=index, delta=piece)
                if index == number == 0:
                    if gate is not None:
                        yield gate
                    if error:
                        yield named("error", error={"type": error, "message": "Overloaded"})
                        yield END
                        return
            yield named("content_block_stop", index=index)
        yield named("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage={"output_tokens": 12})
        yield named("message_stop")
        yield END

    return reply


def _pieces(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    kind = block["type"]
    if kind == "text":
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": part} for part in _split(block["text"])]
    if kind == "thinking":
        pieces = [{"type": "thinking_delta", "thinking": part} for part in _split(block["thinking"])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {"type": "thinking", "thinking": "", "signature": ""}, [*pieces, signed]
    source = json.dumps(block["input"])
    pieces = [{"type": "input_json_delta", "partial_json": part} for part in ("", source[:9], source[9:])]
    return {**block, "input": {}}, pieces


def _split(text: str) -> Iterable[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


def anthropic_error(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011"}
    return lambda _: iter([http(status, json.dumps(body).encode(), headers)])


GEMINI_USAGE = {
    "promptTokenCount": 100,
    "cachedContentTokenCount": 40,
    "candidatesTokenCount": 8,
    "thoughtsTokenCount": 25,
    "totalTokenCount": 133,
}


def gemini(*parts: Mapping[str, Any], finish: str = "STOP") -> Reply:
    def piece(part: Mapping[str, Any], last: bool) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": 0}
        if last:
            candidate["finishReason"] = finish
        usage = GEMINI_USAGE if last else {"promptTokenCount": 100, "totalTokenCount": 100}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash"}

    def reply(received: Received) -> Iterator[Step]:
        if ":streamGenerateContent" in received.path:
            yield stream_head()
            for number, part in enumerate(parts, 1):
                yield chunked(f"data: {json.dumps(piece(part, number == len(parts)))}\r\n\r\n".encode())
            yield END
        elif ":generateContent" in received.path:
            whole = piece(parts[-1], last=True)
            whole["candidates"][0]["content"]["parts"] = list(parts)
            yield http(200, json.dumps(whole).encode())
        else:  # :batchEmbedContents
            count = len(received.json["requests"])
            body = {"embeddings": [{"values": [0.25, -0.5]} for _ in range(count)]}
            yield http(200, json.dumps(body).encode())

    return reply


def gemini_error(status: int, word: str, message: str) -> Reply:
    body = {"error": {"code": status, "message": message, "status": word}}
    return lambda _: iter([http(status, json.dumps(body).encode())])


BEDROCK_USAGE = {"inputTokens": 15, "outputTokens": 7, "totalTokens": 22}


def bedrock(text: str) -> Reply:
    def reply(received: Received) -> Iterator[Step]:
        if received.path.endswith("/converse-stream"):
            yield stream_head({"content-type": "application/vnd.amazon.eventstream", "x-amzn-requestid": "amz-1"})
            yield _framed("messageStart", {"role": "assistant"})
            for part in _split(text):
                yield _framed("contentBlockDelta", {"delta": {"text": part}, "contentBlockIndex": 0})
            yield _framed("contentBlockStop", {"contentBlockIndex": 0})
            yield _framed("messageStop", {"stopReason": "end_turn"})
            yield _framed("metadata", {"usage": BEDROCK_USAGE, "metrics": {"latencyMs": 20}})
            yield END
            return
        output = {"message": {"role": "assistant", "content": [{"text": text}]}}
        whole = {"output": output, "stopReason": "end_turn", "usage": BEDROCK_USAGE, "metrics": {"latencyMs": 20}}
        yield http(200, json.dumps(whole).encode(), {"x-amzn-requestid": "amz-1"})

    return reply


def bedrock_error(status: int, kind: str, message: str) -> Reply:
    return lambda _: iter([http(status, json.dumps({"message": message}).encode(), {"x-amzn-errortype": kind})])


def _framed(name: str, payload: Mapping[str, Any]) -> bytes:
    """One message of an event stream: lengths, their checksum, headers, payload, checksum of all."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    head = b"".join(
        struct.pack("!B", len(key)) + key.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for key, value in headers.items()
    )
    body = json.dumps(payload).encode()
    lengths = struct.pack("!II", 16 + len(head) + len(body), len(head))
    message = lengths + struct.pack("!I", zlib.crc32(lengths)) + head + body
    return chunked(message + struct.pack("!I", zlib.crc32(message)))
