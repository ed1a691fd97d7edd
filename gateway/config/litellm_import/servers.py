"""Where LiteLLM's provider prefixes lead, and how such a server is written in routes.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple


class Server(NamedTuple):
    base_url: str = ""  # empty: the file must say it (`api_base`)
    key: str = ""  # the environment variable that LiteLLM reads
    hosting: str = "api"  # self: one's own hardware


OWN = Server(hosting="self")
ENVIRON = "os.environ/"  # begins a value that LiteLLM reads from the environment

# docs.litellm.ai/docs/providers: those that speak OpenAI's API.
SERVERS: Mapping[str, Server] = {
    "openai": Server("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "text-completion-openai": Server("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "deepseek": Server("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "dashscope": Server("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "moonshot": Server("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "volcengine": Server("https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY"),
    "gemini": Server("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    "groq": Server("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": Server("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "together_ai": Server("https://api.together.xyz/v1", "TOGETHERAI_API_KEY"),
    "fireworks_ai": Server("https://api.fireworks.ai/inference/v1", "FIREWORKS_AI_API_KEY"),
    "openrouter": Server("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "xai": Server("https://api.x.ai/v1", "XAI_API_KEY"),
    "deepinfra": Server("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "huggingface": Server("https://router.huggingface.co/v1", "HF_TOKEN"),
    "cerebras": Server("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "nvidia_nim": Server("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "hosted_vllm": OWN,
    "vllm": OWN,
    "openai_like": OWN,
    "custom_openai": OWN,
    "lm_studio": OWN,
    "llamafile": OWN,
    "litellm_proxy": Server(),
    "ollama": Server("http://127.0.0.1:11434/v1", hosting="self"),
    "ollama_chat": Server("http://127.0.0.1:11434/v1", hosting="self"),
}

# Reached through litellm as a library (`dialect: litellm`): the key's variable, for those that have one.
LITELLM_KEYS: Mapping[str, str] = {
    "anthropic": "ANTHROPIC_API_KEY",
    "cohere": "COHERE_API_KEY",
    "cohere_chat": "COHERE_API_KEY",
    "replicate": "REPLICATE_API_KEY",
    "azure": "AZURE_API_KEY",
    "azure_ai": "AZURE_AI_API_KEY",
    "databricks": "DATABRICKS_API_KEY",
    "bedrock": "",
    "vertex_ai": "",
    "sagemaker": "",
    "watsonx": "WATSONX_APIKEY",
    "perplexity": "PERPLEXITYAI_API_KEY",
}

USUAL_KEYS = {server.key for server in SERVERS.values()} | set(LITELLM_KEYS.values())

# LiteLLM knows the provider of a bare name from its own list; these beginnings tell it for nearly all of them.
BARE: tuple[tuple[str, str], ...] = (
    ("claude", "anthropic"),
    ("gemini", "gemini"),
    ("command", "cohere_chat"),
    ("deepseek", "deepseek"),
    ("mistral", "mistral"),
    ("grok", "xai"),
)


def split(model: str, given: str = "") -> tuple[str, str]:
    """A deployment's `model` -> its provider, and the name that goes upstream. `given`: `custom_llm_provider`."""
    prefix, slash, rest = model.partition("/")
    if given:
        return given, model.removeprefix(f"{given}/")
    if slash and (prefix in SERVERS or prefix in LITELLM_KEYS):
        return prefix, rest
    if slash:
        return "", model
    return next((provider for beginning, provider in BARE if model.startswith(beginning)), "openai"), model


def environment(value: object) -> object:
    """LiteLLM's `os.environ/X` -> ours."""
    if isinstance(value, str) and value.startswith(ENVIRON):
        return "${" + value.removeprefix(ENVIRON) + "}"
    return value


def base_url(server: Server, provider: str, api_base: object) -> str:
    """Up to where the API begins. Ollama's own address lacks the /v1 that its OpenAI API stands under."""
    if not isinstance(api_base, str) or not api_base:
        return server.base_url
    url = str(environment(api_base)).rstrip("/")
    needs = provider.startswith("ollama") and not url.endswith("/v1")
    return f"{url}/v1" if needs else url


def number(value: object) -> int | Decimal | None:
    """A number, also where it stands in quotes, as LiteLLM takes it; None where it is none."""
    if isinstance(value, str):
        try:
            value = Decimal(value)
        except InvalidOperation:
            return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    return value if not isinstance(value, Decimal) or value.is_finite() else None


def seconds(value: int | Decimal) -> str:
    """As a duration, which has no exponent."""
    return f"{Decimal(value):f}s"


def plain(value: Any) -> Any:  # noqa: ANN401 - YAML can be anything
    """With `os.environ/X` replaced, however deep."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return environment(value)
