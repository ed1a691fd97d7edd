"""`model_list` -> providers and models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from gateway.config.litellm_import import servers
from gateway.config.litellm_import.remarks import DIFFERS, INFO, LOST, PARAMS, Remark
from gateway.config.litellm_import.secrets import Secrets, is_no_key, is_secret
from gateway.config.litellm_import.servers import LITELLM_KEYS, SERVERS, USUAL_KEYS, Server, number, seconds
from gateway.config.litellm_names import LITELLM_CLOUDS, LITELLM_OPTIONS

_MILLION = 1_000_000
_PRICES = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "output_cost_per_reasoning_token": "reasoning",
}
_SUPPORTS = {
    "supports_vision": "images",
    "supports_audio_input": "audio",
    "supports_function_calling": "tools",
    "supports_response_schema": "json_schema",
    "supports_reasoning": "reasoning",
}
# Members of a body that LiteLLM sends where the client has none.
_BODY = frozenset(
    {"temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "stop", "presence_penalty"}
    | {"frequency_penalty", "reasoning_effort", "thinking", "response_format", "extra_body", "n", "user"}
)
_TAKEN = frozenset(
    {"model", "api_base", "base_url", "api_key", "timeout", "stream_timeout", "max_retries", "weight", "order"}
    | {"max_parallel_requests", "additional_drop_params", "extra_headers", "headers", "organization", *_PRICES}
)
_HEADERS = ("extra_headers", "headers", "organization")
_READ = frozenset(  # of `model_info`, or without a meaning for anybody but LiteLLM
    {"id", "db_model", "mode", "max_tokens", "max_input_tokens", "max_output_tokens", "created_at", "updated_at"}
    | {"description", "version", "litellm_provider", *_PRICES, *_SUPPORTS}
)
_NOT_OURS = frozenset({"host", "content-type", "content-length", "connection", "transfer-encoding"})
_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class Deployment(NamedTuple):
    group: str
    path: str
    provider: str  # LiteLLM's prefix; empty: unknown
    upstream: str
    params: Mapping[str, Any]
    info: Mapping[str, Any]

    @property
    def weight(self) -> int | Decimal:
        """0: it is not to be picked."""
        weights = [number(self.params.get(name)) for name in ("weight", "rpm")]
        return next((each for each in weights if each is not None and each >= 0), 1)


class Entry(NamedTuple):
    """A model of ours, and what stands for it in a route."""

    name: str
    weight: int | Decimal


class Models:
    """Collects providers and models, each under a name of its own."""

    def __init__(self) -> None:
        self.providers: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.comments: dict[tuple[str, str], list[str]] = {}
        self.remarks: list[Remark] = []
        self.secrets = Secrets()

    def read(self, model_list: object) -> dict[str, list[Deployment]]:
        """By group, in the order of the file. What is no deployment is remarked on."""
        groups: dict[str, list[Deployment]] = {}
        for index, item in enumerate(model_list if isinstance(model_list, list) else ()):
            path = f"model_list[{index}]"
            params = item.get("litellm_params") if isinstance(item, Mapping) else None
            group = item.get("model_name") if isinstance(item, Mapping) else None
            if (
                not isinstance(params, Mapping)
                or not isinstance(group, str)
                or not isinstance(params.get("model"), str)
            ):
                self.remarks.append(Remark(LOST, path, "no model_name with litellm_params.model: left out"))
                continue
            params = {**{name: item[name] for name in ("rpm", "tpm") if name in item}, **params}
            provider, upstream = servers.split(params["model"], str(params.get("custom_llm_provider") or ""))
            info = item.get("model_info")
            found = Deployment(group, path, provider, upstream, params, info if isinstance(info, Mapping) else {})
            groups.setdefault(group, []).append(found)
            if not params.get("api_key") and (usual := self._usual_key(found)):
                self.secrets.reserve(usual)
        return groups

    def add_group(self, group: str, deployments: Sequence[Deployment]) -> list[Entry]:
        """The models that serve a group: one with endpoints where its servers are replicas of each other."""
        if len(deployments) > 1 and all(each.weight for each in deployments) and self._are_replicas(deployments):
            return [self._with_endpoints(group, deployments)]
        return [self._single(group, each, alone=len(deployments) == 1) for each in deployments]

    def comment(self, section: str, name: str, text: str) -> None:
        known = self.comments.setdefault((section, name), [])
        known += [] if text in known else [text]

    def _are_replicas(self, deployments: Sequence[Deployment]) -> bool:
        first = deployments[0]
        urls = {self._url(each) for each in deployments}
        same = {(each.provider, each.upstream) for each in deployments} == {(first.provider, first.upstream)}
        plain = [(self._model(each), [each.params.get(name) for name in _HEADERS]) for each in deployments]
        return (
            same and first.provider in SERVERS and len(urls) == len(deployments) and all(p == plain[0] for p in plain)
        )

    def _with_endpoints(self, group: str, deployments: Sequence[Deployment]) -> Entry:
        first = deployments[0]
        provider = self._free(self.providers, f"{first.provider}-{group}")
        self.providers[provider] = self._headers(first)
        endpoints = []
        for each in deployments:
            endpoint: dict[str, Any] = {"url": self._url(each)}
            if key := self._key(each, provider):
                endpoint["api_key"] = key
            if each.weight not in (0, 1):
                endpoint["weight"] = each.weight
            endpoints.append(endpoint)
            self._remark_on(each)
        name = self._free(self.models, group)
        self.models[name] = {**self._model(first), "provider": provider, "endpoints": endpoints}
        return Entry(name, 1)

    def _single(self, group: str, deployment: Deployment, *, alone: bool) -> Entry:
        provider = self._provider(deployment)
        wildcard = "*" in group or "*" in deployment.upstream
        wanted = group if alone else f"{group}-{deployment.provider or 'server'}"
        if wildcard:
            wanted = f"{provider}/*" if group != f"{provider}/*" else group
        name = self._free(self.models, wanted)
        model = {"provider": provider, **self._model(deployment)}
        if wildcard:
            model.pop("model", None)
            if model.pop("price", None):
                text = "the models of a wildcard have prices of their own: name one of them to give it a price"
                self.remarks.append(Remark(LOST, f"{deployment.path}: price", text))
            if name != group:
                text = f"`{group}` has become `{name}`: clients ask for {name.removesuffix('*')}NAME"
                self.comment("models", name, f"differs: {text}")
                self.remarks.append(Remark(DIFFERS, deployment.path, text))
        self.models[name] = model
        self._remark_on(deployment, name)
        return Entry(name, deployment.weight)

    def _model(self, deployment: Deployment) -> dict[str, Any]:
        params, info = deployment.params, deployment.info
        model: dict[str, Any] = {"model": deployment.upstream}
        if self._server(deployment).hosting == "self":
            model["hosting"] = "self"
        if {"input", "output"} <= (prices := _prices(deployment)).keys():
            model["price"] = prices
        if isinstance(window := info.get("max_input_tokens"), int) and window > 0:
            model["context_window"] = window
        if isinstance(longest := info.get("max_output_tokens") or info.get("max_tokens"), int) and longest > 0:
            model["max_output_tokens"] = longest
        supports = [ours for theirs, ours in _SUPPORTS.items() if info.get(theirs) is True]
        if supports:
            model["supports"] = supports
        body = {name: value for name, value in params.items() if name in _BODY and name != "extra_body"}
        extra = params.get("extra_body")
        body |= extra if isinstance(extra, Mapping) else {}
        if body:
            model["set"] = servers.plain(body)
        if isinstance(dropped := params.get("additional_drop_params"), list):
            model["drop"] = [each for each in dropped if _is_member(each)]
        timeout = {
            ours: seconds(value)
            for theirs, ours in (("timeout", "attempt"), ("stream_timeout", "first_token"))
            if (value := number(params.get(theirs))) is not None and value > 0
        }
        if timeout:
            model["timeout"] = timeout
        if isinstance(most := params.get("max_parallel_requests"), int) and most > 0:
            model["max_in_flight"] = most
        return model

    def _provider(self, deployment: Deployment) -> str:
        """The name of the provider that reaches it; made where there is none like it yet."""
        label = deployment.provider or "server"
        written: dict[str, Any] = {}
        if deployment.provider in LITELLM_KEYS:
            written |= {"dialect": "litellm", "litellm_provider": deployment.provider}
            if options := self._options(deployment):
                written["options"] = options
        if url := self._url(deployment):
            written["base_url"] = url
        if key := self._key(deployment, label):
            written["api_key"] = key
        written |= self._headers(deployment)
        for name, known in self.providers.items():
            if known == written:
                return name
        name = self._free(self.providers, label)
        self.providers[name] = written
        if not url and "dialect" not in written:
            text = f"provider {name} has no address: set {_variable(name, 'BASE_URL')}"
            written["base_url"] = "${" + _variable(name, "BASE_URL") + "}"
            self.remarks.append(Remark(LOST, deployment.path, text))
        return name

    def _server(self, deployment: Deployment) -> Server:
        return SERVERS.get(deployment.provider, Server())

    def _url(self, deployment: Deployment) -> str:
        given = deployment.params.get("api_base") or deployment.params.get("base_url")
        return servers.base_url(self._server(deployment), deployment.provider, given)

    def _usual_key(self, deployment: Deployment) -> str:
        """The variable that LiteLLM reads where a deployment has no key."""
        return self._server(deployment).key or LITELLM_KEYS.get(deployment.provider, "")

    def _key(self, deployment: Deployment, label: str) -> str:
        given = deployment.params.get("api_key")
        path = f"{deployment.path}.litellm_params.api_key"
        if not given:
            usual = self._usual_key(deployment)
            return "${" + usual + "}" if usual else ""
        usual_url = self._server(deployment).base_url
        elsewhere = self._url(deployment) not in ("", usual_url)
        if elsewhere and is_no_key(given):
            self.remarks.append(Remark(DIFFERS, path, f"{given!r} is no key: none is sent"))
            return ""
        if not (elsewhere and usual_url):
            return self._written(given, _variable(label, "API_KEY"), path)
        # Another's server must not be sent the key that the provider's own variable is likely to hold.
        variable = _variable(deployment.group, "API_KEY")
        if variable in USUAL_KEYS:
            variable = _variable(deployment.group, "SERVER_API_KEY")
        return self._written(given, variable, path, scope="elsewhere")

    def _written(self, secret: object, variable: str, path: str, scope: str = "") -> str:
        written, stood_there = self.secrets.written(secret, variable, scope)
        if stood_there:
            text = f"it stood in the file itself and is not repeated: set {written[2:-1]}"
            self.remarks.append(Remark(DIFFERS, path, text))
        return written

    def _options(self, deployment: Deployment) -> dict[str, Any]:
        """Regions, projects and credentials. One that stood in the file itself is not repeated if it is a secret."""
        options = {}
        for name, value in deployment.params.items():
            if not _is_option(name) or not isinstance(value, str | int | Decimal):
                continue
            path = f"{deployment.path}.litellm_params.{name}"
            hidden = is_secret(name)
            options[name] = self._written(value, name.upper(), path) if hidden else str(servers.environment(value))
        return options

    def _headers(self, deployment: Deployment) -> dict[str, Any]:
        params = deployment.params
        given = params.get("extra_headers") or params.get("headers")
        headers = servers.plain(given) if isinstance(given, Mapping) else {}
        for name in [name for name in headers if name.lower() in _NOT_OURS]:
            del headers[name]
            self.remarks.append(Remark(LOST, f"{deployment.path}.litellm_params: header {name}", "the gateway sets it"))
        headers = {name: value if isinstance(value, str) else str(value) for name, value in headers.items()}
        for name, value in headers.items():
            if is_secret(name):
                path = f"{deployment.path}.litellm_params: header {name}"
                headers[name] = self._written(value, _variable(deployment.group, name), path)
        if isinstance(organisation := params.get("organization"), str):
            headers["OpenAI-Organization"] = servers.environment(organisation)
        return {"headers": headers} if headers else {}

    def _remark_on(self, deployment: Deployment, name: str = "") -> None:
        params = deployment.params
        if body := sorted(_BODY & params.keys()):
            text = f"{', '.join(body)}: LiteLLM's are defaults that a client may override; `set` wins over the client"
            self.remarks.append(Remark(DIFFERS, f"{deployment.path}.litellm_params", text))
            self.comment("models", name or deployment.group, f"differs: {text}")
        through = deployment.provider in LITELLM_KEYS
        prices = _prices(deployment)
        if len({"input", "output"} & prices.keys()) == 1:
            text = f"only {', '.join(prices)} is given: a price needs input and output, so the model has none"
            self.remarks.append(Remark(LOST, f"{deployment.path}: price", text))
        dropped = params.get("additional_drop_params")
        for each in dropped if isinstance(dropped, list) else ():
            if not _is_member(each):
                text = f"{each!r} is no member at the top of a body: `drop` takes out whole members"
                self.remarks.append(Remark(LOST, f"{deployment.path}.litellm_params.additional_drop_params", text))
        for param in params.keys() - _TAKEN - _BODY:
            if through and _is_option(param):
                continue
            kind, text = PARAMS.get(param, (LOST, f"{param} has no equivalent" + _beside(deployment)))
            if text:
                self.remarks.append(Remark(kind, f"{deployment.path}.litellm_params.{param}", text))
        self._remark_on_info(deployment)

    def _remark_on_info(self, deployment: Deployment) -> None:
        for name in deployment.info:
            if name not in _READ:
                text = INFO.get(str(name), f"{name} has no equivalent")
                self.remarks.append(Remark(LOST, f"{deployment.path}.model_info.{name}", text))
        mode = deployment.info.get("mode")
        if mode not in (None, "chat", "completion", "embedding", "responses"):
            text = f"mode {mode}: check that its endpoint is served (docs/requests.md)"
            self.remarks.append(Remark(DIFFERS, f"{deployment.path}.model_info.mode", text))

    def _free(self, taken: Mapping[str, Any], wanted: str) -> str:
        """`wanted` as a name, with a number where another has it already."""
        star = wanted.endswith("/*")
        base = wanted if star else _NAME.sub("-", wanted).strip("-.") or "model"
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base.removesuffix('/*')}-{number}/*" if star else f"{base}-{number}"
        return name


def _is_option(name: str) -> bool:
    return (name in LITELLM_OPTIONS and name != "organization") or name.startswith(LITELLM_CLOUDS)


def _prices(deployment: Deployment) -> dict[str, Decimal | int]:
    """What is known of them: of use only with both input and output, of which embeddings write none."""
    params, info = deployment.params, deployment.info
    prices = {
        ours: _per_million(value)
        for theirs, ours in _PRICES.items()
        if (value := number(params.get(theirs, info.get(theirs)))) is not None and value >= 0
    }
    if "input" in prices and info.get("mode") == "embedding":
        prices.setdefault("output", 0)
    return prices


def _is_member(name: object) -> bool:
    """LiteLLM also drops what is inside of members, such as `tools[*].input_examples`."""
    return isinstance(name, str) and re.fullmatch(r"\w+", name) is not None


def _per_million(value: int | Decimal) -> Decimal | int:
    price = Decimal(value) * _MILLION
    return int(price) if price == price.to_integral_value() else price.normalize()


def _variable(label: str, what: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", f"{label}_{what}".upper()).strip("_")


def _beside(deployment: Deployment) -> str:
    litellm = deployment.provider in LITELLM_KEYS
    return "; litellm reads many such settings from the environment" if litellm else ""
