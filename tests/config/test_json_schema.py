"""The JSON Schema that editors use, against files that people write."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # publishes no types
import pytest
import yaml

from gateway.config.later import LATER
from gateway.config.load import load
from gateway.config.schema import Endpoint, json_schema
from gateway.config.schema_spending import Limit

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent.parent / "data" / "config"
VALIDATOR = jsonschema.Draft202012Validator(json_schema())

# Contract section 2, without what is to come (`later.py`).
CONTRACT = """
    version: 1
    defaults: {timeout: {total: 600s}, retries: 1, baseline: gpt}
    providers:
      vllm:      {base_url: "http://vllm:8000/v1"}
      deepseek:  {base_url: "https://api.deepseek.com/v1", api_key: "${DEEPSEEK_API_KEY}"}
      openai:    {base_url: "https://api.openai.com/v1", api_key: "${OPENAI_API_KEY}", headers: {X-Org: "${ORG:-}"}}
    models:
      qwen:
        provider: vllm
        model: Qwen/Qwen3-32B
        hosting: self
        price: {gpu_hour_usd: 2.40, gpus: 1, tokens_per_second: {input: 20000, output: 2400}}
        context_window: 131072
        max_output_tokens: 8192
        max_in_flight: 64
        endpoints:
          - {url: "http://vllm-0:8000/v1", weight: 3}
          - {url: "http://vllm-1:8000/v1", api_key: "${file:/run/secrets/eu}"}
        supports: [tools, json_schema, reasoning, prefill]
        set: {chat_template_kwargs: {enable_thinking: false}}
        drop: [logit_bias]
      deepseek-chat: {provider: deepseek, model: deepseek-chat, price: {input: 0.28, cached_input: 0.028, output: 0.42}}
      gpt:           {provider: openai, model: gpt-5}
      "openai/*":    {provider: openai}
    tasks:
      vision:   {when: [{has: images}]}
      support:
        when: [{header: {x-app: helpdesk}}, {system_prompt: "(?i)customer (service|support)"}]
      coding:   {when: [{has: tools, last_message: "(?i)traceback|stack trace|refactor"}]}
      long:     {when: [{min_input_tokens: 32000}]}
    routes:
      - name: support
        match: {task: support}
        use: [qwen, {model: deepseek-chat, weight: 3}]
        order: cheapest
        sticky: session
        fallback: [gpt]
        fallback_on: [connect, timeout, rate_limited, server_error, account, context_length, empty, malformed]
        retries: 1
        max_attempts: 4
        timeout: {connect: 3s, attempt: 120s, first_token: 60s, idle: 60s, total: 300s}
        baseline: gpt
      - {name: default, match: {model: ["auto", "gpt-*"]}, use: [qwen], fallback: [gpt]}
    keys:
      - {name: ci, value: "${CI_GATEWAY_KEY}", team: platform, allow: ["auto", "qwen"], expires: 2027-01-01}
    stores: {ledger: "sqlite:///gateway.db"}
    """


def parsed(text: str) -> Any:
    return _as_editors_do(yaml.safe_load(text))


def _as_editors_do(value: Any) -> Any:
    """YAML 1.2, as yaml-language-server reads it: a date is text."""
    if isinstance(value, dict):
        return {str(name): _as_editors_do(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_editors_do(inner) for inner in value]
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_file_in_the_repository_is_current() -> None:
    assert json.loads((ROOT / "routes.schema.json").read_text()) == json_schema(), "gateway schema > routes.schema.json"


def test_the_shipped_file_names_it_and_is_valid() -> None:
    text = (ROOT / "routes.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=routes.schema.json\n")
    assert [error.message for error in VALIDATOR.iter_errors(parsed(text))] == []


def test_the_contract_s_example(tmp_path: Path) -> None:
    text = textwrap.dedent(CONTRACT)
    assert [error.message for error in VALIDATOR.iter_errors(parsed(text))] == []
    (tmp_path / "routes.yaml").write_text(text)
    rules = load(tmp_path / "routes.yaml", {}).rules
    assert rules.routes[0].name == "support"
    assert (rules.models["qwen"].max_in_flight, rules.models["gpt"].max_in_flight) == (64, None)


@pytest.mark.parametrize("text", ["keys:", "tasks:", "routes:", "stores:", "defaults:"])
def test_sections_may_be_empty(text: str, tmp_path: Path) -> None:
    text = f"version: 1\nproviders: {{a: {{base_url: http://a/v1}}}}\nmodels: {{m: {{provider: a}}}}\n{text}\n"
    assert VALIDATOR.is_valid(parsed(text))
    (tmp_path / "routes.yaml").write_text(text)
    load(tmp_path / "routes.yaml", {})


@pytest.mark.parametrize("name", ["unknown-keys", "wrong-types", "impossible-values", "later", "local"])
def test_an_editor_sees_the_mistakes_too(name: str) -> None:
    assert not VALIDATOR.is_valid(parsed((DATA / f"{name}.yaml").read_text()))


def _properties(schema: Any) -> list[tuple[str, Any]]:
    if isinstance(schema, list):
        return [found for inner in schema for found in _properties(inner)]
    if not isinstance(schema, dict):
        return []
    here = list(schema.get("properties", {}).items()) if isinstance(schema.get("properties"), dict) else []
    return here + [found for inner in schema.values() for found in _properties(inner)]


def test_every_field_has_a_hover_text() -> None:
    assert [name for name, field in _properties(json_schema()) if not field.get("description")] == []


def test_nothing_that_is_to_come_is_in_it() -> None:
    names = {name for name, _ in _properties(json_schema())}
    unmistakable = {later.path.split(".")[-1].split("[]")[-1] for later in LATER if not later.values}
    elsewhere = set(Limit.model_fields)  # words that are settings of something else too
    assert names & (unmistakable - elsewhere) == set()
    assert Endpoint.model_fields.keys().isdisjoint(unmistakable)


def test_the_shipped_file_needs_nothing() -> None:
    config = load(ROOT / "routes.yaml", {})
    assert [model.name for model in config.rules.models.values() if not model.disabled] == ["smollm2"]
    asleep = {provider.name for provider in config.providers.values() if provider.disabled}
    assert asleep == set(config.providers) - {"embedded"}


def test_the_shipped_file_knows_every_price_once_awake() -> None:
    names = ("VLLM_BASE_URL", "VLLM_LLAMA_BASE_URL", "OLLAMA_BASE_URL")
    keys = ("DEEPSEEK", "DASHSCOPE", "MOONSHOT", "ARK", "OPENAI", "GEMINI")
    environ = dict.fromkeys(names, "http://127.0.0.1:1/v1") | {f"{key}_API_KEY": "sk-x" for key in keys}
    config = load(ROOT / "routes.yaml", environ)
    assert config.warnings == ()
    assert [model.name for model in config.rules.models.values() if model.price is None] == ["openai/*"]
    assert config.rules.models["openai/*"].prices["gpt-4.1"].source == config.price_book
