"""A LiteLLM configuration of 20 models with fallbacks and a budget: imported, it serves."""

from __future__ import annotations

from pathlib import Path

import yaml

from gateway.cli import main
from tests import replies
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import Upstream

KEY = "sk-litellm-master"


def litellm_config(base_url: str) -> str:
    """As people write it: hosted vLLM, an Ollama, OpenAI-compatible APIs, replicas, a group of several, an alias."""

    def model(name: str, model: str, **params: object) -> dict[str, object]:
        return {"model_name": name, "litellm_params": {"model": model, "api_base": base_url, **params}}

    price = {"input_cost_per_token": 0, "output_cost_per_token": 0.1}
    groups = [model(f"vllm-{n}", f"hosted_vllm/org/model-{n}") for n in range(6)]
    groups += [model(f"api-{n}", f"openai/api-{n}", api_key="os.environ/UP_KEY", **price) for n in range(6)]
    groups += [model("llama", "ollama_chat/llama3"), model("deepseek", "deepseek/deepseek-chat", api_key="sk-there")]
    groups += [model("mixed", "openai/mixed-a", rpm=3), model("mixed", "groq/mixed-b", api_key="sk-there", rpm=1)]
    groups += [model(f"bad-{n}", f"openai/bad-{n}", api_key="sk-there", **price) for n in range(4)]
    assert len(groups) == 20
    file = {
        "model_list": groups,
        "litellm_settings": {
            "num_retries": 0,
            "fallbacks": [{f"bad-{n}": ["vllm-0"]} for n in range(3)],
            "default_fallbacks": ["vllm-1"],
            "max_budget": 2,
            "budget_duration": "30d",
        },
        "router_settings": {"routing_strategy": "simple-shuffle", "model_group_alias": {"gpt-4": "mixed"}},
        "general_settings": {"master_key": "os.environ/LITELLM_MASTER_KEY"},
    }
    return yaml.safe_dump(file)


def test_it_serves(tmp_path: Path) -> None:
    with Upstream(replies.ok(tokens=Tokens(output=10))) as upstream:
        source = tmp_path / "config.yaml"
        source.write_text(litellm_config(upstream.base_url))
        made = tmp_path / "made.yaml"
        assert main(["import", "litellm", str(source), "-o", str(made)]) == 0
        for n in range(4):
            upstream.always(f"bad-{n}", replies.status(500))
        env = {"LITELLM_MASTER_KEY": KEY, "UP_KEY": "sk-up", "DEEPSEEK_SERVER_API_KEY": "sk-there"}
        with Gateway(tmp_path, made.read_text(), env=env) as gateway:

            def ask(model: str) -> tuple[int, str]:
                body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10}
                answer = gateway.post(json=body, headers={"authorization": f"Bearer {KEY}"})
                return answer.status_code, answer.headers.get("x-gateway-model", "")

            assert gateway.post(json={}, headers={"authorization": "Bearer nobody"}).status_code == 401
            for n in range(6):
                assert ask(f"vllm-{n}") == (200, f"vllm-{n}")
            assert ask("llama") == (200, "llama")
            assert ask("bad-0") == (200, "vllm-0"), "its fallback"
            assert ask("bad-3") == (200, "vllm-1"), "the default fallback"
            assert [request.model for request in upstream.requests].count("bad-3") == 1
            # Ten tokens at 0.1 USD: two calls use the budget up.
            assert [ask("api-0") for _ in range(2)] == [(200, "api-0")] * 2
            until("the budget is spent, as LiteLLM has it for everything", lambda: ask("api-1")[0] == 429)
