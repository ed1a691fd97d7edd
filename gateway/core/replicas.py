"""Which replica of a model serves a request: the `endpoints:` of one model.

A conversation has a **favourite**, so that the prompt cache of a self-hosted server is used again: the winner of
weighted rendezvous hashing (Thaler and Ravishankar 1998, "Using name-based mappings to increase hit rates"; weights as
in Schindelhauer and Schomaker 2005, "Weighted distributed hash tables"). Every worker finds the same one without being
told, and a replica that comes or goes moves only its own conversations. A favourite that is busy is passed over:
consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018, arXiv:1608.01350).

What belongs to no conversation goes where least is under way for the weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from operator import attrgetter
from typing import NamedTuple

from gateway.core.rules import Model, Replica, Signals, Standing, Target

BALANCE = 1.25  # times the mean in flight: the bound of a favourite; 1 more, so that few requests stay together
_FINE = Standing()
_STIR = 1_000_003.0  # makes a second roll of one that has been used: `weighted` may have drawn the model with it


def load_key(model: str, replica: str) -> str:
    """Where a replica's requests are counted in `Signals.in_flight`."""
    return f"{model}@{replica}"


def favourite(replicas: Sequence[Replica], session: str) -> Replica:
    """Of a conversation, when all replicas are fine and none is busy. Shares follow the weights."""
    return max(replicas, key=lambda replica: _score(replica.name, replica.weight, session))


def expand(targets: Sequence[Target], signals: Signals, session: str, kept: tuple[str, str] | None) -> list[Target]:
    """Each target of a model with several replicas becomes as many in a row, the chosen replica first.

    `session`: what the conversation is known by; empty where there is none. `kept`: the (model, replica) it was
    served by before, which goes before its favourite.
    """
    expanded: list[Target] = []
    for target in targets:
        model = target.model
        if len(model.replicas) == 1:
            expanded.append(target)
            continue
        seen = _seen(model, signals)
        kept_replica = kept[1] if kept is not None and kept[0] == model.name else ""
        first, reason = _of_conversation(seen, session, kept_replica) if session else _least_busy(seen, signals.roll)
        expanded.append(_with(target, first.replica, reason))
        others = sorted(seen, key=attrgetter("blocked", "pressure"))
        expanded += [_with(target, each.replica, f"{each.load} in flight") for each in others if each is not first]
    return expanded


class _Seen(NamedTuple):
    """A replica as it is at the moment."""

    replica: Replica
    load: int  # requests in flight, those of its other clients too where it tells of them
    weight: float  # that counts now: less while it starts slowly, 0 while it is blocked
    pressure: float  # load for its weight
    blocked: bool


def _seen(model: Model, signals: Signals) -> list[_Seen]:
    found = [_look(model, replica, signals) for replica in model.replicas]
    if any(each.weight for each in found):
        return found
    return [each._replace(weight=1.0, pressure=float(each.load)) for each in found]  # there is nothing better


def _look(model: Model, replica: Replica, signals: Signals) -> _Seen:
    load = signals.busy(load_key(model.name, replica.name))
    standings = signals.standing
    standing = standings.get((model.name, replica.name), _FINE) if standings else _FINE
    weight = 0.0 if standing.blocked else replica.weight * standing.share
    return _Seen(replica, load, weight, load / weight if weight else math.inf, bool(standing.blocked))


def _of_conversation(seen: Sequence[_Seen], session: str, kept: str) -> tuple[_Seen, str]:
    home = next((each for each in seen if each.replica.name == kept and each.weight), None)
    reason = "kept for this conversation"
    if home is None:
        home = max(seen, key=lambda each: _score(each.replica.name, each.weight, session))
        reason = "favourite of this conversation"
    if not _busy(home, seen):
        return home, reason
    least = min(seen, key=lambda each: (each.pressure, -_score(each.replica.name, each.weight, session)))
    return least, f"least busy ({least.load} in flight), since {home.replica.name} has {home.load}"


def _busy(one: _Seen, seen: Sequence[_Seen]) -> bool:
    """Whether it has more than its share of what is in flight, by a quarter and one request."""
    total = sum(each.load for each in seen if each.weight)
    share = one.weight / sum(each.weight for each in seen)
    return one.load > BALANCE * total * share + 1


def _least_busy(seen: Sequence[_Seen], roll: float) -> tuple[_Seen, str]:
    """Ties are drawn by weight."""
    least = min(each.pressure for each in seen)
    ties = [each for each in seen if each.pressure == least]
    left = math.fmod(roll * _STIR, 1.0) * sum(each.weight for each in ties)
    for each in ties:
        if left < each.weight:
            break
        left -= each.weight
    return each, f"least busy ({each.load} in flight)"


def _score(name: str, weight: float, session: str) -> float:
    """The highest wins. -weight / ln(h), with h uniform in (0, 1) from the hash of replica and conversation."""
    number = int.from_bytes(blake2b(f"{name}\0{session}".encode(), digest_size=8).digest()) >> 12
    return -weight / math.log((number + 0.5) * 2.0**-52)  # 52 bits: with more it could be rounded to 1


def _with(target: Target, replica: Replica, reason: str) -> Target:
    return target._replace(replica=replica, why=f"{target.why}, replica {replica.name}: {reason}")
