"""Who serves which conversation: what one process remembers of it.

Nothing is kept of what needs no memory: a conversation whose model and replica any worker would choose alike. What
differs from that, because something failed or because an order looks at prices or load, is told to the other workers of
the machine. A conversation that nobody remembers is placed anew, which costs it no more than a cold prompt cache
(docs/decisions/0007-replicas-and-sticky.md).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from gateway.core.call import Call, Principal
from gateway.core.replicas import favourite
from gateway.core.routing import Plan, Target
from gateway.core.sticky import Conversation, Place, conversation_key, session_key, worth_keeping

MOST = 100_000  # conversations
IDLE = 3600.0  # seconds without an answer until one is forgotten
TELL_AGAIN = IDLE / 2  # seconds until others are reminded of one that they may have forgotten
KEY_BYTES = 16


class _Entry(NamedTuple):
    place: Place
    used: float  # when it was last answered
    told: float  # when the others were, or would have been


class Sessions:
    """Implements `gateway.core.rules.Kept`. Belongs to one event loop; `clock` is monotonic, in seconds.

    `tell` sends a few bytes to the other workers; what `take` there makes of them is best effort.
    """

    def __init__(
        self, tell: Callable[[bytes], None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()  # the one unused for longest first

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, /) -> Place | None:
        entry = self._entries.get(key)
        return entry.place if entry is not None and self._clock() - entry.used < IDLE else None

    def answered(self, plan: Plan, call: Call, principal: Principal, target: Target) -> None:
        """Remembers who answered. Costs nothing where the plan says that the call belongs to no conversation."""
        conversation = plan.conversation
        if conversation is None:
            return
        binds = conversation.sticky or worth_keeping(call, target.model)
        if not conversation.key and not binds:
            return
        expected = _expected(conversation, target, binds=binds)
        if expected and not conversation.sticky and not self._entries:
            return
        key = conversation.key or _key_of(plan, call, principal)
        if not key:
            return
        before = self.get(key)
        place = _place(target)
        if conversation.key and before != conversation.kept and place == _place(plan.targets[0]):
            return  # it went as planned, but something that happened meanwhile is known by now, and is news to the plan
        if before is not None or conversation.sticky or not expected:
            self._remember(key, place, before, expected=expected)

    def take(self, payload: bytes) -> None:
        """What another worker told."""
        model, separator, replica = payload[KEY_BYTES:].decode(errors="replace").partition("\0")
        if separator:
            now = self._clock()
            self._put(payload[:KEY_BYTES], _Entry((model, replica), now, now))

    def _remember(self, key: bytes, place: Place, before: Place | None, *, expected: bool) -> None:
        now = self._clock()
        told = self._entries[key].told if before is not None else now
        news = place != before if before is not None else not expected
        if news or (not expected and now - told >= TELL_AGAIN):
            told = now
            if self._tell is not None:
                self._tell(key + "\0".join(place).encode())
        self._put(key, _Entry(place, now, told))

    def _put(self, key: bytes, entry: _Entry) -> None:
        entries = self._entries
        entries[key] = entry
        entries.move_to_end(key)
        self._drop_oldest(entry.used)

    def _drop_oldest(self, now: float) -> None:
        """Those that are idle for too long, two at most for each that comes, and what is too many."""
        entries = self._entries
        for _ in range(2):
            oldest = next(iter(entries.values()))
            if len(entries) <= MOST and now - oldest.used < IDLE:
                return
            entries.popitem(last=False)


def _place(target: Target) -> Place:
    return target.model.name, target.replica.name


def _expected(conversation: Conversation, target: Target, *, binds: bool) -> bool:
    """Whether any worker would choose this target for the conversation without a memory."""
    model, replica = target.model, target.replica
    if binds and model.name != conversation.anew:
        return False
    several = len(model.replicas) > 1
    return not (several and conversation.session) or favourite(model.replicas, conversation.session) == replica


def _key_of(plan: Plan, call: Call, principal: Principal) -> bytes:
    session = session_key(call)
    return conversation_key(principal, plan.route, session) if session else b""
