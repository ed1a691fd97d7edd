"""The keys made with `gateway keys create`, as the store has them: a revoked one ends within a second."""

from __future__ import annotations

import asyncio
import datetime
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from pydantic import ValidationError

from gateway.config.schema_spending import KeySettings
from gateway.config.spending import principal
from gateway.config.types import Key
from gateway.errors import StoreUnavailable
from gateway.stores.keys import StoredKey, revision, stored
from gateway.stores.schema import connect

LOOK = 0.4  # seconds between two looks: a change is in force everywhere within one (contract, issue 4)
_ALWAYS = datetime.datetime.min.replace(tzinfo=datetime.UTC)  # a revoked key stays so when the clock is set back
BUSY = 2.0  # seconds that a look waits for a writer

log = logging.getLogger("gateway")


class Keyring:
    """One process's view of them. `keys` is replaced, never changed; `version` grows with each replacement."""

    def __init__(self, dsn: str = "", on_change: Callable[[Iterable[Key]], None] = lambda _: None) -> None:
        """`dsn`: of the store, as `stores.counters` has it; without it there are none. `look` reads it first."""
        self._on_change = on_change
        self._path = Path(dsn.removeprefix("sqlite:///")) if dsn else None
        self._revision = 0
        self._failing = False
        self._changed = False
        self.keys: Mapping[bytes, Key] = {}  # by digest; also those that have expired or were revoked
        self.version = 0
        self.used = False
        """Whether a key was ever made: from then on nobody is anonymous, even if all are revoked."""

    def look(self) -> None:
        """Raises StoreUnavailable."""
        if self._path is None:
            return
        try:
            with closing(connect(self._path, busy_seconds=BUSY)) as connection:
                newest = revision(connection)
                found = stored(connection) if newest != self._revision else None
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"the keys in {self._path} cannot be read: {error}") from error
        if found is not None:
            self._revision = newest
            self._changed = True
            self.keys = {key.sha256: made for key in found if (made := _key(key)) is not None}
            self.used = bool(found)
            self.version += 1

    def tell(self) -> None:
        """Tells whoever wants to know of a change; in the thread of the event loop."""
        if self._changed:
            self._changed = False
            self._on_change(self.keys.values())

    async def watch(self) -> None:
        """Looks for ever. While the store cannot be read, the keys that were read last stay in force."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                await asyncio.to_thread(self.look)
                self.tell()
                self._failing = False
            except Exception as error:  # whatever it was, the next key that is revoked must end
                if not self._failing:
                    defect = None if isinstance(error, StoreUnavailable) else error
                    log.error("%s; the keys that were read before stay in force", error, exc_info=defect)
                self._failing = True


def settings_of(key: StoredKey) -> KeySettings:
    """Raises ValidationError where a later release wrote what this one does not know."""
    return KeySettings.model_validate({**key.settings, "name": key.name})


def _key(key: StoredKey) -> Key | None:
    """None, and a line in the log, for settings that cannot be read: what they forbid must not be allowed."""
    try:
        who = principal(settings_of(key))
    except ValidationError as error:
        log.error("the key %s opens nothing, its settings cannot be read: %s", key.name, error.errors()[0]["msg"])
        return None
    return Key(key.sha256, who, key.ends if key.revoked is None else _ALWAYS)
