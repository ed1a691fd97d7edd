"""What servers of OpenAI's API do differently: a row each, every fact with its source and a day.

A call goes upstream as it came unless a rule of its target's dialect applies. A rule **drops** a hint that the server
refuses or ignores (`x-gateway-dropped` names it), or **maps** a member to the server's own word for it. What would
change the meaning of an answer is never dropped: the server's own 400 says it better. Where nobody says what a server
is (a host that is not listed, no `server:` of the provider), nothing is touched.

The answers' side - usage in odd places, reasoning, empty choices - needs no rows: `core.usage` and `views.openai` read
every shape that any of these servers sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gateway.core.call import Call, Endpoint
from gateway.core.rules import Model

# When the facts below were written down, from what is known of the pages named: `from documentation, not verified live`
# is all that may be said of them. `read` is the day on which a fact's source was read for it; most have none.
NOTED = "2026-11-25"
READ = "2026-11-26"


class Drop(NamedTuple):
    """Hints that a server refuses, or ignores without saying so."""

    members: tuple[str, ...]
    source: str
    models: tuple[str, ...] = (
        "*",
    )  # globs on the name that the server knows, lower case, without what is before a `/`
    but: tuple[str, ...] = ()  # of those, these not
    keep: tuple[object, ...] = ()  # values with which a member may stay
    thinking: bool = False  # only where the call switches thinking on
    noted: str = NOTED
    read: str = ""


class Rename(NamedTuple):
    """A member that the server has under another name."""

    member: str
    to: str
    source: str
    models: tuple[str, ...] = ("*",)
    but: tuple[str, ...] = ()
    noted: str = NOTED
    read: str = ""


class Thinking(NamedTuple):
    """How a server's thinking is switched."""

    member: str  # its own: thinking | enable_thinking | chat_template_kwargs | reasoning_effort | reasoning
    source: str
    also: tuple[str, ...] = ()  # further switches that it knows
    efforts: tuple[str, ...] = ()  # words that `reasoning_effort` may be, beside another switch; empty: any
    off: str = ""  # of reasoning_effort: the word for no thinking; empty: it cannot be switched off
    always: tuple[str, ...] = ()  # globs of models that have no such word
    noted: str = NOTED
    read: str = ""

    def knows(self, member: str, value: object) -> bool:
        """Whether a switch is one of this server's, and may stay as it is."""
        if member == "reasoning" and member != self.member:  # OpenAI's, of its responses: the effort alone
            return member in self.also and isinstance(value, dict) and "effort" in value
        if member == "reasoning_effort" and self.efforts:
            return value in self.efforts
        return member == self.member or member in self.also


class Dialect(NamedTuple):
    name: str  # in `server:` of a provider
    label: str  # for people
    source: str  # of the API as a whole
    hosts: tuple[str, ...] = ()  # and what is below them
    rules: tuple[Drop | Rename, ...] = ()
    thinking: Thinking | None = None
    no_developer: str = ""  # the source of its having no role `developer`: it becomes `system`
    developer_models: tuple[str, ...] = ()  # globs of models that have the role all the same
    no_named_choice: str = ""  # the source of its not knowing a function's name as `tool_choice`
    bills_filtered: str = ""  # the source of its charging for a prompt that its filter refuses


_REASONING = ("o1*", "o3*", "o4*", "gpt-5*")
_OPENAI_ALWAYS = ("o1*", "o3*", "o4*", "gpt-5", "gpt-5-*")
_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_REASONING_GUIDE = "platform.openai.com/docs/guides/reasoning"
_OTHERS_HINTS = ("top_k", "min_p", "repetition_penalty", "thinking_budget")

# Made of its API's description. Not read: the pages of the API itself.
_OPENAI_PARAMETERS = "github.com/openai/openai-python, src/openai/types/chat/completion_create_params.py"
_AZURE_REASONING = "github.com/MicrosoftDocs/azure-ai-docs, articles/foundry/openai/how-to/reasoning.md"

_OPENAI_RULES: tuple[Drop | Rename, ...] = (
    Rename("max_tokens", "max_completion_tokens", f"{_OPENAI_PARAMETERS}: not compatible with o-series models",
           models=("o1*", "o3*", "o4*"), read=READ),
    Rename("max_tokens", "max_completion_tokens", "platform.openai.com/docs/api-reference/chat/create",
           models=("gpt-5*",), but=("gpt-5-chat*",)),
    # Models before 5.1 always think; later ones take these where `reasoning_effort` is none (vercel/ai#10932).
    Drop(_SAMPLING, _REASONING_GUIDE, models=_OPENAI_ALWAYS, but=("gpt-5-chat*",), keep=(1,)),
    Drop(_SAMPLING, "developers.openai.com/api/docs/guides/reasoning", models=("gpt-5.*",), keep=(1,), thinking=True),
    Drop(_OTHERS_HINTS, "platform.openai.com/docs/api-reference/chat/create: unknown members are refused"),
)  # fmt: skip
_OPENAI_THINKING = Thinking("reasoning_effort", _OPENAI_PARAMETERS, read=READ)
# The same by Microsoft's own word, for GPT-5 and the o-series alike.
_AZURE_RULES: tuple[Drop | Rename, ...] = (
    Rename("max_tokens", "max_completion_tokens", f"{_AZURE_REASONING}: reasoning models work with it alone",
           models=_REASONING, but=("gpt-5-chat*",), read=READ),
    Drop(_SAMPLING, f"{_AZURE_REASONING}, `Not Supported`", models=_OPENAI_ALWAYS, but=("gpt-5-chat*",), keep=(1,),
         read=READ),
    Drop(_SAMPLING, f"{_AZURE_REASONING}, `Not Supported`", models=("gpt-5.*",), keep=(1,), thinking=True, read=READ),
    Drop(_OTHERS_HINTS, "platform.openai.com/docs/api-reference/chat/create: unknown members are refused"),
)  # fmt: skip
_AZURE_THINKING = Thinking("reasoning_effort", f"{_AZURE_REASONING}, `Reasoning effort`", read=READ)
_DEEPSEEK_SAMPLING = ("temperature", "presence_penalty", "frequency_penalty")
_TEMPLATE = "chat_template_kwargs"

DIALECTS: tuple[Dialect, ...] = (
    Dialect("openai", "OpenAI", "platform.openai.com/docs/api-reference/chat", ("api.openai.com",),
            _OPENAI_RULES, _OPENAI_THINKING),
    Dialect("azure", "Azure OpenAI", "learn.microsoft.com/azure/ai-foundry/openai/reference",
            ("openai.azure.com", "cognitiveservices.azure.com"), _AZURE_RULES, _AZURE_THINKING,
            # What it made of an answer meanwhile is charged, too, and nobody can see how much.
            bills_filtered="github.com/MicrosoftDocs/azure-ai-docs, articles/ai-services/openai/concepts/"
                           "content-filter.md: a 400 is charged, as the prompt was evaluated"),
    Dialect("deepseek", "DeepSeek", "api-docs.deepseek.com/api/create-chat-completion", ("api.deepseek.com",),
            (Rename("max_completion_tokens", "max_tokens", "api-docs.deepseek.com/zh-cn/guides/reasoning_model",
                    read=READ),
             Drop(_DEEPSEEK_SAMPLING, "api-docs.deepseek.com/guides/thinking_mode: not supported, without effect",
                  models=("deepseek-reasoner",), read=READ),
             Drop(_DEEPSEEK_SAMPLING, "api-docs.deepseek.com/guides/thinking_mode: not supported, without effect",
                  but=("deepseek-reasoner",), thinking=True, read=READ),
             Drop(("top_p",), "api-docs.deepseek.com/zh-cn/guides/reasoning_model: without effect",
                  models=("deepseek-reasoner",), read=READ)),
            # `none` is a word of its responses alone; all others are mapped to three.
            Thinking("thinking", "api-docs.deepseek.com/guides/thinking_mode", also=("reasoning_effort",),
                     efforts=("minimal", "low", "medium", "high", "xhigh", "max", "ultra"), read=READ),
            no_developer="api-docs.deepseek.com/api/create-chat-completion: system, user, assistant, tool"),
    Dialect("dashscope", "Qwen (DashScope)", "help.aliyun.com/zh/model-studio/use-qwen-by-calling-api",
            # It knows both names of the cap since April 2026, not the same (`config.models`): read 2026-11-26,
            # alibabacloud.com/en/notice/model_studio_notice_of_changes_to_certain_model_fields_724.
            ("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"), (),
            Thinking("enable_thinking", "alibabacloud.com/help/en/model-studio/deep-thinking",
                     also=("reasoning_effort",), read=READ),
            no_developer="help.aliyun.com/zh/model-studio/use-qwen-by-calling-api: system, user, assistant, tool"),
    Dialect("moonshot", "Kimi (Moonshot)", "platform.moonshot.ai/docs/api/chat", ("api.moonshot.ai", "api.moonshot.cn"),
            # Each is fixed, and the temperature differs with thinking: what equals it may as well be left out.
            (Drop(_SAMPLING, "platform.kimi.ai/docs/api/models-overview: cannot be modified",
                  models=("kimi-k2.5*", "kimi-k2.6*"), read=READ),
             Drop(("temperature",), "Bike4Mind/bike4mind#1089: `only 1 is allowed for this model`",
                  models=("kimi-k3*",), keep=(1,))),
            Thinking("thinking", "platform.kimi.ai/docs/api/models-overview", also=("reasoning_effort",), read=READ),
            no_developer="platform.moonshot.ai/docs/api/chat: system, user, assistant"),
    Dialect("ark", "Doubao (Volcengine Ark)", "volcengine.com/docs/82379/1494384", ("volces.com", "bytepluses.com"), (),
            Thinking("thinking", "volcengine.com/docs/82379/1449737", also=("reasoning_effort",)),
            no_developer="volcengine.com/docs/82379/1494384: system, user, assistant, tool"),
    Dialect("gemini", "Gemini (OpenAI endpoint)", "ai.google.dev/gemini-api/docs/openai",
            ("generativelanguage.googleapis.com",), (),
            # "Reasoning cannot be turned off for Gemini 2.5 Pro or 3 models."
            Thinking("reasoning_effort", "ai.google.dev/gemini-api/docs/openai, `Thinking`", off="none",
                     always=("gemini-2.5-pro*", "gemini-3*"), read=READ)),
    Dialect("openrouter", "OpenRouter", "openrouter.ai/docs/api-reference/overview", ("openrouter.ai",), (),
            Thinking("reasoning", "openrouter.ai/docs/use-cases/reasoning-tokens",
                     also=("reasoning_effort",), read=READ)),
    Dialect("huggingface", "Hugging Face Inference Providers",
            "huggingface.co/docs/inference-providers/tasks/chat-completion", ("router.huggingface.co",)),
    Dialect("vllm", "vLLM", "docs.vllm.ai/en/latest/serving/openai_compatible_server.html", (), (),
            Thinking(_TEMPLATE, "docs.vllm.ai/en/stable/features/reasoning_outputs",
                     also=("reasoning_effort",), read=READ),
            no_developer="Qwen/Qwen3-32B, chat_template: other roles than system, user, assistant, tool are left out",
            developer_models=("*gpt-oss*",)),
    Dialect("sglang", "SGLang", "docs.sglang.ai/basic_usage/openai_api_completions.html", (), (),
            Thinking(_TEMPLATE, "github.com/sgl-project/sglang, docs/basic_usage/openai_api_completions.ipynb",
                     also=("reasoning_effort",), read=READ),
            no_developer="Qwen/Qwen3-32B, chat_template: other roles than system, user, assistant, tool are left out",
            developer_models=("*gpt-oss*",)),
    Dialect("llamacpp", "llama.cpp", "github.com/ggml-org/llama.cpp, tools/server/README.md", (), (),
            Thinking(_TEMPLATE, "github.com/ggml-org/llama.cpp, tools/server/README.md, `chat_template_kwargs`",
                     read=READ),
            no_named_choice="ggml-org/llama.cpp#26535: an object is read as `auto`"),
    Dialect("ollama", "Ollama", "docs.ollama.com/api/openai-compatibility", (),
            (Rename("max_completion_tokens", "max_tokens", "docs.ollama.com/api/openai-compatibility: is not listed",
                    read=READ),),
            Thinking("reasoning_effort", "docs.ollama.com/api/openai-compatibility", also=("reasoning",), off="none",
                     read=READ)),
    Dialect("tgi", "Hugging Face TGI", "huggingface.co/docs/text-generation-inference/messages_api", (),
            (Rename("max_completion_tokens", "max_tokens", "github.com/huggingface/text-generation-inference, "
                    "docs/openapi.json: ChatRequest has `max_tokens` alone", read=READ),)),
)  # fmt: skip
BY_NAME: Mapping[str, Dialect] = {dialect.name: dialect for dialect in DIALECTS}

_SWITCHES = frozenset({"thinking", "enable_thinking", "reasoning_effort", "reasoning", _TEMPLATE})
_TEMPLATE_SWITCHES = ("enable_thinking", "thinking")  # Qwen's, and DeepSeek's and Granite's
_LITTLE = frozenset({"none", "minimal"})


class Adapted(NamedTuple):
    """How a call differs from what the client sent, because of whom it goes to. Nothing: it goes as it came."""

    edits: Mapping[str, bytes | None] = {}
    dropped: tuple[str, ...] = ()
    mapped: tuple[str, ...] = ()  # "max_tokens -> max_completion_tokens"


AS_IT_CAME = Adapted()


def bills_filtered(server: str) -> bool:
    """Whether a server charges for what its filter refuses."""
    return server in BY_NAME and bool(BY_NAME[server].bills_filtered)


def dialect_at(base_url: str) -> str:
    """The name of the dialect at a known host; empty where it is not known."""
    host = (urlsplit(base_url).hostname or "").lower()
    return next((d.name for d in DIALECTS for known in d.hosts if host == known or host.endswith(f".{known}")), "")


def adapted(call: Call, model: Model, upstream_name: str) -> Adapted:
    """Pure. Looks at nothing where the model's server is not known."""
    dialect = BY_NAME.get(model.server)
    if dialect is None or call.endpoint is not Endpoint.CHAT:
        return AS_IT_CAME
    rules, thinking, no_developer = _rules(model.server, upstream_name)
    work = _Work(call)
    for rule in rules:
        work.apply(rule)
    if thinking is not None:
        work.switch(thinking)
    if no_developer:
        work.no_developer()
    if dialect.no_named_choice:
        work.no_named_choice()
    return Adapted(work.edits, tuple(work.dropped), tuple(work.mapped)) if work.edits else AS_IT_CAME


@lru_cache(maxsize=1024)  # a wildcard entry lets clients choose the names
def _rules(server: str, upstream_name: str) -> tuple[tuple[Drop | Rename, ...], Thinking | None, bool]:
    """Those that hold for a model, how its thinking is switched, and whether it lacks the role `developer`."""
    dialect = BY_NAME[server]
    name = upstream_name.lower().rpartition("/")[2]

    def fits(globs: tuple[str, ...]) -> bool:
        return any(fnmatchcase(name, glob) for glob in globs)

    rules = tuple(rule for rule in dialect.rules if fits(rule.models) and not fits(rule.but))
    thinking = dialect.thinking
    if thinking is not None and fits(thinking.always):
        thinking = thinking._replace(off="")
    return rules, thinking, bool(dialect.no_developer) and not fits(dialect.developer_models)


class _Work:
    """One call's edits under way."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.edits: dict[str, bytes | None] = {}
        self.dropped: list[str] = []
        self.mapped: list[str] = []

    def apply(self, rule: Drop | Rename) -> None:
        call = self.call
        if isinstance(rule, Rename):
            if call.source(rule.member) not in (b"", b"null"):
                self.edits |= {rule.member: None, rule.to: self._cap()}
                self.mapped.append(f"{rule.member} -> {rule.to}")
            return
        if rule.thinking and not thinks(call):
            return
        for member in rule.members:
            if call.source(member) not in (b"", b"null") and call.decoded(member) not in rule.keep:
                self.edits[member] = None
                self.dropped.append(member)

    def _cap(self) -> bytes:
        """Of the two names for a cap, the newer wins where both are given."""
        newer = self.call.source(self.call.form.caps[0])
        return newer if newer not in (b"", b"null") else self.call.source(self.call.form.caps[1])

    def switch(self, thinking: Thinking) -> None:
        """Another server's switch for thinking becomes this one's; beside its own it is left out."""
        given = self.call.holds(_SWITCHES)
        if not given:
            return
        foreign = sorted(name for name in given if not thinking.knows(name, self.call.decoded(name)))
        if not foreign:
            return
        wanted = thinks(self.call)
        own = given - set(foreign)
        value = None if own or wanted is None else _switched(thinking, on=wanted)
        for member in foreign:
            self.edits[member] = None
            if value is None:
                self.dropped.append(member)
            else:
                self.mapped.append(f"{member} -> {thinking.member}")
        if value is not None:
            self.edits[thinking.member] = self.call.merged(thinking.member, value)

    def no_developer(self) -> None:
        if b'"developer"' not in self.call.body:
            return
        messages = self.call.decoded("messages")
        if any(each.get("role") == "developer" for each in messages):
            changed = [{**each, "role": "system"} if each.get("role") == "developer" else each for each in messages]
            self.edits["messages"] = self.call.encode(changed)
            self.mapped.append("developer -> system")

    def no_named_choice(self) -> None:
        """A function that is named becomes the only one, of which one is required. One that is not there stays."""
        if self.call.source("tool_choice")[:1] != b"{":
            return
        name, tools = _named(self.call.decoded("tool_choice")), self.call.decoded("tools")
        found = [each for each in tools if _named(each) == name] if name and isinstance(tools, list) else []
        if found:
            self.edits["tool_choice"] = self.call.encode("required")
            self.mapped.append("tool_choice -> required")
            if len(found) < len(tools):
                self.edits["tools"] = self.call.encode(found)
                self.mapped.append("tools -> the chosen one alone")


def _named(value: Any) -> str:  # noqa: ANN401 - JSON can be anything
    """The function's name of a tool, or of a choice among them; empty where it has none."""
    function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def thinks(call: Call) -> bool | None:
    """Whether a call switches thinking on or off, in whichever server's words; None where it does not say."""
    for member in call.holds(_SWITCHES):
        if (found := _wanted(member, call.decoded(member))) is not None:
            return found
    return None


def _wanted(member: str, value: Any) -> bool | None:  # noqa: ANN401 - JSON can be anything
    if member == _TEMPLATE and isinstance(value, dict):
        value = next((value[name] for name in _TEMPLATE_SWITCHES if name in value), None)
    elif member == "thinking" and isinstance(value, dict):
        value = {"enabled": True, "disabled": False}.get(str(value.get("type")))
    elif member == "reasoning" and isinstance(value, dict):
        value = value.get("enabled", value.get("effort"))
    if isinstance(value, str):
        return value not in _LITTLE
    return value if isinstance(value, bool) else None


def _switched(thinking: Thinking, *, on: bool) -> object:
    """The value of a server's own switch; None where it has none for this."""
    if thinking.member == "thinking":
        return {"type": "enabled" if on else "disabled"}
    if thinking.member == _TEMPLATE:
        return dict.fromkeys(_TEMPLATE_SWITCHES, on)
    if thinking.member == "reasoning":
        return {"enabled": on}
    if thinking.member == "enable_thinking":
        return on
    return None if on else thinking.off or None
