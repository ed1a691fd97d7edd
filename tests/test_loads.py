"""What one process knows of the servers' other clients."""

from __future__ import annotations

from gateway.core.loads import Load
from gateway.loads import Loads


def test_what_we_had_there_when_it_said_so_is_not_from_elsewhere() -> None:
    in_flight = {"m": 2}
    loads = Loads(in_flight)
    loads.take([Load("m", "default", False, 5, 1)])
    assert loads.elsewhere == {"m": 4}
    in_flight["m"] = 7  # ours, sent since: the plan adds them itself
    assert loads.elsewhere == {"m": 4}
    loads.take([Load("m", "default", False, 7, 0)])
    assert loads.elsewhere == {}


def test_replicas_are_told_apart_and_summed() -> None:
    in_flight = {"m": 3, "m@x": 1, "m@y": 2}
    loads = Loads(in_flight)
    loads.take([Load("m", "x", True, 4, 0), Load("m", "y", True, 2, 3)])
    assert loads.elsewhere == {"m@x": 3, "m@y": 3, "m": 6}
    loads.take([Load("m", "x", True, 1, 0)])
    assert loads.elsewhere == {"m@y": 3, "m": 3}


def test_a_queue_is_seen_until_it_is_gone_or_nobody_tells() -> None:
    loads = Loads({})
    assert not loads.queues("m", "x")
    loads.take([Load("m", "x", True, 8, 1), Load("m", "y", True, 8, 0)])
    assert loads.queues("m", "x")
    assert not loads.queues("m", "y")
    loads.take([Load("m", "x", True, 8, 0)])
    assert not loads.queues("m", "x")
    loads.take([Load("m", "x", True, 8, 9)])
    loads.take([Load("m", "x", True, None, None), Load("m", "y", True, None, None)])
    assert not loads.queues("m", "x")
    assert loads.elsewhere == {}
    loads.take([Load("m", "x", True, None, None)])
    assert loads.elsewhere == {}
