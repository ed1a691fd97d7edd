"""`gateway check`: is routes.yaml fine, and what does it come to?"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

from gateway.cli.prices import other_prices, price_json, price_text, usual_price
from gateway.cli.table import table
from gateway.config import load
from gateway.config.types import Config
from gateway.core.routing import Match, Model, Route
from gateway.errors import ConfigError
from gateway.operations import starting_anew


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="a missing secret or any other warning is an error")
    parser.add_argument("--json", action="store_true", help="the same for programs")


def run(args: argparse.Namespace) -> int:
    try:
        config = load(Path(args.config))
        config = config._replace(warnings=(*config.warnings, *starting_anew(config)))
    except ConfigError as error:
        if args.json:
            problems = [problem._asdict() for problem in error.problems]
            print(json.dumps({"ok": False, "file": error.file, "problems": problems}, indent=2))
        raise  # `main` prints it on stderr
    fine = not (args.strict and config.warnings)
    print(json.dumps({"ok": fine, **_as_json(config)}, indent=2) if args.json else _as_text(config))
    if not fine:
        print(
            f"{args.config}: {_count(len(config.warnings), 'warning')}, which --strict makes an error", file=sys.stderr
        )
        for warning in config.warnings:
            print(f"  {args.config}: {warning}", file=sys.stderr)
    return 0 if fine else 1


def _as_text(config: Config) -> str:
    rules = config.rules
    live = [model for model in rules.models.values() if not model.disabled]
    asleep = [model for model in rules.models.values() if model.disabled]
    counts = f"{_count(len(rules.routes), 'route')}, {len(live)} of {_count(len(rules.models), 'model')} live"
    sections = [f"{config.path.name} is fine: {counts}. Configuration {config.hash}."]
    if rules.routes:
        rows = [(str(number), route.name, _route_text(route, config)) for number, route in enumerate(rules.routes, 1)]
        sections.append(
            "Routes (the first match wins; what sleeps is in brackets)\n" + table(("#", "ROUTE", "WHAT IT DOES"), rows)
        )
    sections.append("Models that are live\n" + _models_table(live))
    others = [(model.name, *row) for model in live for row in other_prices(model.price, time.time())]
    if others:
        sections.append("Other prices that they have\n" + table(("MODEL", "WHEN", "PRICE (a million tokens)"), others))
    replicated = [(m.name, r.name, f"{r.weight:g}") for m in live for r in m.replicas if r.provider]
    if replicated:
        sections.append("Endpoints that are live\n" + table(("MODEL", "ENDPOINT", "WEIGHT"), replicated))
    if asleep:
        reasons = [(model.name, model.provider, model.disabled) for model in asleep]
        sections.append("Models that sleep\n" + table(("MODEL", "PROVIDER", "BECAUSE"), reasons))
    baselines = {route.baseline for route in rules.routes if route.baseline}
    if baselines:
        sections.append(
            "Baselines (what savings are measured against)\n"
            + _models_table([rules.models[name] for name in sorted(baselines)])
        )
    if through := _through(config):
        paths = [(name, ", ".join(globs)) for name, globs in through.items()]
        title = "Paths below /v1 that are let through, outside of routes and budgets"
        sections.append(f"{title}\n" + table(("PROVIDER", "PATHS"), paths))
    if config.keys_declared:
        sections.append(f"Keys of the file that open: {', '.join(_keys_that_open(config)) or 'none'}")
    if told := (*config.warnings, *config.notices):
        sections.append("Warnings\n" + "\n".join(f"  - {warning}" for warning in told))
    return "\n\n".join(sections)


def _keys_that_open(config: Config) -> list[str]:
    now = datetime.datetime.now(datetime.UTC)
    return sorted(key.principal.key for key in config.keys if key.expires is None or now < key.expires)


def _through(config: Config) -> dict[str, list[str]]:
    live = (each for each in config.providers.values() if not each.disabled)
    return {each.name: list(each.passthrough) for each in live if each.passthrough}


def _models_table(models: list[Model]) -> str:
    rows = [(model.name, model.provider, model.hosting, *_model_price(model)) for model in models]
    return table(("MODEL", "PROVIDER", "HOSTING", "PRICE FROM", "PRICE (a million tokens)"), rows)


def _model_price(model: Model) -> tuple[str, str]:
    """Where it comes from, and what it is."""
    if model.prices:
        return next(iter(model.prices.values())).source, f"{len(model.prices)} models' own"
    usual = usual_price(model.price, time.time())
    return usual.source if usual else "-", price_text(usual)


def _match_text(match: Match) -> str:
    """In the words of routes.yaml: "task support, model auto or gpt-*"."""
    parts = []
    for field, value in match._asdict().items():
        if isinstance(value, int):
            parts.append(f"{field.replace('_', ' ')} {value}")
        elif value is not None:
            parts.append(f"{field} {' or '.join(sorted(value) if isinstance(value, frozenset) else value)}")
    return ", ".join(parts) or "anything"


def _route_text(route: Route, config: Config) -> str:
    def shown(name: str) -> str:
        model = config.rules.prepared.find(name)
        return f"({name})" if model is None or model.disabled else name

    candidates = ", ".join(
        shown(each.model) + (f" x{each.weight:g}" if route.order == "weighted" else "") for each in route.use
    )
    lines = [f"when {_match_text(route.match)}", f"{route.order}: {candidates}"]
    lines += [f"then {', '.join(map(shown, route.fallback))}"] if route.fallback else []
    lines += ["sticky: session"] if route.sticky else []
    lines += [f"baseline {route.baseline}"] if route.baseline else []
    return "\n".join(lines)


def _as_json(config: Config) -> dict[str, Any]:
    return {
        "file": str(config.path),
        "hash": config.hash,
        "price_book": config.price_book,
        "ledger": config.ledger,
        "routes": [_route_json(route) for route in config.rules.routes],
        "models": [_model_json(model) for model in config.rules.models.values()],
        "passthrough": _through(config),
        "tasks": [task.name for task in config.rules.tasks],
        "keys": _keys_that_open(config) if config.keys_declared else None,
        "warnings": list(config.warnings),
        "notices": list(config.notices),
    }


def _route_json(route: Route) -> dict[str, Any]:
    match = {field: value for field, value in route.match._asdict().items() if value is not None}
    return {
        "name": route.name,
        "match": {field: sorted(value) if isinstance(value, frozenset) else value for field, value in match.items()},
        "order": route.order,
        "use": [{"model": each.model, "weight": each.weight} for each in route.use],
        "fallback": list(route.fallback),
        "fallback_on": sorted(route.fallback_on),
        "retries": route.retries,
        "max_attempts": route.max_attempts,
        "timeout": {limit: seconds for limit, seconds in route.timeouts._asdict().items() if seconds is not None},
        "baseline": route.baseline or None,
        "sticky": "session" if route.sticky else None,
    }


def _model_json(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "provider": model.provider,
        "upstream_name": model.upstream_name or None,
        "hosting": model.hosting,
        "disabled": model.disabled or None,
        "endpoints": [{"name": each.name, "weight": each.weight} for each in model.replicas if each.provider],
        "price": price_json(model.price, time.time()),
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "supports": sorted(model.supports),
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
