"""A good routes.yaml -> Config: references, what sleeps, prices, keys, defaults."""

from __future__ import annotations

import datetime
import hashlib
import textwrap
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.load import load
from gateway.config.problems import Problems
from gateway.config.types import Config
from gateway.config.yamlfile import read
from gateway.core.call import Principal
from gateway.core.failures import DEFAULT_FALLBACK_ON, Kind
from gateway.core.pricing import Machine, Price, Rates, Tier
from gateway.core.routing import Candidate, Match, Route, Timeouts

HEAD = "version: 1\nproviders: {a: {base_url: http://a/v1}}\n"


def config_of(text: str, folder: Path, environ: dict[str, str] | None = None) -> Config:
    path = folder / "routes.yaml"
    path.write_text(textwrap.dedent(text))
    return load(path, environ or {})


def price_of(written: str, folder: Path) -> Price | None:
    text = f"{HEAD}models: {{m: {{provider: a, hosting: self, price: {written}}}}}\n"
    return config_of(text, folder).rules.models["m"].price


@pytest.mark.parametrize(
    ("written", "price"),
    [
        (
            "{input: 0.28, cached_input: 0.028, output: 0.42}",
            Price("routes.yaml", Rates(280_000_000, 28_000_000, 280_000_000, 420_000_000, 420_000_000)),
        ),
        (
            "{input: 3, cache_write: 3.75, output: 15, reasoning: 16}",
            Price("routes.yaml", Rates(3_000_000_000, 3_000_000_000, 3_750_000_000, 15_000_000_000, 16_000_000_000)),
        ),
        ("{input: 0.000000001, output: 1e-8}", Price("routes.yaml", Rates(1, 1, 1, 10, 10))),
        (
            "{input: 1, output: 2, tiers: [{above: 200000, input: 2, output: 3}]}",
            Price(
                "routes.yaml",
                Rates(10**9, 10**9, 10**9, 2 * 10**9, 2 * 10**9),
                (
                    Tier(
                        200_000,
                        Rates(2 * 10**9, 2 * 10**9, 2 * 10**9, 3 * 10**9, 3 * 10**9),
                        "routes.yaml, above 200000 input tokens",
                    ),
                ),
            ),
        ),
        (
            "{gpu_hour_usd: 2.40, gpus: 2, tokens_per_second: {input: 20000, output: 2400}}",
            Price("machine-hour at rated speed", machine=Machine(4_800_000_000, 20_000.0, 2_400.0)),
        ),
        (
            "{usd_per_hour: 0.05, tokens_per_second: {input: 300, output: 50.5}}",
            Price("machine-hour at rated speed", machine=Machine(50_000_000, 300.0, 50.5)),
        ),
        ("unmetered", Price("unmetered")),
    ],
)
def test_prices_are_exact_decimals(written: str, price: Price, tmp_path: Path) -> None:
    assert price_of(written, tmp_path) == price


@given(st.decimals(min_value=0, max_value=1_000_000, places=9, allow_nan=False))
def test_every_nano_dollar_survives(tmp_path_factory: pytest.TempPathFactory, usd: Decimal) -> None:
    price = price_of(f"{{input: {usd:f}, output: 0}}", tmp_path_factory.getbasetemp())
    assert price is not None
    assert price.rates is not None
    assert price.rates.input == usd * 10**9


REFERENCES = """
    version: 1
    providers:
      a: {base_url: "http://${HOST}/v1/", api_key: "${file:key}", headers: {X-Org: "${ORG:-none}", X-No: "${NO:-}"}}
      b: {base_url: "${B_URL}"}
      c: {base_url: "http://c/v1", api_key: "${C_KEY}", headers: {X: "${C_HEADER}"}}
      d: {base_url: "${D_URL:-}"}
      e: {base_url: "http://e/v1", headers: {X: "${file:not-there}"}}
    models:
      a: {provider: a, hosting: self, price: unmetered, set: {price: $$5, temperature: 0.5, stop: null, n: [1, 2.5]}}
      b: {provider: b, hosting: self, price: unmetered}
      c: {provider: c, hosting: self, price: unmetered}
      d: {provider: d, hosting: self, price: unmetered}
      e: {provider: e, hosting: self, price: unmetered}
      f: {provider: a, model: "${F_MODEL}", hosting: self, price: unmetered, context_window: "${WINDOW}"}
    """


def test_references(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-from-a-file\n")
    environ = {"HOST": "h:8000", "C_KEY": "", "C_HEADER": "x", "WINDOW": "4096"}
    config = config_of(REFERENCES, tmp_path, environ)
    a = config.providers["a"]
    assert (a.base_url, a.api_key, a.headers) == ("http://h:8000/v1", "sk-from-a-file", {"x-org": "none"})
    assert config.rules.models["a"].set == {"price": "$5", "temperature": 0.5, "stop": None, "n": [1, 2.5]}
    assert config.rules.models["f"].context_window == 4096
    assert {name: model.disabled for name, model in config.rules.models.items()} == {
        "a": "",
        "b": "B_URL is not set",
        "c": "C_KEY is not set",
        "d": "its base_url is empty",
        "e": "the file not-there is not there",
        "f": "F_MODEL is not set",
    }
    assert config.warnings == (
        "provider b is disabled: B_URL is not set",
        "provider c is disabled: C_KEY is not set",
        "provider d is disabled: its base_url is empty",
        "provider e is disabled: the file not-there is not there",
        "model f is disabled: F_MODEL is not set",
    )


def test_the_gateways_own_cap_bounds_all_that_is_billed(tmp_path: Path) -> None:
    hosts = {
        "openai": "api.openai.com",
        "azure": "mine.openai.azure.com",
        "qwen": "dashscope-intl.aliyuncs.com/compatible-mode",
        "deepseek": "api.deepseek.com",
        "other": "127.0.0.1:8000",
    }
    providers = "".join(f'  {name}: {{base_url: "https://{host}/v1", api_key: k}}\n' for name, host in hosts.items())
    models = "".join(f"  {name}: {{provider: {name}, price: unmetered}}\n" for name in hosts)
    found = config_of(f"version: 1\nproviders:\n{providers}models:\n{models}", tmp_path).rules.models
    new = {name for name in hosts if found[name].cap_name == "max_completion_tokens"}
    assert new == {"openai", "azure", "qwen"}
    assert {found[name].cap_name for name in hosts.keys() - new} == {"max_tokens"}


def test_no_secret_is_shown(tmp_path: Path) -> None:
    text = """
        version: 1
        providers: {a: {base_url: http://a/v1, api_key: "${KEY}", headers: {x-secret: "${KEY}"}}}
        models: {m: {provider: a, hosting: self, price: unmetered}}
        keys: [{name: k, value: "${KEY}"}]
        """
    config = config_of(text, tmp_path, {"KEY": "sk-0123456789abcdef"})
    assert config.providers["a"].api_key == "sk-0123456789abcdef"
    assert "sk-0123456789abcdef" not in repr(config)


def test_the_hash_follows_the_file_and_what_it_reads(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("one")
    environ = {"HOST": "h", "WINDOW": "1", "UNRELATED": "1"}
    first = config_of(REFERENCES, tmp_path, environ).hash
    assert len(first) == 12
    assert config_of(REFERENCES, tmp_path, environ | {"UNRELATED": "2"}).hash == first
    assert config_of(REFERENCES, tmp_path, environ | {"HOST": "other"}).hash != first
    assert config_of(REFERENCES + "# more\n", tmp_path, environ).hash != first
    (tmp_path / "key").write_text("two")
    assert config_of(REFERENCES, tmp_path, environ).hash != first


def test_keys(tmp_path: Path) -> None:
    text = f"""
        {HEAD.replace(chr(10), chr(10) + " " * 8)}
        models: {{m: {{provider: a, price: unmetered}}}}
        keys:
          - {{name: ci, value: "${{CI}}", team: platform, user: u, allow: [auto, "q*"], expires: 2027-01-01, tags: t}}
          - {{name: gone, value: "${{GONE}}", team: ghosts}}
          - {{name: all, value: 0123456789abcdefg, expires: "2027-01-01T12:00:00+02:00"}}
        """
    config = config_of(text, tmp_path, {"CI": "ci-0123456789abcdef"})
    ci, everything = config.keys
    assert ci.sha256 == hashlib.sha256(b"ci-0123456789abcdef").digest()
    assert ci.principal == Principal("ci", "platform", "u", frozenset({"t"}), ("auto", "q*"))
    assert ci.expires == datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
    assert everything.principal.allow == ("*",)
    assert everything.expires == datetime.datetime(2027, 1, 1, 10, tzinfo=datetime.UTC)
    assert config.warnings == ("key gone opens nothing: GONE is not set",)
    assert config.teams == {"platform", "ghosts"}


@pytest.mark.parametrize(
    ("keys", "declared", "count"),
    [("", False, 0), ("keys:", True, 0), ("keys: []", True, 0), ('keys: [{name: a, value: "${NOT_SET}"}]', True, 0)],
)
def test_a_keys_section_ends_anonymity(keys: str, declared: bool, count: int, tmp_path: Path) -> None:
    config = config_of(f"{HEAD}models: {{m: {{provider: a, price: unmetered}}}}\n{keys}\n", tmp_path)
    assert (config.keys_declared, len(config.keys)) == (declared, count)


def test_defaults_and_their_exceptions(tmp_path: Path) -> None:
    text = """
        version: 1
        defaults:
          {timeout: {total: 10m, idle: 250ms}, retries: 0, max_attempts: 7, order: cheapest, fallback: [m], baseline: m,
           fallback_on: [connect], context_window: 1000, supports: [], set: {a: 1, b: 1}, drop: [x]}
        providers: {a: {base_url: http://a/v1}}
        models:
          m: {provider: a, price: unmetered, timeout: {first_token: 1.5h}}
          n: {provider: a, price: unmetered, supports: [tools], context_window: 5, set: {b: 2}, drop: [y]}
        tasks:
        routes:
          - {name: plain, use: [m, n]}
          - {name: own, use: [{model: n, weight: 0.5}], retries: 2, order: weighted, fallback: [], fallback_on: [empty],
             baseline: n, timeout: {idle: 30d}, match: {team: x, has: images}}
        """
    rules = config_of(text, tmp_path).rules
    plain, own = rules.routes
    assert plain._replace(timeouts=Timeouts()) == Route(
        "plain",
        use=(Candidate("m"), Candidate("n")),
        order="cheapest",
        fallback=("m",),
        fallback_on=frozenset({Kind.CONNECT}),
        retries=0,
        max_attempts=7,
        baseline="m",
    )
    assert own._replace(timeouts=Timeouts()) == Route(
        "own",
        use=(Candidate("n", 0.5),),
        match=Match(team=("x",), has=frozenset({"images"})),
        order="weighted",
        fallback_on=frozenset({Kind.EMPTY}),
        retries=2,
        max_attempts=7,
        baseline="n",
    )
    # A route's limit goes before a model's, and that before the defaults: so each stays where it was said.
    assert (plain.timeouts, own.timeouts) == (Timeouts(), Timeouts(idle=30 * 86400.0))
    assert rules.direct.timeouts == Timeouts(total=600.0, idle=0.25)
    assert (rules.direct.name, rules.direct.fallback, rules.direct.baseline) == ("direct", (), "m")
    m, n = rules.models.values()
    assert (m.timeouts, m.supports, m.context_window) == (Timeouts(first_token=5400.0), frozenset(), 1000)
    assert (n.timeouts, n.supports, n.context_window) == (Timeouts(), frozenset({"tools"}), 5)
    assert (m.set, n.set) == ({"a": 1, "b": 1}, {"a": 1, "b": 2})
    assert (m.drop, n.drop) == (frozenset("x"), frozenset("xy"))
    unset = config_of(
        f"{HEAD}models: {{m: {{provider: a, price: unmetered}}}}\nroutes: [{{name: a, use: [m]}}]", tmp_path
    )
    assert unset.rules.routes[0].fallback_on == DEFAULT_FALLBACK_ON


def test_task_conditions(tmp_path: Path) -> None:
    text = f"""{HEAD}
models: {{m: {{provider: a, price: unmetered}}}}
tasks:
  coding:
    when:
      - {{has: tools, last_message: "(?i)traceback", header: {{X-App: ide}}, min_input_tokens: 10, model: "gpt-*"}}
      - {{system_prompt: "x{{100}}"}}
"""
    first, second = config_of(text, tmp_path).rules.tasks[0].when
    assert first.header == {"x-app": "ide"}
    assert first.text == (
        "header x-app is ide, last_message matches (?i)traceback, has tools, input of at least 10 tokens, "
        "model is gpt-*"
    )
    assert first.last_message is not None
    assert first.last_message.search("a TraceBack here")
    assert not first.last_message.search("nothing")
    assert second.system_prompt is not None
    assert second.system_prompt.search("x" * 100)


@pytest.mark.parametrize(
    ("model", "warning"),
    [
        (
            "hosting: self",
            "model m is self-hosted and has no price, so its cost is unknown; give it `price: {gpu",
        ),
        ("model: no-such-model", "model m is not in the price book and has no price"),
        ("model: gpt-5", "model m is priced as gpt-5 of the book by its name alone"),
        ("price: {input: 0.0000003, output: 0.0000012}", "prices are per million, not per one"),
    ],
)
def test_warnings_about_prices(model: str, warning: str, tmp_path: Path) -> None:
    config = config_of(f"{HEAD}models: {{m: {{provider: a, {model}}}}}", tmp_path)
    assert len(config.warnings) == 1
    assert warning in config.warnings[0]


def test_other_warnings(tmp_path: Path) -> None:
    text = f"""{HEAD}
models: {{m: {{provider: a, price: unmetered}}, n: {{provider: a, price: unmetered}}, base: {{provider: b}}}}
routes: [{{name: all, use: [m], baseline: base}}, {{name: never, use: [n]}}]
"""
    text = text.replace("a/v1}}", 'a/v1}, b: {base_url: "${B}"}}')
    assert config_of(text, tmp_path).warnings == (
        "provider b is disabled: B is not set",
        "baseline base has no known price, so no savings are shown against it",
        "route never is never reached: route all before it matches everything",
    )


def test_the_ledger_is_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    models = f"{HEAD}models: {{m: {{provider: a, price: unmetered}}}}\n"
    assert config_of(models, tmp_path).ledger == f"sqlite:///{tmp_path}/gateway.db"
    relative = config_of(models + "stores: {ledger: 'sqlite:///data/x.db', on_full: drop}", tmp_path)
    assert (relative.ledger, relative.on_full) == (f"sqlite:///{tmp_path}/data/x.db", "drop")
    assert config_of(models + "stores: {ledger: 'sqlite:////var/x.db'}", tmp_path).ledger == "sqlite:////var/x.db"


def test_yaml_is_read_as_editors_do() -> None:
    problems = Problems()
    text = "a: [yes, 010, 0x1f, 1.50, 1e3, 2027-01-01, ~, 'no', \"5\", true, 1:30]\n"
    text += "b: &b {x: 1, y: 2}\nc:\n  <<: *b\n  y: 3\n"
    document = read(text, problems)
    assert document is not None
    scalars = ["yes", 10, 31, Decimal("1.50"), Decimal(1000), "2027-01-01", None, "no", "5", True, "1:30"]
    assert document.data == {"a": scalars, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}}
    assert (document.lines["c",], document.lines["c", "y"], document.lines["c", "x"]) == (3, 5, 2)
    assert not problems.found


def test_the_embedded_model_takes_texts_alone_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    """docs/decisions/0027-what-the-embedded-model-takes.md"""
    found = config_of(
        """
        version: 1
        providers: {a: {base_url: "http://127.0.0.1:9/v1"}, l: {dialect: local}}
        models:
          any: {provider: a, price: unmetered}
          own: {provider: l, price: unmetered}
          told: {provider: l, price: unmetered, supports: [images]}
        """,
        tmp_path,
    ).rules.models
    assert found["any"].supports == {"tools", "json_schema", "images", "audio"}
    assert found["own"].supports == {"tools", "json_schema"}
    assert found["told"].supports == {"images"}
