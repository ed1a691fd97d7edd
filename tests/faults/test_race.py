"""Two attempts of one request that speak in the same instant: the loser leaves no trace in what the client is told."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests import replies
from tests.faults.drive import read_events
from tests.replies import END, ERROR, event, words_then
from tests.servers import Gateway
from tests.upstream import CUT, Gate, Received, Reply, Step, Upstream

ROUTES = """
version: 1
providers: {up: {base_url: "@BASE@"}}
models:
  first: {provider: up, price: unmetered}
  second: {provider: up, price: unmetered}
routes:
  - {name: hedged, match: {model: hedged}, use: [first], fallback: [second], retries: 0, hedge: {after: 50ms}}
"""


def at_once(gate: Gate, reply: Reply) -> Reply:
    """Waits for the gate, and then sends all bytes up to the next other step in one piece."""

    def joined(received: Received) -> list[object]:
        steps: list[object] = [gate]
        for step in reply(received):
            if isinstance(step, bytes) and isinstance(steps[-1], bytes):
                steps[-1] += step
            else:
                steps.append(step)
        return steps

    return joined  # type: ignore[return-value]  # they are the reply's own steps


@pytest.mark.parametrize("ending", [(END,), (0.3, CUT)], ids=["at once", "later"])
def test_the_losers_error_is_not_the_clients(tmp_path: Path, ending: tuple[Step, ...]) -> None:
    """The first wins and breaks off; the second, in the same turn of the event loop, brought content and an error."""
    first, second = Gate(), Gate()
    with Upstream(replies.ok()) as upstream, Gateway(tmp_path, ROUTES.replace("@BASE@", upstream.base_url)) as gateway:
        for _ in range(21):  # a route earns a hedge with twenty requests
            assert gateway.chat("hedged", stream=True).headers["x-gateway-model"] == "first"
        upstream.script("first", at_once(first, words_then(ending)))
        upstream.script("second", at_once(second, words_then([event(ERROR) + END])))
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(gateway.chat("hedged", stream=True)))
        asking.start()
        assert first.reached.wait(60)
        assert second.reached.wait(60)
        gateway.signal(signal.SIGSTOP)  # both answers wait in its sockets
        first.open()
        threading.Event().wait(0.1)
        second.open()
        assert upstream.seen("second")[-1].done.wait(60)
        gateway.signal(signal.SIGCONT)
        asking.join(60)
    events = list(read_events(answers[0].content))
    assert answers[0].headers["x-gateway-model"] == "first"
    assert [each.data for each in events if each.data == "[DONE]"] == []
    assert ["error" in each.json for each in events].count(True) == 1
    assert "error" in events[-1].json
