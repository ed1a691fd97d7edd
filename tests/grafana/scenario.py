"""Traffic that makes every panel speak: teams, tasks, both hostings, all that goes wrong, a budget that runs out."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests import replies
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import Received, Reply, Step, Upstream

ROUTES = """
version: 1
defaults: {baseline: gpt, retries: 0, timeout: {total: 600s}}
providers:
  gpu: {base_url: "@BASE@"}
  deepseek: {base_url: "@BASE@"}
  openai: {base_url: "@BASE@"}
models:
  qwen:
    provider: gpu
    model: qwen-up
    hosting: self
    price: {gpu_hour_usd: 2.40, gpus: 1, tokens_per_second: {input: 20000, output: 2400}}
  deepseek: {provider: deepseek, model: deepseek-up, price: {input: 0.28, cached_input: 0.028, output: 0.42}}
  gpt: {provider: openai, model: gpt-up, price: {input: 1.25, cached_input: 0.125, output: 10}}
  kimi: {provider: deepseek, model: kimi-up, price: {input: 0.6, output: 2.5}}
  mystery: {provider: openai, model: nobody-prices-this}
tasks:
  support: {when: [{header: {x-app: helpdesk}}]}
  coding: {when: [{last_message: "(?i)traceback"}]}
routes:
  - {name: support, match: {model: auto, task: support}, use: [qwen], fallback: [deepseek, gpt], hedge: {after: 400ms}}
  - {name: coding, match: {model: auto, task: coding}, use: [deepseek], fallback: [gpt], retries: 1}
  - {name: fragile, match: {model: fragile}, use: [kimi], fallback: [qwen]}
  - {name: default, match: {model: auto}, use: [qwen], fallback: [deepseek]}
keys:
  - {name: shop, value: a-key-of-the-shop-for-tests, team: web}
  - {name: build, value: a-key-of-the-build-for-tests, team: platform}
  - {name: trial, value: a-key-of-the-trial-for-tests, team: lab}
  - {name: slow, value: a-key-of-the-slow-for-tests, team: platform, limits: {requests_per_minute: 2}}
  - {name: free, value: a-key-of-the-free-for-tests}
budgets:
  - {name: teams, per: team, match: {team: [web, platform]}, limit_usd: 5, window: month, counts: all}
  - {name: experiments, match: {team: lab}, limit_usd: 0.01, window: month, counts: all}
"""

WEB, PLATFORM, LAB = "a-key-of-the-shop-for-tests", "a-key-of-the-build-for-tests", "a-key-of-the-trial-for-tests"
LIMITS = {"teams": 5.0, "experiments": 0.01}
MACHINE_USD_PER_HOUR = 2.4
STRANGERS = 3
"""Requests with a wrong key: counted and logged, but in no ledger (decision 0009)."""

MIXED = 150


def routes(upstream: Upstream) -> str:
    return ROUTES.replace("@BASE@", upstream.base_url)


def mixed(seed: int, bad: Sequence[Reply], share: float) -> Reply:
    """Good answers of many sizes, and bad ones, from a fixed dice."""
    dice = random.Random(seed)  # noqa: S311 - repeatable traffic, not a secret

    def reply(received: Received) -> Iterator[Step]:
        if dice.random() < share:
            yield from dice.choice(bad)(received)
            return
        reasoning = dice.randrange(0, 200) if dice.random() < 0.3 else 0
        tokens = Tokens(dice.randrange(50, 3000), dice.randrange(0, 1500), dice.randrange(20, 800), reasoning)
        yield dice.uniform(0.005, 0.08)
        yield from replies.ok("So it is, I think.", tokens=tokens, pause=0.004)(received)

    return reply


def ask(gateway: Gateway, key: str, model: str = "auto", **more: Any) -> httpx.Response:
    """`app`: the header x-app. `say`: the message."""
    headers = {"authorization": f"Bearer {key}"} | ({"x-app": more.pop("app")} if "app" in more else {})
    body = {"model": model, "messages": [{"role": "user", "content": more.pop("say", "Say hello.")}], **more}
    return gateway.post(json=body, headers=headers)


def play(gateway: Gateway, upstream: Upstream) -> None:
    """All of it; a quarter of a minute on an idle machine."""
    upstream.always("qwen-up", mixed(1, [replies.status(503), replies.empty(), replies.rate_limited("0")], 0.06))
    upstream.always("deepseek-up", mixed(2, [replies.status(500), replies.html_in_200()], 0.06))
    upstream.always("gpt-up", mixed(3, [replies.status(500)], 0.01))
    _crowd(gateway)
    _one_by_one(gateway, upstream)
    _refused(gateway, upstream)
    _reloads(gateway)


def _crowd(gateway: Gateway) -> None:
    dice = random.Random(4)  # noqa: S311 - as above
    asked = [
        {
            "key": dice.choice([WEB, WEB, PLATFORM, "a-key-of-the-free-for-tests"]),
            "stream": dice.random() < 0.6,
            **dice.choice([{"app": "helpdesk"}, {"app": "helpdesk"}, {"say": "Traceback: help"}, {}]),
        }
        for _ in range(MIXED)
    ]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda given: ask(gateway, **given), asked))


def _one_by_one(gateway: Gateway, upstream: Upstream) -> None:
    """What the dice must not leave out. `support` of team `web` has everything once."""
    good = replies.ok(tokens=Tokens(400, 100, 90, 20))
    upstream.always("qwen-up", good)
    upstream.always("deepseek-up", good)
    for bad in (replies.empty(), replies.status(503), replies.truncated()):  # the first was paid for
        upstream.script("qwen-up", bad)
        ask(gateway, WEB, app="helpdesk")
    _hedge(gateway, upstream, won="true")
    upstream.always("deepseek-up", replies.after(4.0, good))
    _hedge(gateway, upstream, won="false")
    upstream.always("deepseek-up", good)
    upstream.script("qwen-up", replies.ok("word " * 30, usage="absent"))
    ask(gateway, WEB, app="helpdesk", stream=True)
    upstream.script("qwen-up", replies.with_bad_line())
    ask(gateway, WEB, app="helpdesk", stream=True)
    upstream.script("qwen-up", replies.status(400))
    ask(gateway, WEB, app="helpdesk")  # the client's own fault
    for model in ("qwen-up", "deepseek-up", "gpt-up"):
        upstream.script(model, replies.status(500))
    ask(gateway, WEB, app="helpdesk")  # nobody answers
    ask(gateway, "a-key-of-the-free-for-tests", "mystery")
    _leave(gateway, upstream)
    upstream.always("kimi-up", replies.status(500))
    for _ in range(6):
        ask(gateway, PLATFORM, "fragile")
    until("the breaker to open", lambda: gateway.metric("gateway_breaker_state", model="kimi") == 2)


def _hedge(gateway: Gateway, upstream: Upstream, won: str) -> None:
    """A slow first attempt, until there is such a hedge: only a share of a route's requests may have one."""

    def once() -> bool:
        for _ in range(10):
            ask(gateway, WEB, app="helpdesk")
        upstream.script("qwen-up", replies.after(1.5, replies.ok()))
        ask(gateway, WEB, app="helpdesk", stream=True)
        return gateway.metric("gateway_hedges_total", route="support", won=won) > 0

    until(f"a hedge, won: {won}", once, 300)


def _leave(gateway: Gateway, upstream: Upstream) -> None:
    """A client that hangs up in the middle."""
    upstream.script("qwen-up", replies.ok("and so on " * 200, pause=0.05))
    with streamed(gateway):
        pass


def _refused(gateway: Gateway, upstream: Upstream) -> None:
    """By each reason but `overload`. What the lab's first call costs is beyond what it was held to, and its budget."""
    for _ in range(STRANGERS):
        ask(gateway, "not-a-key")
    ask(gateway, WEB, "no-such-model")
    gateway.post(content=b"{", headers={"authorization": f"Bearer {WEB}"})
    for _ in range(4):
        ask(gateway, "a-key-of-the-slow-for-tests")
    upstream.script("qwen-up", replies.ok(tokens=Tokens(output=40_000)))  # 0.0002 USD are held, 0.0111 billed
    ask(gateway, LAB, app="helpdesk", max_tokens=700)
    for _ in range(3):
        assert ask(gateway, LAB, app="helpdesk", max_tokens=700).status_code == 429


def _reloads(gateway: Gateway) -> None:
    """One that is rejected, and one that is accepted."""
    text = gateway.routes.read_text()
    gateway.reload(text + "\nrouts: []\n")
    until("the rejection", lambda: gateway.metric("gateway_config_reloads_total", result="rejected") == 1)
    gateway.reload(text + "\n# changed\n")
    until("the reload", lambda: gateway.metric("gateway_config_reloads_total", result="ok") == 1)
    ask(gateway, WEB)


@contextlib.contextmanager
def under_way(gateway: Gateway, upstream: Upstream) -> Iterator[None]:
    """One more call, which does not end before the block does: it is in flight, and its budget holds its ceiling."""
    upstream.script("qwen-up", replies.ok("and so on " * 600, pause=0.5))
    with streamed(gateway, max_tokens=1000):
        yield


@contextlib.contextmanager
def streamed(gateway: Gateway, **more: Any) -> Iterator[None]:
    """A stream of which the first bytes have come. At the end of the block the client hangs up."""
    body = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": "Say hello."}], **more}
    headers = {"authorization": f"Bearer {WEB}", "x-app": "helpdesk"}
    with (
        contextlib.closing(httpx.Client(base_url=gateway.url, trust_env=False, timeout=60)) as client,
        client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        chunks = answer.iter_bytes()  # kept: what is forgotten is closed, and the stream with it
        next(chunks)
        yield
