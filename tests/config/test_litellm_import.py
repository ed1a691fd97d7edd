"""A LiteLLM proxy's configuration becomes a routes.yaml that loads, serves, and says what differs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli import main
from gateway.config import load
from gateway.config.litellm_import import Imported, convert
from gateway.config.load import load_yaml
from gateway.errors import ConfigError

DATA = Path(__file__).parent.parent / "data" / "litellm"
SPEC = importlib.util.find_spec("litellm")
EXAMPLES = Path(str(SPEC.submodule_search_locations[0])) / "proxy" if SPEC and SPEC.submodule_search_locations else None


def imported(**file: Any) -> Imported:
    return convert(file)


def deployment(name: str, model: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": model, **params}}


def entry(found: Imported, section: str, name: str) -> Any:
    return yaml.safe_load(found.yaml)[section][name]


def route(found: Imported, name: str) -> Any:
    return next(each for each in yaml.safe_load(found.yaml)["routes"] if each["name"] == name)


def test_golden() -> None:
    said = convert(load_yaml(DATA / "mixed.yaml")).yaml
    golden = DATA / "mixed.routes.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(said)
    assert said == golden.read_text()


def test_no_secret_is_repeated() -> None:
    said = convert(load_yaml(DATA / "mixed.yaml"))
    assert "sk-1234" not in f"{said}"
    assert "${DEEPSEEK_API_KEY}" in said.yaml


def test_no_server_is_sent_the_key_of_another() -> None:
    found = imported(
        model_list=[
            deployment("own", "openai/a"),  # which reads OPENAI_API_KEY
            deployment("deepseek", "deepseek/a", api_key="sk-first", api_base="https://one.test/v1"),
            deployment("other", "openai/b", api_key="sk-second", api_base="https://two.test/v1"),
            deployment("same", "openai/b", api_key="sk-third"),
            deployment("again", "openai/c", api_key="sk-third"),
            deployment("vllm", "openai/c", api_key="none", api_base="http://127.0.0.1:8000/v1"),
            deployment("cloud", "bedrock/x", aws_secret_access_key="one"),
            deployment("cloud", "bedrock/x", aws_secret_access_key="two"),
        ],
        general_settings={"master_key": "sk-fourth"},
    )
    made = yaml.safe_load(found.yaml)
    keys = {each.get("base_url", ""): each.get("api_key") for each in made["providers"].values()}
    assert keys["https://one.test/v1"] == "${DEEPSEEK_SERVER_API_KEY}"
    assert keys["https://two.test/v1"] == "${OTHER_API_KEY}"
    assert keys["http://127.0.0.1:8000/v1"] is None, "what is no key is not sent"
    openai = [name for name, each in made["providers"].items() if "api.openai.com" in each.get("base_url", "")]
    assert {made["providers"][name]["api_key"] for name in openai} == {"${OPENAI_API_KEY}", "${OPENAI_API_KEY_2}"}
    assert made["models"]["again"]["provider"] == made["models"]["same"]["provider"], "one key, one provider"
    clouds = [each["options"] for each in made["providers"].values() if "options" in each]
    assert [each["aws_secret_access_key"] for each in clouds] == [
        "${AWS_SECRET_ACCESS_KEY}",
        "${AWS_SECRET_ACCESS_KEY_2}",
    ]
    assert "sk-" not in f"{found}"


def test_secrets_in_headers_are_not_repeated() -> None:
    headers = {"Authorization": "Bearer hidden", "x-api-key": "os.environ/MINE", "x-team": "red"}
    found = imported(model_list=[deployment("m", "openai/a", api_key="os.environ/KEY", extra_headers=headers)])
    assert entry(found, "providers", "openai")["headers"] == {
        "Authorization": "${M_AUTHORIZATION}",
        "x-api-key": "${MINE}",
        "x-team": "red",
    }
    assert "hidden" not in f"{found}"


@pytest.mark.parametrize(
    ("model", "params", "provider", "upstream"),
    [
        ("gpt-4o", {}, {"base_url": "https://api.openai.com/v1", "api_key": "${OPENAI_API_KEY}"}, "gpt-4o"),
        (
            "openai/any",
            {"api_base": "http://127.0.0.1:9/v1/", "api_key": "os.environ/MINE"},
            {"base_url": "http://127.0.0.1:9/v1", "api_key": "${MINE}"},
            "any",
        ),
        ("ollama/llama3", {"api_base": "http://127.0.0.1:11434"}, {"base_url": "http://127.0.0.1:11434/v1"}, "llama3"),
        ("ollama_chat/llama3", {}, {"base_url": "http://127.0.0.1:11434/v1"}, "llama3"),
        (
            "hosted_vllm/org/name",
            {"api_base": "os.environ/VLLM"},
            {"base_url": "${VLLM}"},
            "org/name",
        ),
        (
            "anthropic/claude-sonnet-4-5",
            {},
            {"dialect": "litellm", "litellm_provider": "anthropic", "api_key": "${ANTHROPIC_API_KEY}"},
            "claude-sonnet-4-5",
        ),
        ("bedrock/some.model", {}, {"dialect": "litellm", "litellm_provider": "bedrock"}, "some.model"),
        (
            "bedrock/some.model",
            {"aws_region_name": "eu-central-1", "aws_secret_access_key": "it stood there"},
            {
                "dialect": "litellm",
                "litellm_provider": "bedrock",
                "options": {"aws_region_name": "eu-central-1", "aws_secret_access_key": "${AWS_SECRET_ACCESS_KEY}"},
            },
            "some.model",
        ),
        (
            "gpt-4o",
            {"organization": "os.environ/ORG", "extra_headers": {"x-a": "b"}},
            {
                "base_url": "https://api.openai.com/v1",
                "api_key": "${OPENAI_API_KEY}",
                "headers": {"x-a": "b", "OpenAI-Organization": "${ORG}"},
            },
            "gpt-4o",
        ),
        ("nobody/knows", {}, {"base_url": "${SERVER_BASE_URL}"}, "nobody/knows"),
    ],
)
def test_providers(model: str, params: dict[str, Any], provider: dict[str, Any], upstream: str) -> None:
    found = imported(model_list=[deployment("m", model, **params)])
    made = entry(found, "models", "m")
    assert made["model"] == upstream
    assert entry(found, "providers", made["provider"]) == provider


def test_deployments_of_one_model_on_several_servers_are_its_endpoints() -> None:
    urls = ["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"]
    found = imported(model_list=[deployment("q", "hosted_vllm/Q", api_base=url) for url in urls])
    assert entry(found, "models", "q")["endpoints"] == [{"url": url} for url in urls]
    assert "routes" not in yaml.safe_load(found.yaml), "its own name leads to it"


def test_deployments_that_differ_are_models_of_a_route() -> None:
    found = imported(
        model_list=[deployment("g", "openai/gpt-4o", weight=3), deployment("g", "groq/llama")],
        router_settings={"model_group_alias": {"gpt": "g"}},
    )
    assert route(found, "g") == {
        "name": "g",
        "match": {"model": ["g", "gpt"]},
        "use": [{"model": "g-openai", "weight": 3}, "g-groq"],
        "order": "weighted",
    }


def test_the_order_of_deployments_is_kept() -> None:
    found = imported(model_list=[deployment("g", "groq/a", order=2), deployment("g", "openai/b", order=1)])
    assert route(found, "g") == {"name": "g", "match": {"model": ["g"]}, "use": ["g-openai", "g-groq"]}


def test_fallbacks() -> None:
    found = imported(
        model_list=[deployment(name, f"groq/{name}") for name in ("a", "b", "c", "d")],
        litellm_settings={
            "fallbacks": [{"a": ["b", "nobody"]}],
            "context_window_fallbacks": [{"a": ["c"]}],
            "default_fallbacks": ["d"],
        },
    )
    assert route(found, "a")["fallback"] == ["b", "c"]
    assert route(found, "b")["fallback"] == ["d"]
    assert not any(each["name"] == "d" for each in yaml.safe_load(found.yaml)["routes"]), "not after itself"
    assert [each.text for each in found.remarks if "nobody" in each.text] == [
        "a -> nobody: there is no such model_name"
    ]


def test_fallbacks_of_every_shape() -> None:
    """docs.litellm.ai/docs/proxy/reliability: names, mappings that hold one, and `*` for all that have none."""
    found = imported(
        model_list=[deployment(name, f"openai/{name}") for name in ("a", "b", "c", "d", "openai/*")],
        router_settings={
            "fallbacks": [{"a": [{"model": "b", "messages": []}, "c"]}, {"b": "c"}, {"*": ["d"]}, {"no": ["a"]}, "a"]
        },
        litellm_settings={"fallbacks": [{"a": ["d"]}]},
    )
    assert [(name, route(found, name)["fallback"]) for name in "abc"] == [("a", ["b", "c"]), ("b", ["c"]), ("c", ["d"])]
    said = [f"{each.path}: {each.text}" for each in found.remarks]
    for part in (
        *("a -> b: it gets the request as it is, without messages", "no: there is no such model_name"),
        *("no mapping of a model_name", "openai/*: a client that names a model gets that model"),
        "litellm_settings.fallbacks: router_settings.fallbacks is there, too, and counts",
    ):
        assert any(part in each for each in said), (part, said)


def test_numbers_in_quotes_are_numbers(tmp_path: Path) -> None:
    """A limit in quotes is a limit; one that cannot be read is told, since without it there is none."""
    params = {"api_key": "os.environ/K", "timeout": "30", "extra_headers": {"x-version": 2, "Host": "x"}}
    found = imported(
        model_list=[deployment("m", "openai/a", **params)],
        litellm_settings={"max_budget": "10", "num_retries": "50", "request_timeout": "60"},
    )
    made = tmp_path / "routes.yaml"
    made.write_text(found.yaml)
    config = load(made, {"K": "k"})
    assert [budget.limit_nano for budget in config.rules.budgets] == [10 * 10**9]
    file = yaml.safe_load(found.yaml)
    assert file["defaults"] == {"retries": 10, "timeout": {"total": "60s"}}
    assert file["models"]["m"]["timeout"] == {"attempt": "30s"}
    assert file["providers"]["openai"]["headers"] == {"x-version": "2"}
    lost = imported(
        model_list=[deployment("m", "openai/a")], litellm_settings={"max_budget": "os.environ/LIMIT", "timeout": []}
    )
    assert "budgets" not in yaml.safe_load(lost.yaml)
    assert any("there is NO budget" in each.text for each in lost.remarks)


def test_a_weight_of_nothing() -> None:
    found = imported(
        model_list=[
            deployment("g", "openai/a", weight=0),
            deployment("g", "groq/b", weight=2),
            deployment("g", "xai/c", weight="0.5"),
        ]
    )
    assert route(found, "g")["use"] == [{"model": "g-groq", "weight": 2}, {"model": "g-xai", "weight": 0.5}]
    assert any("weight 0" in each.text for each in found.remarks)


def test_weights_of_nothing_at_all(tmp_path: Path) -> None:
    found = imported(model_list=[deployment("g", "openai/a", weight=0), deployment("g", "groq/b", weight=0)])
    assert route(found, "g")["use"] == ["g-openai", "g-groq"]
    assert any("every weight is 0" in each.text for each in found.remarks)
    assert loads(found, tmp_path)


def test_names_that_look_alike_without_what_a_name_cannot_have(tmp_path: Path) -> None:
    groups = ("a (x)", "a [x]", "通义", "千问")
    found = imported(model_list=[deployment(name, f"openai/{number}") for number, name in enumerate(groups)])
    routes = yaml.safe_load(found.yaml)["routes"]
    assert [each["name"] for each in routes] == ["a -x-", "a -x--2", "route", "route-2"]
    assert [each["match"]["model"] for each in routes] == [["a (x)"], ["a [x]"], ["route"], ["route-2"]]
    assert any("千问: names are ASCII here: clients ask for route-2" in each.text for each in found.remarks)
    assert loads(found, tmp_path)


def test_a_wildcard_has_no_price_and_nothing_is_no_size(tmp_path: Path) -> None:
    listed = deployment("openai/*", "openai/*", input_cost_per_token=0, output_cost_per_token=0)
    found = imported(model_list=[listed | {"model_info": {"max_input_tokens": 0, "max_tokens": 0}}])
    assert entry(found, "models", "openai/*") == {"provider": "openai"}
    assert any("name one of them to give it a price" in each.text for each in found.remarks)
    assert loads(found, tmp_path)


def test_seconds_with_an_exponent(tmp_path: Path) -> None:
    listed = [deployment("m", "openai/a", timeout="6e2", stream_timeout=Decimal("1E+1"))]
    found = imported(model_list=listed, litellm_settings={"request_timeout": "9e2"})
    assert entry(found, "models", "m")["timeout"] == {"attempt": "600s", "first_token": "10s"}
    assert entry(found, "defaults", "timeout") == {"total": "900s"}
    assert loads(found, tmp_path)


def loads(found: Imported, folder: Path) -> bool:
    made = folder / "routes.yaml"
    made.write_text(found.yaml)
    return said_about(made) == []


def test_a_group_may_be_called_anything() -> None:
    found = imported(
        model_list=[deployment(name, "openai/a") for name in ("a", "(b) & c?", "-")],
        litellm_settings={"default_fallbacks": ["a"]},
    )
    assert [each["name"] for each in yaml.safe_load(found.yaml)["routes"]] == ["b- - c-", "route"]
    assert route(found, "b- - c-")["match"] == {"model": ["(b) & c?"]}


def test_nothing_is_lost_without_a_word() -> None:
    info = {"base_model": "azure/gpt-4o", "id": "1", "input_cost_per_token": 1e-6, "access_groups": ["x"]}
    found = imported(
        model_list=[
            {**deployment("m", "openai/a", additional_drop_params=["logit_bias", "tools[*].x"]), "model_info": info},
            {
                **deployment("e", "openai/e"),
                "model_info": {"mode": "embedding", "input_cost_per_token": Decimal("2e-8")},
            },
        ]
    )
    assert entry(found, "models", "m")["drop"] == ["logit_bias"]
    assert entry(found, "models", "e")["price"] == {"input": 0.02, "output": 0}
    paths = [each.path for each in found.remarks]
    assert "model_list[0].model_info.base_model" in paths
    assert "model_list[0].model_info.access_groups" in paths
    assert "model_list[0].litellm_params.additional_drop_params" in paths
    assert "model_list[0].model_info.id" not in paths


def test_prices_are_exact() -> None:
    found = imported(
        model_list=[
            deployment("a", "groq/a", input_cost_per_token=yaml.safe_load("0.00000015"), output_cost_per_token=0.0)
        ]
    )
    assert "price" not in entry(found, "models", "a"), "floats are no prices: files are read as decimals"
    exact = convert(load_yaml(DATA / "mixed.yaml"))
    assert entry(exact, "models", "deepseek")["price"] == {"input": 0.28, "output": 0.42}


def test_everything_that_is_not_taken_over_is_remarked_on() -> None:
    found = imported(
        model_list=[deployment("a", "groq/a", tpm=5, region_name="eu"), {"model_name": "b"}],
        litellm_settings={"allowed_fails": 3, "something": 1, "set_verbose": True},
        general_settings={"alerting": ["slack"]},
        vector_store_registry=[],
    )
    assert {each.path for each in found.remarks} == {
        "model_list[0].litellm_params.tpm",
        "model_list[0].litellm_params.region_name",
        "model_list[1]",
        "litellm_settings.allowed_fails",
        "litellm_settings.something",
        "general_settings.alerting",
        "vector_store_registry",
    }


ODD: tuple[Any, ...] = (None, -1, "x", [], [[1]], [{"model": "b"}], {1: 2})


def test_odd_values_break_nothing() -> None:
    """Each value of a file that has everything, replaced by others: an import, or a ValueError that says why not."""
    params = {"api_base": "http://x/v1", "api_key": "k", "rpm": 1, "extra_headers": {"x-key": "v"}, "weight": 2}
    whole = {
        "model_list": [
            {**deployment("a", "openai/a", **params), "model_info": {"mode": "chat", "max_tokens": 5}},
            deployment("b", "openai/b", additional_drop_params=["x"], extra_body={"k": 1}, timeout=5),
        ],
        "litellm_settings": {"fallbacks": [{"a": ["b"]}], "max_budget": 5, "budget_duration": "1d"},
        "router_settings": {"model_group_alias": {"c": {"model": "a"}}, "default_fallbacks": ["a"], "timeout": 5},
        "general_settings": {"master_key": "sk"},
    }
    for path in paths(whole):
        for odd in ODD:
            with contextlib.suppress(ValueError):
                convert(replaced(whole, path, odd))


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield from paths(each, (*path, name))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copied = value.copy()
    copied[path[0]] = replaced(value[path[0]], path[1:], by)
    return copied


@pytest.mark.parametrize("file", [None, [], {}, {"model_list": 1}, "x"])
def test_what_is_no_such_file_is_said_so(file: object) -> None:
    with pytest.raises(ValueError, match="model_list"):
        convert(file)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")) if EXAMPLES else [], ids=lambda path: path.stem)
def test_litellms_own_examples(path: Path, tmp_path: Path) -> None:
    """Each file of its wheel that is a proxy's configuration becomes one that loads."""
    data = load_yaml(path)
    listed = data.get("model_list") if isinstance(data, dict) else None
    if not any("litellm_params" in each for each in listed or ()):
        with pytest.raises(ValueError, match="model_list"):
            convert(data)
        return
    made = tmp_path / "routes.yaml"
    made.write_text(convert(data).yaml)
    assert said_about(made) == []


def said_about(made: Path) -> list[str]:
    """Problems of a routes.yaml, but for what is not available yet (then an address is asked for as well)."""
    try:
        assert load(made, {}).rules.models
    except ConfigError as error:
        later = ("not available yet", "is required: where the API begins")
        return [each.message for each in error.problems if not any(text in each.message for text in later)]
    return []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "routes.yaml"
    command = ["import", "litellm", str(DATA / "mixed.yaml")]
    assert main([*command, "-o", str(made)]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "The meaning differs:" in said.err
    assert main([*command, "-o", str(made)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(command) == 0
    assert capsys.readouterr().out == made.read_text()
    assert main(["import", "litellm", str(tmp_path / "none.yaml")]) == 1
    assert "cannot be read" in capsys.readouterr().err
