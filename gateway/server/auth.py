"""Who calls: a key from the headers -> Principal. No key, no access, unless there never was one."""

from __future__ import annotations

import datetime
import hashlib
import hmac
from collections.abc import Sequence

from gateway.config.types import Config, Key
from gateway.core.call import Principal
from gateway.errors import RequestError
from gateway.keyring import Keyring

ANONYMOUS = Principal()


class Authenticator:
    """Checks keys by their SHA-256 digests: no comparison sees a key's bytes."""

    def __init__(self, config: Config, keyring: Keyring) -> None:
        """The file's keys, and the created ones as they are now: make another when `keyring.version` has changed."""
        self._open = not (config.keys_declared or keyring.used)
        self._keys: dict[bytes, Key] = {**keyring.keys, **{key.sha256: key for key in config.keys}}

    def identify(self, headers: Sequence[tuple[bytes, bytes]]) -> Principal:
        """Raises RequestError 401 for a missing, unknown or expired key. All three say the same to a guesser."""
        if self._open:
            return ANONYMOUS
        given = _presented(headers)
        if given is None:
            raise _unauthorized("No API key was given. Send it as 'Authorization: Bearer <key>' or as 'x-api-key'.")
        digest = hashlib.sha256(given).digest()
        key = self._keys.get(digest)
        if key is None or not hmac.compare_digest(key.sha256, digest):
            raise _unauthorized("The API key is not valid here.")
        if key.expires is not None and datetime.datetime.now(datetime.UTC) >= key.expires:
            raise _unauthorized("The API key is not valid here.")
        return key.principal


def _presented(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """The key as sent. `Authorization` wins over `x-api-key`; the scheme's case does not matter (RFC 9110, 11.1)."""
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer" and (token := token.strip()):
                return token
        elif name == b"x-api-key" and value.strip():
            found = value.strip()
    return found


def _unauthorized(message: str) -> RequestError:
    headers = {"www-authenticate": "Bearer"}
    return RequestError(message, status=401, type="authentication_error", code="invalid_api_key", headers=headers)
