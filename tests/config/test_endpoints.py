"""`endpoints:` of a model -> replicas, and a provider for each."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from gateway.config.endpoints import replica_names
from gateway.config.load import load
from gateway.config.types import Config
from gateway.core.rules import Replica


def config_of(text: str, folder: Path, environ: dict[str, str] | None = None) -> Config:
    path = folder / "routes.yaml"
    path.write_text(textwrap.dedent(text))
    return load(path, environ or {})


QWEN = """
    version: 1
    providers:
      vllm: {api_key: "${KEY:-shared}", headers: {x-org: "acme"}}
    models:
      qwen:
        provider: vllm
        hosting: self
        price: unmetered
        endpoints:
          - {url: "http://vllm-0:8000/v1/", weight: 3}
          - {url: "https://eu.example.com/v1", api_key: "${EU_KEY}"}
"""


def test_each_endpoint_is_a_replica_with_a_provider_of_its_own(tmp_path: Path) -> None:
    config = config_of(QWEN, tmp_path, {"EU_KEY": "of-eu"})
    qwen = config.rules.models["qwen"]
    assert qwen.replicas == (
        Replica("vllm-0:8000", 3.0, "qwen@vllm-0:8000"),
        Replica("eu.example.com:443", 1.0, "qwen@eu.example.com:443"),
    )
    assert (qwen.provider, qwen.disabled, config.warnings) == ("vllm", "", ())
    first, second = (config.providers[replica.provider] for replica in qwen.replicas)
    assert (first.base_url, first.api_key, first.headers) == ("http://vllm-0:8000/v1", "shared", {"x-org": "acme"})
    assert (second.base_url, second.api_key, second.disabled) == ("https://eu.example.com/v1", "of-eu", "")
    assert config.providers["vllm"].disabled  # it has no address of its own, and nobody asks it


@pytest.mark.parametrize(
    ("edit", "awake", "warning"),
    [
        (("", ""), ["vllm-0:8000"], "endpoint eu.example.com:443 of model qwen is disabled: EU_KEY is not set"),
        (
            ("http://vllm-0:8000/v1/", "${URL}"),
            [],
            "endpoint number 1 of model qwen is disabled: URL is not set",
        ),
        (("KEY:-shared", "KEY"), [], "endpoint vllm-0:8000 of model qwen is disabled: KEY is not set"),
        (("acme", "${ORG}"), [], "endpoint vllm-0:8000 of model qwen is disabled: ORG is not set"),
    ],
)
def test_what_is_missing_puts_an_endpoint_to_sleep(
    tmp_path: Path, edit: tuple[str, str], awake: list[str], warning: str
) -> None:
    config = config_of(QWEN.replace(*edit), tmp_path)
    qwen = config.rules.models["qwen"]
    assert warning in config.warnings
    assert not [each for each in config.warnings if each.startswith("provider")]
    if awake:
        assert [replica.name for replica in qwen.replicas] == awake
        assert not qwen.disabled
    else:
        assert qwen.disabled.startswith("all its endpoints sleep: ")
        assert qwen.replicas == (Replica(),)


def test_a_shared_key_that_is_missing_does_not_matter_where_each_endpoint_has_its_own(tmp_path: Path) -> None:
    text = QWEN.replace("KEY:-shared", "KEY").replace("weight: 3", "api_key: own")
    config = config_of(text, tmp_path, {"EU_KEY": "of-eu"})
    assert (len(config.rules.models["qwen"].replicas), config.warnings) == (2, ())


def test_a_provider_with_other_models_still_says_that_it_sleeps(tmp_path: Path) -> None:
    text = QWEN.replace("{api_key", '{base_url: "http://v/v1", api_key').replace("KEY:-shared", "KEY")
    config = config_of(text + "      other: {provider: vllm, price: unmetered}\n", tmp_path, {"EU_KEY": "of-eu"})
    assert "provider vllm is disabled: KEY is not set" in config.warnings
    assert config.rules.models["other"].disabled == "KEY is not set"
    assert [replica.name for replica in config.rules.models["qwen"].replicas] == ["eu.example.com:443"]


def test_the_price_book_knows_a_provider_by_its_first_endpoint(tmp_path: Path) -> None:
    text = """
        version: 1
        providers: {openai: {api_key: x}}
        models:
          gpt: {provider: openai, model: gpt-5, endpoints: [{url: "https://eu.api.openai.com/v1"}]}
        """
    config = config_of(text, tmp_path)
    assert config.rules.models["gpt"].price is not None
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["http://a:8000/v1", "http://b:8000/v1"], ["a:8000", "b:8000"]),
        (["http://a/v1", "https://a/v1"], ["a:80", "a:443"]),
        (["http://A:80/one/v1", "http://a/two/v1", "http://b/v1"], ["a:80/one/v1", "a:80/two/v1", "b:80"]),
        (["http://[::1]:8000/v1", ""], ["[::1]:8000", "number 2"]),
    ],
)
def test_replicas_are_named_by_where_they_are(urls: list[str], names: list[str]) -> None:
    assert replica_names(urls) == names


def test_sticky(tmp_path: Path) -> None:
    text = """
        version: 1
        defaults: {DEFAULT}
        providers: {a: {base_url: "http://a/v1"}}
        models: {m: {provider: a, price: unmetered}}
        routes:
          - {name: kept, use: [m], sticky: session, match: {model: x}}
          - {name: plain, use: [m]}
        """
    for defaults, sticky in (("{}", [True, False]), ("{sticky: session}", [True, True])):
        config = config_of(text.replace("{DEFAULT}", defaults), tmp_path)
        assert [route.sticky for route in config.rules.routes] == sticky


def test_where_an_endpoint_tells_its_load(tmp_path: Path) -> None:
    def metrics(provider: str, endpoint: str) -> list[str]:
        text = QWEN.replace('{api_key: "${KEY:-shared}"', f'{{api_key: "${{KEY:-shared}}"{provider}')
        text = text.replace("weight: 3", f"weight: 3{endpoint}")
        config = config_of(text, tmp_path, {"EU_KEY": "of-eu"})
        return [config.providers[each.provider].metrics for each in config.rules.models["qwen"].replicas]

    page = "http://vllm-0:9000/metrics"
    assert metrics("", "") == ["", ""]
    assert metrics("", f', metrics: "{page}"') == [page, ""]
    assert metrics(", metrics: off", "") == ["off", "off"]
    assert metrics(", metrics: off", f', metrics: "{page}"') == [page, "off"]
    assert metrics(f', metrics: "{page}"', "") == ["", ""], "one page cannot speak for several servers"
    assert metrics("", ', metrics: "${NO_SUCH_PAGE}"') == ["", ""]
