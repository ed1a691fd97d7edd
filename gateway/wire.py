"""JSON at speed: the only file that imports msgspec. Bytes in, the core's neutral views out.

`core` takes its codec as data (`gateway.core.call.Json`), so that its decisions stay standard library only; `CODEC` is
the implementation that serves. msgspec skips values it is not asked for, which makes looking into a large request cost
about 0.3 ms a megabyte and no memory (docs/decisions/0003-json-codec.md).
"""

from __future__ import annotations

from typing import Any

import msgspec

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class MsgspecJson:
    """Implements `gateway.core.call.Json`."""

    def members(self, body: bytes) -> dict[str, bytes]:
        """Top-level members of an object. A repeated name is left to `gateway.core.splice`, which sees the positions."""
        try:
            if not body.isascii():
                body.decode()  # msgspec does not check strings that it skips
            return {name: bytes(raw) for name, raw in _members.decode(body).items()}
        except UnicodeDecodeError as error:
            raise ValueError(f"the body is not valid UTF-8 (byte {error.start})") from None
        except RecursionError:
            raise ValueError("the body is nested too deeply") from None
        except msgspec.ValidationError:
            raise ValueError("the body must be a JSON object") from None
        except msgspec.DecodeError as error:
            raise ValueError(f"the body is not valid JSON: {error}") from None

    def loads(self, raw: bytes) -> Any:
        try:
            return msgspec.json.decode(raw)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from None

    def dumps(self, value: Any) -> bytes:
        return msgspec.json.encode(value)


CODEC = MsgspecJson()
