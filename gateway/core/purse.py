"""What one process holds of one account: the arithmetic of leases, without the store behind it.

Vocabulary: money is **held** in the store for this process; of that, some is **reserved** for calls under way, some is
**spent** by calls that ended and not yet told to the store, and the rest is **free**. The store counts what is held as
gone, so that no sum of what processes reserve can pass a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.core.budgets import Account, Budget, Touch

FEW = 100
"""With fewer than so many ceilings left in a budget there is no leasing; a lease is one part in so many of what is."""

IDLE = 5.0  # seconds without a call until a lease is given back


class Seen(NamedTuple):
    """An account in the store. Nano-USD."""

    settled: int
    held: int  # by all processes


class Update(NamedTuple):
    """What the store is told of an account: `spent` is settled, and `hold` is what this process goes on holding."""

    account: Account
    ends: float  # unix seconds
    limit: int
    percents: tuple[int, ...]  # thresholds that are not known to have been crossed
    spent: int
    hold: int


class Need(NamedTuple):
    account: Account
    ends: float  # unix seconds
    limit: int
    nano: int  # that this process has not got already; may be 0


class Want(NamedTuple):
    """What a call needs, in all of its accounts or in none."""

    needs: tuple[Need, ...]
    ceiling: int


class Granted(NamedTuple):
    """By need: what the process holds more than before, a lease included."""

    nano: tuple[int, ...]


class Shortage(NamedTuple):
    """`spent`: by settled cost alone; otherwise what is held for calls under way is in the way."""

    account: Account
    spent: bool


class Report(NamedTuple):
    """What the store says."""

    seen: dict[Account, Seen]  # every account that was named
    answers: list[Granted | Shortage]  # one for each want
    crossed: list[tuple[Account, int]]  # account and percent: thresholds crossed just now, here and nowhere else
    known_crossed: list[tuple[Account, int]]  # thresholds that have been crossed, now or before
    aliases: dict[Account, Account]  # users beyond the most that are told apart -> the account they share


class Purse:
    """One account. Nano-USD; never negative, but that an overrun may leave `free` below nothing for a moment."""

    __slots__ = (
        "account",
        "budget",
        "ceiling",
        "crossed",
        "ends",
        "first",
        "forgotten",
        "held",
        "known",
        "limit",
        "reserved",
        "seen",
        "spent",
        "telling",
        "used",
        "waiting",
    )

    def __init__(self, account: Account, budget: Budget, ends: float) -> None:
        self.account = account
        self.ends = ends
        self.held = 0  # in the store, once it has been told what is being told now
        self.reserved = 0
        self.spent = 0
        self.telling = 0  # spent, and on its way to the store
        self.seen = Seen(0, 0)  # when the store was last asked
        self.known = False  # whether that may be gone by: a call that finds it is not asks the store first
        self.ceiling = 0  # the largest asked for
        self.crossed: frozenset[int] = frozenset()  # percents
        self.used = 0.0  # seconds on the caller's clock: when a call last asked for it
        self.waiting = 0  # callers in the queue for it
        self.forgotten = False  # nobody asked for it any more
        self.under(budget)

    def under(self, budget: Budget) -> None:
        """The budget as it is now: a reload may change all of it but its window."""
        self.budget = budget
        self.limit = budget.limit_nano
        self.first = budget.at[0].percent * self.limit  # hundredths of nano-USD: below it no threshold is reached

    @property
    def free(self) -> int:
        return self.held - self.reserved - self.spent

    @property
    def empty(self) -> bool:
        """Nothing would be lost with it."""
        return not (self.held or self.reserved or self.spent or self.telling or self.waiting)

    @property
    def settled(self) -> int:
        """Of the whole account, as far as this process knows: what it has settled itself counts at once."""
        return self.seen.settled + self.spent + self.telling

    def scarce(self) -> bool:
        """Whether fewer than `FEW` ceilings are left, so that nothing may be leased."""
        left = self.limit - self.seen.settled - self.seen.held
        return left < FEW * self.ceiling

    def surplus(self, now: float, *, all_of_it: bool = False) -> int:
        """What is free and to be given back: where it is too little for a caller, little is left, or nobody asks.

        Callers that wait ask for the whole of what they need in the same transaction. If processes kept what is too
        little for each of them, all would wait for all.
        """
        if self.free <= 0:
            return 0
        return self.free if all_of_it or self.waiting or self.scarce() or now - self.used > IDLE else 0

    def tell(self, surplus: int) -> Update:
        """What the store is to be told now. From here on it counts as told; `untell` takes that back."""
        self.telling += self.spent
        spent, self.spent = self.spent, 0
        # After an overrun what is reserved may be more than what is left of the hold: it stays covered.
        self.held = max(self.held - spent - surplus, self.reserved)
        percents = tuple(each.percent for each in self.budget.at if each.percent not in self.crossed)
        return Update(self.account, self.ends, self.limit, percents, spent, self.held)

    def told(self, update: Update, seen: Seen) -> None:
        self.telling -= update.spent
        self.saw(seen)

    def untell(self, update: Update, held: int) -> None:
        """The store could not be told. `held`: before `tell`."""
        self.telling -= update.spent
        self.spent += update.spent
        self.held += held - update.hold

    def saw(self, seen: Seen) -> None:
        self.seen = seen
        self.known = True


class Hold:
    """What one attempt holds, in nano-USD. Settled once."""

    __slots__ = ("cap", "nano", "open", "purses", "touches")

    def __init__(self, touches: Sequence[Touch], nano: int, purses: Sequence[Purse], cap: int | None = None) -> None:
        """`cap`: tokens of output that the upstream is told not to exceed; None: the client's own, or none."""
        self.touches = touches
        self.nano = nano
        self.purses = purses
        self.cap = cap
        self.open = bool(purses)

    @property
    def reserved(self) -> int | None:
        return self.nano if self.touches else None

    @property
    def budgets(self) -> tuple[str, ...]:
        return tuple(touch.budget.name for touch in self.touches)


FREE = Hold((), 0, ())
"""Of an attempt that touches no budget."""


class Short(NamedTuple):
    """No room. `spent`: by what is settled; otherwise what others hold is in the way, and may be given back."""

    touch: Touch
    spent: bool


def calm(purses: Iterable[Purse]) -> bool:
    """Whether no threshold of any is reached."""
    for purse in purses:  # noqa: SIM110 - a generator costs more than the comparisons: this runs for every request
        if (purse.seen[0] + purse.spent + purse.telling) * 100 >= purse.first:
            return False
    return True


def left(purses: Iterable[Purse]) -> int:
    """What remains in the tightest of the budgets, nano-USD; as far as this process knows."""
    least: int | None = None
    for purse in purses:
        settled, held = purse.seen
        told = purse.spent + purse.telling
        here = purse.limit - settled - (told if told > held else held)  # noqa: FURB136 - on the hot path
        if least is None or here < least:
            least = here
    return least or 0


def take(purses: Iterable[Purse], nano: int) -> bool:
    """Reserves it in all accounts, if that needs no store. A call that costs nothing needs none."""
    if nano:
        for purse in purses:
            if not purse.known or purse.waiting or purse.held - purse.reserved - purse.spent < nano:
                return False
        reserve(purses, nano)
    return True


def reserve(purses: Iterable[Purse], nano: int) -> None:
    for purse in purses:
        purse.reserved += nano
        if nano > purse.ceiling:  # noqa: PLR1730 - on the hot path
            purse.ceiling = nano


def want(purses: Sequence[Purse], nano: int, left: dict[Purse, int]) -> Want:
    """What the store has to be asked for. `left`: what is free here and not yet promised to callers before this one."""
    needs = []
    for purse in purses:
        free = left.setdefault(purse, max(0, purse.free))
        taken = min(free, nano)
        left[purse] = free - taken
        needs.append(Need(purse.account, purse.ends, purse.limit, nano - taken))
    return Want(tuple(needs), nano)
