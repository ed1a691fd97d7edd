"""Top-level members of a request body, checked on first use. What is wrong is named; its content is never repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.core.splice import Span
from gateway.errors import RequestError

if TYPE_CHECKING:  # `call` imports this module
    from gateway.core.call import Json

_EMPTY_ARRAY = re.compile(rb"\[[ \t\n\r]*+\]")
_WHOLE = re.compile(rb"([0-9]{1,10})(?:\.0{1,20})?")  # 2.0 is a whole number too (JSON Schema, "integer")


class Fields:
    """A body and where its members stand. Everywhere, null means the same as no member. Raises RequestError (400)."""

    __slots__ = ("_json", "body", "members")

    def __init__(self, body: bytes, members: Mapping[str, Span], json: Json) -> None:
        self.body = body
        self.members = members
        self._json = json

    def size(self, name: str) -> int:
        """Bytes of a member's source; 0 where there is none."""
        span = self.members.get(name)
        return 0 if span is None else span[1] - span[0]

    def source(self, name: str) -> bytes:
        span = self.members.get(name)
        if span is None:
            return b""
        source = self.body[span[0] : span[1]]
        return b"" if source == b"null" else source

    def value(self, name: str) -> Any:  # noqa: ANN401 - JSON can be anything
        """Decoded, without a copy of the source."""
        span = self.members.get(name)
        if span is None:
            return None
        try:
            return self._json.loads(memoryview(self.body)[span[0] : span[1]])
        except ValueError as error:
            raise RequestError(f"{name} cannot be read: {error}", param=name) from None

    def flag(self, name: str) -> bool:
        if name not in self.members:
            return False
        source = self.source(name)
        if source == b"true":
            return True
        if source in (b"", b"false"):
            return False
        raise wrong(name, "true, false or null")

    def whole(self, name: str, highest: int) -> int | None:
        """An integer from 1 to `highest`."""
        if name not in self.members or not (source := self.source(name)):
            return None
        found = _WHOLE.fullmatch(source)
        number = int(found[1]) if found else 0
        if not 1 <= number <= highest:
            raise wrong(name, f"a whole number from 1 to {highest}, or null")
        return number

    def array(self, name: str) -> bool:
        """Whether it is an array that holds something."""
        return self._opens(name, b"[", "an array or null") and not self._is_empty(name)

    def object(self, name: str) -> bytes:
        """The source of an object; empty where there is none."""
        return self.source(name) if self._opens(name, b"{", "an object or null") else b""

    def _opens(self, name: str, bracket: bytes, expected: str) -> bool:
        span = self.members.get(name)
        if span is None or self.body.startswith(b"null", span[0]):
            return False
        if not self.body.startswith(bracket, span[0]):
            raise wrong(name, expected)
        return True

    def _is_empty(self, name: str) -> bool:
        return _EMPTY_ARRAY.match(self.body, self.members[name][0]) is not None


def wrong(param: str, expected: str) -> RequestError:
    return RequestError(f"{param} must be {expected}", param=param)
