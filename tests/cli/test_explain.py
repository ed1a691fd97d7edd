"""`gateway explain`: the decision for a request, without asking anybody."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main

ROUTES = """version: 1
providers: {vllm: {base_url: http://vllm/v1}, off: {base_url: "${NOT_SET_ANYWHERE}"}}
models:
  small: {provider: vllm, hosting: self, price: {usd_per_hour: 0.36, tokens_per_second: {input: 1000, output: 100}}}
  big: {provider: vllm, price: {input: 10, output: 30}, supports: [images]}
  off: {provider: off, price: unmetered}
tasks:
  coding: {when: [{last_message: traceback}]}
  helpdesk: {when: [{header: {x-app: helpdesk}}]}
routes:
  - {name: coding, match: {task: coding}, use: [big], baseline: big}
  - {name: night, match: {tag: night}, use: [big]}
  - {name: platform, match: {team: platform}, use: [big]}
  - {name: helpdesk, match: {task: helpdesk}, use: [small]}
  - {name: default, match: {model: auto}, use: [big, small, off], order: cheapest, baseline: big}
keys:
  - {name: ci, value: 0123456789abcdef, team: platform}
  - {name: shy, value: 0123456789abcdefg, allow: [small]}
  - {name: old, value: 0123456789abcdefgh, expires: 2020-01-01}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "routes.yaml").write_text(ROUTES)
    return tmp_path


def explained(capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    assert main(["explain", *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("options", "route"),
    [
        (("--prompt", "hello"), "default"),
        (("--prompt", "a traceback"), "coding"),
        (("--prompt", "hello", "--task", "coding"), "coding"),
        (("--prompt", "hello", "--tag", "day", "--tag", "night"), "night"),
        (("--prompt", "hello", "--key", "ci"), "platform"),
        (("--prompt", "hello", "--header", "X-App: helpdesk"), "helpdesk"),
        (("--prompt", "hello", "--model", "small"), "direct"),
    ],
)
def test_the_route(options: tuple[str, ...], route: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(capsys, *options)["route"] == route


@pytest.mark.parametrize(
    ("body", "endpoint"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "/chat/completions"),
        ({"prompt": "x"}, "/completions"),
        ({"input": "x"}, "/embeddings"),
    ],
)
def test_a_whole_request(
    body: dict[str, Any], endpoint: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = json.dumps({"model": "auto", **body}).encode()
    (here / "body.json").write_bytes(raw)
    assert explained(capsys, "--request", "body.json")["request"]["endpoint"] == endpoint
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    assert explained(capsys, "--request", "-")["request"]["endpoint"] == endpoint


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--prompt", "abcd" * 10]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in (
        "  route          default",
        "  baseline       big, expected cost $0.01546",
        "  1  small  vllm      self     $0.000513      cheapest: $0.000513 expected for this request",
        "  2  big    vllm      api      $0.01546       2nd cheapest: $0.01546 expected for this request",
        "                                              price: $10 in, $30 out (routes.yaml)",
        "  off    disabled: NOT_SET_ANYWHERE is not set",
    ):
        assert line in lines
    assert [line.split()[0] for line in lines[lines.index("Routes passed over") + 2 :]] == [
        "coding",
        "night",
        "platform",
        "helpdesk",
    ]


@pytest.mark.parametrize(
    ("options", "status", "code", "words"),
    [
        (("--prompt", "x", "--model", "smal"), 404, "model_not_found", "did you mean small"),
        (("--prompt", "x", "--key", "shy"), 403, "permission_denied", "auto"),
        (("--prompt", "x", "--model", "off"), 503, "no_healthy_upstream", "NOT_SET_ANYWHERE is not set"),
        (("--request", "bad.json"), 400, None, "JSON"),
    ],
)
def test_an_answer_that_is_an_error_is_1(
    options: tuple[str, ...], status: int, code: str, words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bad.json").write_text("{")
    assert main(["explain", *options, "--json"]) == 1
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert (error["status"], error["code"]) == (status, code)
    assert f"the answer would be {status}: " in err
    assert words in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--prompt", "x", "--key", "nobody"), "no key that opens is called 'nobody'; there are: ci, old, shy"),
        (("--prompt", "x", "--key", "old"), "the key 'old' expired at 2020-01-01"),
        (("--request", "none.json"), "none.json: no such file or directory"),
        (("--request", "none.json", "--model", "auto"), "leave --model out"),
    ],
)
def test_usage_is_2(options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *options]) == 2
    assert words in capsys.readouterr().err


def test_prices_are_those_of_the_moment(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dated = "price: [{input: 10, output: 30}, {from: 2020-01-01, input: 1, output: 3}]"
    (here / "routes.yaml").write_text(ROUTES.replace("price: {input: 10, output: 30}", dated))
    assert main(["explain", "--prompt", "a traceback"]) == 0
    out = capsys.readouterr().out
    assert "price: $1 in, $3 out (routes.yaml, from 2020-01-01)" in out
    assert "baseline       big, expected cost $0.0015" in out
