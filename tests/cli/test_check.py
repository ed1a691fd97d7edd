"""`gateway check`: what it prints, where, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

import gateway
from gateway.cli import main
from gateway.config import load
from gateway.operations import change_budget
from gateway.stores.audit import Change

GOOD = """version: 1
providers: {vllm: {base_url: http://v/v1}, openai: {base_url: https://api.openai.com/v1, api_key: "${OPENAI_API_KEY}"}}
models:
  qwen: {provider: vllm, hosting: self, price: {gpu_hour_usd: 2.40, tokens_per_second: {input: 20000, output: 2400}}}
  kimi: {provider: vllm, price: {input: 0.6, cached_input: 0.15, output: 2.5}}
  gpt: {provider: openai, model: gpt-5}
  "openai/*": {provider: openai}
tasks: {coding: {when: [{has: tools}]}}
routes:
  - {name: coding, match: {task: coding, has: [tools, images], min_input_tokens: 5},
     use: [qwen, {model: kimi, weight: 3}], order: weighted, fallback: [gpt], baseline: gpt}
  - {name: default, use: [qwen, openai/gpt-4.1]}
keys:
  - {name: ci, value: 0123456789abcdef-secret}
  - {name: gone, value: "${GONE}"}
  - {name: old, value: fedcba9876543210-secret, expires: 2026-01-01}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "routes.yaml"
    path.write_text(GOOD)
    return path


def test_a_good_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"{file.name} is fine: 2 routes, 2 of 4 models live." in out
    for line in (
        "  1  coding   when task coding, has images or tools, min input tokens 5",
        "              weighted: qwen x1, kimi x3",
        "              then (gpt)",
        "  2  default  when anything",
        "              listed: qwen, (openai/gpt-4.1)",
        "  qwen   vllm      self     machine-hour at rated speed  $2.4/hour at 20000 in, 2400 out tokens/s",
        "  kimi   vllm      api      routes.yaml                  $0.6 in, $0.15 cached, $2.5 out",
        "  gpt       openai    OPENAI_API_KEY is not set",
        "  gpt    openai    api      litellm 1.106.2 price book (2026-10-21)  $1.25 in, $0.125 cached, $10 out",
        "Keys of the file that open: ci",
        "  - provider openai is disabled: OPENAI_API_KEY is not set",
        "  - key gone opens nothing: GONE is not set",
    ):
        assert line in out.splitlines()
    assert "0123456789abcdef" not in out


def test_strict_makes_what_is_missing_an_error(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["check", "--strict", "--config", str(file)]) == 1
    assert f"{file}: provider openai is disabled: OPENAI_API_KEY is not set\n" in capsys.readouterr().err
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("GONE", "gone-0123456789abcdef")
    assert main(["check", "--strict"]) == 0


def test_problems_go_to_stderr_with_file_and_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(GOOD.replace("use: [qwen, op", "use: [qwne, op"))
    assert main(["check"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "routes.yaml: 1 problem\n  routes.yaml:12: routes[1].use[0]: no model is called `qwne`; did you mean `qwen`?\n"
    )


def test_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["ok"], shown["file"], shown["keys"]) == (True, str(file), ["ci"])
    assert shown["routes"][0]["match"] == {"task": ["coding"], "has": ["images", "tools"], "min_input_tokens": 5}
    models = {model["name"]: model for model in shown["models"]}
    assert models["kimi"]["price"]["cached_input"] == 0.15
    assert models["qwen"]["price"]["usd_per_hour"] == 2.4
    assert models["gpt"]["disabled"] == "OPENAI_API_KEY is not set"
    file.write_text("version: 2\n")
    assert main(["check", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert not shown["ok"]
    assert {"line": 1, "path": "version", "message": "must be 1"} in shown["problems"]


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(tmp_path / "none.yaml")]) == 1
    assert "cannot be read: no such file or directory" in capsys.readouterr().err


def test_endpoints_and_sticky_routes_are_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endpoints = '[{url: http://v0:8000/v1, weight: 3}, {url: http://v1/v1}, {url: http://v2/v1, api_key: "${GONE}"}]'
    file.write_text(
        f"""version: 1
providers: {{farm: {{}}}}
models: {{qwen: {{provider: farm, price: unmetered, endpoints: {endpoints}}}}}
routes: [{{name: r, use: [qwen], sticky: session}}]
"""
    )
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("Endpoints that are live")
    assert lines[at + 1 : at + 4] == [
        "  MODEL  ENDPOINT  WEIGHT",
        "  qwen   v0:8000   3",
        "  qwen   v1:80     1",
    ]
    assert "            sticky: session" in lines
    assert "  - endpoint v2:80 of model qwen is disabled: GONE is not set" in lines
    assert main(["check", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["models"][0]["endpoints"] == [{"name": "v0:8000", "weight": 3}, {"name": "v1:80", "weight": 1}]
    assert shown["routes"][0]["sticky"] == "session"


PRICES = """version: 1
providers: {openai: {base_url: https://api.openai.com/v1}, deepseek: {base_url: https://api.deepseek.com}}
models:
  gpt: {provider: openai, model: gpt-5, price: {cached_input: 0.03}}
  flash: {provider: deepseek, model: deepseek-v4-flash}
  own:
    provider: openai
    price:
      - {input: 4, output: 8}
      - {from: 2020-01-01, input: 1, output: 2, tiers: [{above: 1000, input: 2, output: 3}]}
      - {from: 2999-12-24, input: 0.5, output: 1, hours: [{from: "16:30", to: "00:30", output: 0.5, days: [mon, tue]}]}
  speech: {provider: openai, model: whisper-1}
  unknown: {provider: openai, model: nobody-knows-it}
"""


def test_every_price_is_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(PRICES)
    assert main(["check"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for said in (
        "routes.yaml over litellm 1.106.2 price book (2026-10-21) $1.25 in, $0.03 cached, $10 out",
        "gpt flex $0.625 in, $0.0625 cached, $5 out",
        "gpt priority $2.5 in, $0.25 cached, $20 out",
        "flash off-peak $0.15 in, $0.003 cached, $0.6 out 00:00-01:00 04:00-06:00 10:00-24:00 mon-fri UTC, "
        "all day sat sun UTC",
        "own openai api routes.yaml, from 2020-01-01 $1 in, $2 out; above 1000 tokens $2 in, $3 out",
        "own until 2020-01-01 $4 in, $8 out",
        "own from 2999-12-24 $0.5 in, $1 out",
        "own from 2999-12-24, 16:30-00:30 UTC on mon tue $0.5 in, $0.5 out",
        "$0.0001 a second",
        "unknown openai api - unknown",
        "model unknown is not in the price book and has no price, so its cost is unknown; give it `price:",
    ):
        assert said in out


def test_every_price_for_programs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(PRICES)
    assert main(["check", "--json"]) == 0
    prices = {model["name"]: model["price"] for model in json.loads(capsys.readouterr().out)["models"]}
    assert prices["gpt"]["service_tiers"]["priority"]["cached_input"] == 0.25
    assert prices["flash"]["in_force"].startswith("litellm 1.106.2 price book (2026-10-21)")
    assert prices["flash"]["hours"][0]["when"].startswith("off-peak 00:00-01:00 04:00-06:00 10:00-24:00 mon-fri UTC")
    assert prices["flash"]["hours"][0]["output"] == 0.6
    assert prices["own"]["in_force"] == "routes.yaml, from 2020-01-01"
    assert [each["from"] for each in prices["own"]["later"]] == ["2020-01-01", "2999-12-24"]
    assert prices["own"]["later"][0]["tiers"] == [
        {"above": 1000, "input": 2.0, "cached_input": 2.0, "cache_write": 2.0, "output": 3.0, "reasoning": 3.0}
    ]
    assert prices["own"]["later"][1]["hours"] == [
        {
            "when": "16:30-00:30 UTC on mon tue",
            "input": 0.5,
            "cached_input": 0.5,
            "cache_write": 0.5,
            "output": 0.5,
            "reasoning": 0.5,
            "source": "routes.yaml, from 2999-12-24, 16:30-00:30 UTC on mon tue",
        }
    ]
    assert prices["speech"]["per_second"] == 0.0001
    assert prices["unknown"] is None


BUDGETS = """
budgets:
  - {name: company, limit_usd: 100}
  - {name: teams, per: team, limit_usd: 10, window: day}
  - {name: unused, limit_usd: 1, window: day}
"""


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        (("limit_usd: 100}", "limit_usd: 7}"), []),
        (("limit_usd: 100}", "limit_usd: 100, window: week}"), ["company"]),
        (("limit_usd: 100}", "limit_usd: 100, timezone: Asia/Tokyo}"), ["company"]),
        (("per: team", "per: key"), ["teams"]),
        (("window: day", "window: total"), ["teams"]),
        (("  - {name: company, limit_usd: 100}\n", ""), []),
    ],
)
def test_a_budget_that_starts_anew_is_a_warning(
    file: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], warned: list[str]
) -> None:
    file.write_text(GOOD + BUDGETS)
    for name, scope in (("company", ""), ("teams", "support")):
        change_budget(
            load(file), scope, 5 * 10**9, Change(time.time(), "test", "budgets.adjust", name, reason="a test")
        )
    assert main(["check"]) == 0
    assert "anew" not in capsys.readouterr().out
    file.write_text((GOOD + BUDGETS).replace(*change))
    assert main(["check"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "starts anew" in line]
    assert [line.split()[2] for line in said] == warned
    assert all("5 USD of" in line for line in said)


VERTEX = """version: 1
providers: {vertex: {dialect: litellm, litellm_provider: vertex_ai, options: {vertex_project: p}}}
models: {pro: {provider: vertex, model: gemini-2.5-pro}}
"""


def test_vertex_without_googles_package_says_what_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An environment with all our packages but google-auth: links to what is installed here."""
    (tmp_path / "routes.yaml").write_text(VERTEX)
    assert main(["check", "--strict", "--config", str(tmp_path / "routes.yaml")]) == 0, "here it is installed"
    capsys.readouterr()
    packages = tmp_path / "packages"
    packages.mkdir()
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if not each.name.startswith("google_auth"):
            (packages / each.name).symlink_to(each)
    places = [str(packages), str(Path(gateway.__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {places}; from gateway.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-I", "-S", "-c", code, "check", "--strict", "--config", str(tmp_path / "routes.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "provider vertex cannot answer" in ended.stdout + ended.stderr
    assert "pip install 'open-model-gateway[vertex]'" in ended.stdout + ended.stderr
