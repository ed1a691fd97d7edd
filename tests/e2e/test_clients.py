"""Other people's SDKs, each in its own locked environment, against a gateway with the real embedded model.

`scripts/test` makes the environments (.venv-clients/NAME), some only with `--full`. Without it these tests are skipped;
in CI that is a failure.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests import documented as doc
from tests import replies
from tests.compatibility import Suite, check
from tests.dialects import CALLS, NAMES, models, providers, replay
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import STALL, Reply, Upstream

ROOT = Path(__file__).parents[2]
KEY = "sk-client-suite-0123456789"
ROUTES = """
version: 1
providers:
  embedded: {dialect: local, threads: 1, parallel: 2}  # two spin while they wait for each other
  loop: {base_url: "@BASE@"}
  documented: {base_url: "@BASE@"}
  jina: {base_url: "@BASE@"}
@DIALECTS@
models:
  smol: {provider: embedded, hosting: self, price: {usd_per_hour: 0.05, tokens_per_second: {input: 300, output: 90}}}
  loop: {provider: loop, model: loop-up, price: {input: 1, output: 2}}
  forbidden: {provider: loop, price: unmetered}
  broken: {provider: loop, model: broken-up, price: unmetered}
  cut: {provider: loop, model: cut-up, price: unmetered}
  tools: {provider: loop, model: tools-up, price: unmetered}
  thinks: {provider: loop, model: thinks-up, price: unmetered, supports: [reasoning]}
  dollar: {provider: loop, model: dollar-up, price: {input: 0, output: 100000}}
  endless: {provider: loop, model: endless-up, price: unmetered}
  moderated: {provider: documented, model: moderated-up, price: {input: 0, output: 0}}
  drawn: {provider: documented, model: drawn-up, price: {input: 5, output: 40}}
  spoken: {provider: documented, model: spoken-up, price: {per_character: 0.000015}}
  heard: {provider: documented, model: heard-up, price: {per_second: 0.0001}}
  heard-in-events: {provider: documented, model: events-up, price: {input: 2.5, output: 10}}
  ranked: {provider: jina, model: ranked-up, price: {input: 0.05, output: 0}}
@DIALECT_MODELS@
routes:
  - {name: default, match: {model: auto}, use: [smol], baseline: loop}
keys:
  - {name: suite, value: "${KEY}", allow: [auto, smol, loop, broken, cut, tools, thinks, "smoll", @MORE@]}
  - {name: poor-python, value: "poor-python-0123456789", budget: {limit_usd: 1, window: total}}
  - {name: poor-python-2, value: "poor-python-2-0123456789", budget: {limit_usd: 1, window: total}}
  - {name: poor-node, value: "poor-node-0123456789", budget: {limit_usd: 1, window: total}}
  - {name: busy-python, value: "busy-python-0123456789", limits: {max_in_flight: 1}}
  - {name: busy-python-2, value: "busy-python-2-0123456789", limits: {max_in_flight: 1}}
  - {name: busy-node, value: "busy-node-0123456789", limits: {max_in_flight: 1}}
"""
DOCUMENTED: Mapping[str, Reply] = {  # from documentation, never seen live
    "moderated-up": doc.answer(doc.MODERATION),
    "drawn-up": lambda received: (doc.events(*doc.DRAWING) if received.stream else doc.answer(doc.IMAGE))(received),
    "spoken-up": doc.spoken(),
    "heard-up": doc.answer(doc.WHISPER),
    "events-up": doc.events(*doc.HEARING),
    "ranked-up": doc.answer(doc.JINA),
}
# Which provider is which system, beside the exchanges: what docs/compatibility.md calls them.
SYSTEMS = {"embedded": "smollm2", "documented": "openai", "jina": "jina"}
TALKS, BOTH = ("/chat/completions", "/responses"), ("whole", "streamed")
compatible = pytest.mark.compatible


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Upstream(replies.ok()) as upstream, Upstream(replay) as exchanges:
        upstream.always("broken-up", replies.status(500))
        upstream.always("cut-up", replies.cut_after(2))
        upstream.always("tools-up", replies.tool_call())
        upstream.always("thinks-up", replies.reasoning())
        upstream.always("dollar-up", replies.ok(tokens=Tokens(output=10)))  # one dollar
        for model, reply in DOCUMENTED.items():
            upstream.always(model, reply)
        upstream.always("endless-up", replies.words_then([STALL]))
        more = ", ".join(["moderated", "drawn", "spoken", "heard", "heard-in-events", "ranked", *NAMES])
        routes = ROUTES.replace("@BASE@", upstream.base_url).replace("@MORE@", more)
        routes = routes.replace("@DIALECTS@", providers(exchanges.port)).replace("@DIALECT_MODELS@", models())
        with Gateway(tmp_path_factory.mktemp("clients"), routes, env={"KEY": KEY}) as gateway:
            bearer = {"authorization": f"Bearer {KEY}"}
            until("the embedded model", lambda: gateway.chat("smol", headers=bearer, max_tokens=1).is_success)
            yield gateway


def home(name: str) -> Path:
    found = ROOT / ".venv-clients" / name
    if not found.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{found} is missing: run scripts/test")
        pytest.skip(f"no {found.relative_to(ROOT)}: scripts/test makes it")
    return found


def run(command: list[str], gateway: Gateway, client_home: Path, test: pytest.Item) -> None:
    given = {"GATEWAY_URL": f"{gateway.url}/v1", "GATEWAY_KEY": KEY, "CLIENT_HOME": str(client_home)}
    language = client_home.name.removeprefix("openai-")
    given |= {f"GATEWAY_{kind.upper()}_KEY": f"{kind}-{language}-0123456789" for kind in ("poor", "busy")}
    given |= {"GATEWAY_DIALECTS": ",".join(NAMES), "GATEWAY_CALLS": ",".join(CALLS)}  # exchanges as documented
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **given}
    began = time.time()
    ended = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=480, check=False)
    assert ended.returncode == 0, f"{ended.stdout[-6000:]}\n{ended.stderr[-3000:]}"
    assert "passed" in ended.stdout or "# pass" in ended.stdout  # it ran something
    check_what_arrived(gateway, language)
    check(Suite(test, gateway, began, SYSTEMS))


def check_what_arrived(gateway: Gateway, language: str) -> None:
    """How often the SDK asked, by the ledger: once where the budget is spent, again where a limit says when."""
    spent = until("the spent budget's rows", lambda: outcomes(gateway, f"poor-{language}", 2))
    assert spent == {("dollar", "ok", None): 1, ("dollar", "rejected", "budget"): 1}
    busy = until("the busy key's rows", lambda: outcomes(gateway, f"busy-{language}", 4))
    again = busy.pop(("smol", "rejected", "rate_limit"))
    assert busy == {("endless", "cancelled", None): 1, ("smol", "ok", None): 1}
    assert again >= 2, "one without retries, and at least one that was sent again"


def outcomes(gateway: Gateway, key: str, least: int) -> Counter[tuple[str, str, str | None]]:
    """What became of a key's requests; nothing before there are so many."""
    query = "SELECT requested_model, outcome, rejection FROM requests WHERE key = ?"
    rows = [(row["requested_model"], row["outcome"], row["rejection"]) for row in gateway.rows(query, key)]
    return Counter(rows) if len(rows) >= least else Counter()


def python_suite(client: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The marks of tests/clients/openai-python, whichever SDK runs it."""
    marks = (
        compatible(client=client, endpoint=TALKS, system=("smollm2", *NAMES), how=BOTH),
        compatible(client=client, endpoint=TALKS, system=(*CALLS,), how="tools"),
        compatible(client=client, endpoint="/completions", system="smollm2", how=BOTH),
        compatible(client=client, endpoint=("/images/generations", "/audio/transcriptions"), system="openai", how=BOTH),
        compatible(client=client, endpoint=("/moderations", "/images/edits"), system="openai", how="whole"),
        compatible(client=client, endpoint=("/audio/speech", "/audio/translations"), system="openai", how="whole"),
        compatible(client=client, endpoint="/rerank", system="jina", how="whole"),
    )

    def marked(test: Callable[..., None]) -> Callable[..., None]:
        for mark in marks:
            test = mark(test)
        return test

    return marked


def run_python(name: str, gateway: Gateway, test: pytest.Item) -> None:
    client = home(name)
    suite = "tests/clients/openai-python"
    python = str(client / "bin/python")
    command = [python, "-m", "pytest", "-q", "-c", f"{suite}/pytest.ini", "-p", "no:cacheprovider", suite]
    run(command, gateway, client, test)


@python_suite("openai 3 (Python)")
def test_openai_python(served: Gateway, request: pytest.FixtureRequest) -> None:
    run_python("openai-python", served, request.node)


@pytest.mark.full
@python_suite("openai 2 (Python)")
def test_openai_python_2(served: Gateway, request: pytest.FixtureRequest) -> None:
    """The same tests with the SDK's 2.x, which much that is built on it still asks for."""
    run_python("openai-python-2", served, request.node)


@compatible(client="openai 7 (node)", endpoint=TALKS, system=("smollm2", *NAMES), how=BOTH)
@compatible(client="openai 7 (node)", endpoint=TALKS, system=(*CALLS,), how="tools")
def test_openai_node(served: Gateway, request: pytest.FixtureRequest) -> None:
    client = home("openai-node")
    suite = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/clients/openai-node").glob("*.test.mjs"))
    run(["node", "--test", "--test-concurrency=1", "--test-reporter=tap", *suite], served, client, request.node)
