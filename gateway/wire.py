"""JSON at speed: one of two files that import msgspec. Bytes in, the core's neutral views out.

`core` takes its codec as data (`gateway.core.call.Json`), so that its decisions stay standard library only; `CODEC` is
the implementation that serves. msgspec skips values it is not asked for, which makes looking into a large request cost
about 0.3 ms a megabyte and no memory (docs/decisions/0003-json-codec.md).
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.core.call import Source

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_utf8 = getincrementaldecoder("utf-8")
_CHUNK = 64 * 1024


class MsgspecJson:
    """Implements `gateway.core.call.Json`."""

    def members(self, body: bytes) -> Mapping[str, Source]:
        try:
            if not body.isascii():
                _check_utf8(body)  # msgspec does not check strings that it skips
            return _members.decode(body)
        except UnicodeDecodeError:
            raise ValueError("the body is not valid UTF-8") from None
        except RecursionError:
            raise ValueError("the body is nested too deeply") from None
        except msgspec.ValidationError:
            raise ValueError("the body must be a JSON object") from None
        except msgspec.DecodeError as error:
            raise ValueError(f"the body is not valid JSON: {error}") from None

    def loads(self, raw: bytes | memoryview) -> Any:  # noqa: ANN401 - JSON can be anything
        try:
            return msgspec.json.decode(raw)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from None

    def dumps(self, value: object) -> bytes:
        return msgspec.json.encode(value)


def _check_utf8(body: bytes) -> None:
    """Raises UnicodeDecodeError. Piecewise: the text of a large body is never held."""
    decoder = _utf8()
    view = memoryview(body)
    for start in range(0, len(body), _CHUNK):
        decoder.decode(view[start : start + _CHUNK])
    decoder.decode(b"", final=True)


CODEC = MsgspecJson()
