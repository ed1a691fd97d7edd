"""The whole file: model groups become models and routes, settings become defaults, budgets and keys."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from gateway.config.litellm_import.deployments import Deployment, Entry, Models
from gateway.config.litellm_import.remarks import DIFFERS, LOST, SETTINGS, Remark
from gateway.config.litellm_import.render import render
from gateway.config.litellm_import.secrets import variables
from gateway.config.litellm_import.servers import number, seconds

ORDERS: Mapping[str, tuple[str, str]] = {  # routing_strategy -> ours, and how it differs
    "simple-shuffle": ("weighted", ""),
    "least-busy": ("least_busy", ""),
    "cost-based-routing": ("cheapest", ""),
    "usage-based-routing": ("least_busy", "by requests in flight, not by tokens of the last minute"),
    "usage-based-routing-v2": ("least_busy", "by requests in flight, not by tokens of the last minute"),
    "latency-based-routing": ("least_busy", "by requests in flight, not by latency"),
}
WINDOWS: Mapping[str, str] = {"1h": "hour", "24h": "day", "1d": "day", "7d": "week", "30d": "month", "1mo": "month"}
_KNOWN = {
    "litellm_settings": {"num_retries", "request_timeout", "fallbacks", "context_window_fallbacks", "default_fallbacks"}
    | {"content_policy_fallbacks", "max_budget", "budget_duration"},
    "router_settings": {"num_retries", "timeout", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks"}
    | {"default_fallbacks", "routing_strategy", "model_group_alias"},
    "general_settings": {"master_key"},
}
_SECTIONS = ("model_list", *_KNOWN)
MOST_RETRIES = 10
EVERYONE = "*"  # as a group of fallbacks: all that have none of their own


class Imported(NamedTuple):
    yaml: str
    remarks: tuple[Remark, ...]


def convert(data: object) -> Imported:
    """`data`: the parsed file. Raises ValueError where it holds no models."""
    if not isinstance(data, Mapping) or not isinstance(data.get("model_list"), list):
        raise ValueError("this is no config.yaml of a LiteLLM proxy: it has no `model_list`")
    return _Conversion(data).result()


class _Conversion:
    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._models = Models()
        self._remarks = self._models.remarks
        self._order = self._find_order()
        self._content_policy: set[str] = set()

    def result(self) -> Imported:
        for name in variables(self._data):
            self._models.secrets.reserve(name)
        groups = self._models.read(self._data["model_list"])
        if not groups:
            raise ValueError("its `model_list` has no entry with a model_name and litellm_params.model")
        entries = {group: self._models.add_group(group, found) for group, found in groups.items()}
        routes = self._routes(groups, entries)
        file: dict[str, Any] = {"version": 1}
        if defaults := self._defaults():
            file["defaults"] = defaults
        file |= {"providers": self._models.providers, "models": self._models.models}
        file |= {name: value for name, value in (("routes", routes), ("budgets", self._budgets())) if value}
        if keys := self._keys():
            file["keys"] = keys
        self._remark_on_settings()
        remarks = tuple(dict.fromkeys(self._remarks))
        return Imported(render(file, self._models.comments, remarks), remarks)

    def _setting(self, name: str) -> Any:  # noqa: ANN401 - YAML can be anything
        """The router's, else LiteLLM's own: as LiteLLM has it."""
        for section in ("router_settings", "litellm_settings"):
            settings = self._data.get(section)
            if isinstance(settings, Mapping) and settings.get(name) is not None:
                return settings[name]
        return None

    def _number(self, name: str) -> int | Decimal | None:
        """A setting that should be one; another is remarked on."""
        given = self._setting(name)
        found = number(given)
        if given is not None and found is None:
            self._remarks.append(Remark(LOST, name, f"{given!r} is no number: write it into the routes.yaml yourself"))
        return found

    def _find_order(self) -> str:
        strategy = self._setting("routing_strategy") or "simple-shuffle"
        order, differs = ORDERS.get(str(strategy), ("weighted", "there is no such strategy here; by weight instead"))
        if differs:
            self._remarks.append(Remark(DIFFERS, "router_settings.routing_strategy", f"{strategy}: {differs}"))
        return order

    def _defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {}
        retries = self._number("num_retries")
        if retries is not None and retries >= 0:
            defaults["retries"] = min(int(retries), MOST_RETRIES)
            if retries > MOST_RETRIES:
                self._remarks.append(Remark(DIFFERS, "num_retries", f"{retries}: {MOST_RETRIES} is the most"))
        timeout = self._number("timeout") or self._number("request_timeout")
        if timeout is not None and timeout > 0:
            defaults["timeout"] = {"total": seconds(timeout)}
            text = "LiteLLM's timeout is for each try; `total` spans all of them"
            self._remarks.append(Remark(DIFFERS, "request_timeout", text))
        return defaults

    # Routes.

    def _routes(self, groups: Mapping[str, Sequence[Deployment]], entries: Mapping[str, list[Entry]]) -> list[Any]:
        fallbacks = self._fallbacks(entries)
        aliases = self._aliases(entries)
        routes: list[dict[str, Any]] = []
        for group, found in entries.items():
            names = [group, *(alias for alias, of in aliases.items() if of == group)]
            after = fallbacks.get(group, [])
            own_name = len(found) == 1 and found[0].name == group
            if "*" in group:
                self._remark_on_wildcard(group, names, after)
                continue
            if own_name and not after and len(names) == 1:
                continue  # a model under its own name needs no route
            name = _route_name(group, {each["name"] for each in routes})
            match = {"model": self._asked_for(names, name)}
            route: dict[str, Any] = {"name": name, "match": match, **self._use(groups[group], found)}
            if after:
                route["fallback"] = after
            if group in self._content_policy:
                route["fallback_on"] = [*_DEFAULT_KINDS, "content_filter"]
            routes.append(route)
        return routes

    def _asked_for(self, names: Sequence[str], instead: str) -> list[str]:
        """The names that a route can match; `instead` where there is none."""
        found = [name for name in names if name.isascii()] or [instead]
        for name in names:
            if not name.isascii():
                text = f"{name}: names are ASCII here: clients ask for {found[0]}"
                self._remarks.append(Remark(DIFFERS, "model_name", text))
        return found

    def _use(self, deployments: Sequence[Deployment], found: Sequence[Entry]) -> dict[str, Any]:
        if len(found) == 1:
            return {"use": [found[0].name]}
        drained = [each.weight == 0 for each in deployments]
        if all(drained):
            text = "every weight is 0: each of them is picked as often as the others"
            self._remarks.append(Remark(DIFFERS, deployments[0].path, text))
        elif any(drained):
            text = "weight 0: it is not among the candidates"
            self._remarks += [Remark(DIFFERS, each.path, text) for each in deployments if each.weight == 0]
            used = [pair for pair in zip(deployments, found, strict=True) if pair[0].weight]
            return self._use([each for each, _ in used], [each for _, each in used])
        ranks = [each.params.get("order") for each in deployments]
        if all(isinstance(rank, int) for rank in ranks):
            ranked = sorted(zip(ranks, found, strict=True), key=lambda pair: pair[0] or 0)
            return {"use": [entry.name for _, entry in ranked]}
        if self._order != "weighted":
            return {"use": [entry.name for entry in found], "order": self._order}
        weighed = [
            {"model": each.name, "weight": each.weight} if each.weight not in (0, 1) else each.name for each in found
        ]
        return {"use": weighed, "order": "weighted"}

    def _fallbacks(self, entries: Mapping[str, list[Entry]]) -> dict[str, list[str]]:
        """By group: the models to fall back to."""
        found: dict[str, list[str]] = {}
        for setting in ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
            wanted = self._wanted(setting, entries)
            everyone = wanted.pop(EVERYONE, [])
            for group in entries if everyone else ():
                wanted.setdefault(group, everyone)
            for group, names in wanted.items():
                self._add_fallbacks(found, group, names, setting, entries)
        default = self._names("default_fallbacks", "every group", self._setting("default_fallbacks"))
        for group in entries if default else ():
            if group not in found:
                self._add_fallbacks(found, group, default, "default_fallbacks", entries)
        return found

    def _wanted(self, setting: str, entries: Mapping[str, list[Entry]]) -> dict[str, list[str]]:
        """By group, the model names that a setting lists; under `*`, those of every group that it does not name."""
        wanted: dict[str, list[str]] = {}
        given = self._setting(setting)
        for item in given if isinstance(given, list) else [] if given is None else [given]:
            if not isinstance(item, Mapping):
                self._remarks.append(Remark(LOST, setting, "an entry that is no mapping of a model_name to a list"))
                continue
            for group, to in item.items():
                if str(group) not in entries and group != EVERYONE:
                    self._remarks.append(Remark(LOST, setting, f"{group}: there is no such model_name"))
                    continue
                wanted.setdefault(str(group), []).extend(self._names(setting, str(group), to))
        return wanted

    def _names(self, setting: str, group: str, to: object) -> list[str]:
        """Of a list of fallbacks; an entry may be a mapping whose `model` is the name, or the whole list one name."""
        names: list[str] = []
        for item in to if isinstance(to, list) else [] if to is None else [to]:
            name = item.get("model") if isinstance(item, Mapping) else item
            if not isinstance(name, str):
                self._remarks.append(Remark(LOST, setting, f"{group}: a fallback that names no model"))
                continue
            names.append(name)
            if isinstance(item, Mapping) and len(item) > 1:
                others = ", ".join(sorted(str(each) for each in item if each != "model"))
                text = f"{group} -> {name}: it gets the request as it is, without {others}"
                self._remarks.append(Remark(LOST, setting, text))
        return names

    def _add_fallbacks(
        self,
        found: dict[str, list[str]],
        group: str,
        to: Sequence[str],
        setting: str,
        entries: Mapping[str, list[Entry]],
    ) -> None:
        if setting == "content_policy_fallbacks":
            self._content_policy.add(group)
        if setting in ("context_window_fallbacks", "content_policy_fallbacks"):
            text = f"{group}: its fallbacks are tried for every kind of failure, not for this one alone"
            self._remarks.append(Remark(DIFFERS, setting, text))
        own = {entry.name for entry in entries[group]}
        for name in to:
            if name not in entries:
                self._remarks.append(Remark(LOST, setting, f"{group} -> {name}: there is no such model_name"))
                continue
            models = found.setdefault(group, [])
            models += [each.name for each in entries[name] if each.name not in models and each.name not in own]

    def _remark_on_wildcard(self, group: str, names: Sequence[str], after: Sequence[str]) -> None:
        """What a route would have said: there is none for a wildcard, whose models are named by the client."""
        if after:
            text = f"{group}: a client that names a model gets that model: a wildcard has no fallbacks here"
            self._remarks.append(Remark(LOST, "fallbacks", text))
        for alias in names:
            if alias != group:
                text = f"{alias}: {group} is a wildcard, which can have no other name"
                self._remarks.append(Remark(LOST, "router_settings.model_group_alias", text))

    def _aliases(self, entries: Mapping[str, list[Entry]]) -> dict[str, str]:
        given = self._setting("model_group_alias")
        aliases = {}
        for alias, of in given.items() if isinstance(given, Mapping) else ():
            group = of.get("model") if isinstance(of, Mapping) else of
            if isinstance(group, str) and group in entries:
                aliases[str(alias)] = group
            else:
                text = f"{alias}: there is no model_name {group}"
                self._remarks.append(Remark(LOST, "router_settings.model_group_alias", text))
        return aliases

    # Budgets, keys, and what is left.

    def _budgets(self) -> list[Any]:
        settings = self._data.get("litellm_settings")
        given = settings.get("max_budget") if isinstance(settings, Mapping) else None
        limit = number(given)
        if given is not None and limit is None:
            text = f"{given!r} is no number: there is NO budget; write it into the routes.yaml yourself"
            self._remarks.append(Remark(LOST, "litellm_settings.max_budget", text))
        if limit is None or limit <= 0:
            return []
        duration = settings.get("budget_duration") if isinstance(settings, Mapping) else None
        window = WINDOWS.get(str(duration), "total" if duration is None else "month")
        text = f"budget_duration {duration} has become `{window}`: windows follow the calendar, not the first request"
        if duration is not None:
            self._remarks.append(Remark(DIFFERS, "litellm_settings.budget_duration", text))
        counts = "self-hosted models are not counted; `counts: all` counts them"
        self._remarks.append(Remark(DIFFERS, "litellm_settings.max_budget", counts))
        return [{"name": "all", "limit_usd": limit, "window": window}]

    def _keys(self) -> list[Any]:
        settings = self._data.get("general_settings")
        master = settings.get("master_key") if isinstance(settings, Mapping) else None
        if not master:
            return []
        written, stood_there = self._models.secrets.written(master, "LITELLM_MASTER_KEY")
        text = "the master key may use every model; it does not administer: set GATEWAY_ADMIN_TOKEN for /admin"
        self._remarks.append(Remark(DIFFERS, "general_settings.master_key", text))
        if stood_there:
            told = f"the key stood in the file itself and is not repeated: set {written[2:-1]}"
            self._remarks.append(Remark(DIFFERS, "general_settings.master_key", told))
        return [{"name": "master", "value": written}]

    def _remark_on_settings(self) -> None:
        for section in self._data.keys() - set(_SECTIONS):
            if section == "environment_variables":
                text = "set these where the gateway is started"
                self._remarks.append(Remark(DIFFERS, section, text))
            else:
                self._remarks.append(Remark(LOST, str(section), "this section has no equivalent"))
        for section, known in _KNOWN.items():
            settings = self._data.get(section)
            if section == "litellm_settings":
                self._remark_on_hidden(settings)
            for name in settings if isinstance(settings, Mapping) else ():
                if name not in known:
                    kind, text = SETTINGS.get((section, str(name)), (LOST, "this setting has no equivalent"))
                    if text:
                        self._remarks.append(Remark(kind, f"{section}.{name}", text))

    def _remark_on_hidden(self, settings: object) -> None:
        """What the router's settings say, too: theirs count."""
        router = self._data.get("router_settings")
        if not isinstance(router, Mapping) or not isinstance(settings, Mapping):
            return
        for name in _KNOWN["litellm_settings"] & _KNOWN["router_settings"]:
            if None not in (router.get(name), settings.get(name)) and router[name] != settings[name]:
                text = f"router_settings.{name} is there, too, and counts"
                self._remarks.append(Remark(LOST, f"litellm_settings.{name}", text))


def _route_name(group: str, taken: Collection[str]) -> str:
    name = base = _NOT_A_NAME.sub("-", group).lstrip("-._:/@+ ")[:120].rstrip() or "route"
    number = 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


_NOT_A_NAME = re.compile(r"[^A-Za-z0-9._:/@+ -]+")
_DEFAULT_KINDS: Iterable[str] = (
    *("connect", "timeout", "rate_limited", "server_error", "account", "context_length", "empty", "malformed"),
    "stream_cut",
)
