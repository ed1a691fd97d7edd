"""One gateway process and one scripted upstream for the tests of a file; each test starts with empty scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import replies
from tests.servers import Gateway, free_port
from tests.upstream import Upstream

SECRET = "sk-upstream-secret-0123456789"
ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@", api_key: "${UP_KEY}", headers: {x-account: acme}}
  dead: {base_url: "http://127.0.0.1:@DEAD@/v1"}
models:
  a: {provider: up, model: a-up, price: {input: 1, cached_input: 0.1, output: 2, reasoning: 4}}
  b: {provider: up, model: b-up, hosting: self, price: {input: 3, output: 6}}
  gone: {provider: dead, model: gone-up, price: unmetered}
  closed: {provider: up, model: closed-up, price: {input: 10, output: 30}}
  strict: {provider: up, model: strict-up, price: unmetered}
  tuned:
    provider: up
    model: tuned-up
    price: unmetered
    set: {temperature: 0.5, chat_template_kwargs: {enable_thinking: false}}
    drop: [logit_bias]
  "wild/*": {provider: up}
  asleep: {provider: up, model: asleep-up, supports: [], price: unmetered}
tasks:
  coding: {when: [{last_message: "(?i)traceback"}]}
routes:
  - {name: coding, match: {model: auto, task: coding}, use: [b], baseline: closed}
  - name: pair
    match: {model: pair}
    use: [a]
    fallback: [b]
    retries: 0
    timeout: {attempt: 1500ms, first_token: 1500ms, idle: 1500ms, total: 15s}
    baseline: closed
  - {name: again, match: {model: again}, use: [a], fallback: [b], retries: 1, baseline: closed}
  - {name: only, match: {model: only}, use: [a], retries: 0, timeout: {idle: 1500ms, total: 15s}}
  - {name: both-dead, match: {model: both-dead}, use: [gone], fallback: [a], retries: 0}
  - {name: hopeless, match: {model: hopeless}, use: [gone], retries: 0}
  - {name: text-only, match: {model: text-only}, use: [asleep, a]}
  - {name: default, match: {model: [auto, "gpt-*"]}, use: [a], fallback: [b], baseline: closed}
"""


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream(replies.ok()) as server:
        yield server


@pytest.fixture(scope="module")
def routes(shared_upstream: Upstream) -> str:
    return ROUTES.replace("@BASE@", shared_upstream.base_url).replace("@DEAD@", str(free_port()))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, routes: str) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), routes, env={"UP_KEY": SECRET}) as started:
        yield started


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.forget()
    return shared_upstream
