"""What `report` and `plan` share: the period, the ledger, and progress."""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from gateway.config.fields import parse_duration
from gateway.config.types import Config


class Period(NamedTuple):
    """Unix seconds: [since, until)."""

    since: float
    until: float

    def words(self) -> str:
        return f"{moment(self.since)} to {moment(self.until)}"


def configure(parser: argparse.ArgumentParser, *, since: str) -> None:
    parser.add_argument("--since", default=since, type=_moment, metavar="WHEN",
                        help="from when on: 7d, 12h, or a date such as 2026-11-01 (UTC; %(default)s)")  # fmt: skip
    parser.add_argument("--until", default=None, type=_moment, metavar="WHEN", help="until when (default: now)")
    parser.add_argument("--ledger", metavar="FILE", help="another ledger than the configuration's, a copy of it, say")
    parser.add_argument("--progress", action="store_true", help="a progress bar, also where stderr is no terminal")


def period(args: argparse.Namespace) -> Period:
    """Raises ValueError with a sentence for people."""
    since, until = args.since, time.time() if args.until is None else args.until
    if since >= until:
        raise ValueError(f"--since {moment(since)} is not before --until {moment(until)}")
    return Period(since, until)


def ledger(config: Config, args: argparse.Namespace) -> Path:
    given: str = args.ledger or config.ledger
    return Path(given.removeprefix("sqlite:///"))


def unreadable(path: Path, error: Exception) -> str:
    """Why a ledger cannot be read, and what to do about it."""
    if not path.exists():
        return f"there is no ledger at {path} yet: `gateway serve` makes it (stores.ledger)"
    return f"the ledger {path} cannot be read: {error}"


def progress(total: int, what: str, *, shown: bool) -> Any:  # noqa: ANN401 - tqdm has no types
    """On stderr; only on a terminal unless `shown`."""
    from tqdm import tqdm  # noqa: PLC0415 - for long work only

    hidden = False if shown else None  # None: tqdm looks whether it is a terminal
    return tqdm(total=total, desc=what, unit=" requests", file=sys.stderr, disable=hidden, dynamic_ncols=True)


def moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _moment(text: str) -> float:
    """A duration counts back from now; a date or time without a zone is UTC."""
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 7d and no date such as 2026-11-01") from None
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()
