"""The reference pages, made of what the code itself says: the schema's descriptions, the metrics' table, the parsers.

Each page is one function from that to its text. `scripts/references` writes them; a test holds them equal.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.cli import COMMANDS, parser_of
from gateway.config.schema import json_schema
from gateway.telemetry.families import FAMILIES, Family
from gateway.telemetry.processes import LABEL, NAMES

HERE = Path(__file__).parent.parent / "docs/reference"
MADE = "<!-- Made by scripts/references from {source}. Do not edit. -->"
Node = Mapping[str, Any]
_DURATION = "(ms|s|m|h|d)$"
_FROM_ENVIRONMENT = r"\$\{.+\}"  # the alternative of a number that stands in a variable


def routes_page(schema: Node) -> str:
    """Every field of routes.yaml, from its JSON Schema."""
    parts = [
        "# routes.yaml, field by field",
        MADE.format(source="the schema (`gateway schema`)"),
        f"{schema['description']} An editor with a YAML language server shows the same as you type "
        "([how](../configuration.md)). Unknown fields are errors. Any text may hold `${NAME}`, `${NAME:-default}` or "
        "`${file:/path}`; so may a number that stands alone. A *duration* is `250ms`, `5s`, `10m`, `1h` or `30d`. "
        "Fields in **bold** are required.",
        "## The file",
        _fields(schema),
    ]
    for name in _in_order(schema):
        node = schema["$defs"][name]
        parts += [f"## {name}", *([node["description"]] if "description" in node else []), _fields(node)]
    return _page(parts)


def _in_order(schema: Node) -> list[str]:
    """Definitions as the file leads to them, each after what first names it."""
    found: list[str] = []

    def walk(node: object) -> None:
        if isinstance(node, Mapping):
            if isinstance(ref := node.get("$ref"), str) and (name := ref.rpartition("/")[2]) not in found:
                found.append(name)
                walk(schema["$defs"][name])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(schema["properties"])
    return found


def _fields(node: Node) -> str:
    required = set(node.get("required", ()))
    rows = []
    for name, field in node.get("properties", {}).items():
        shown = f"**`{name}`**" if name in required else f"`{name}`"
        default = field.get("default")
        text = field.get("description", "")
        if default is not None and "default" not in text.lower():
            listed = ", ".join(f"`{each}`" for each in (default if isinstance(default, list) else [default]))
            text += f" Default {listed}."
        rows.append((shown, _kind(field), text))
    return _table(("field", "what it is", "meaning"), rows)


def _kind(node: Node) -> str:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in node:
            kinds = [_kind(each) for each in node[several] if not _unsaid(each)]
            return " or ".join(dict.fromkeys(kinds))
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{each}`" for each in node["enum"])
    if node.get("type") == "array":
        return f"list of {_kind(node['items'])}"
    if node.get("type") == "object":
        inner = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties"))
        return f"by name: {_kind(inner)}" if isinstance(inner, Mapping) else "anything, by name"
    return _plain(node)


def _plain(node: Node) -> str:
    if node.get("format") == "regex":
        return "regular expression"
    if _DURATION in node.get("pattern", ""):
        return "duration"
    kind = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    low, above, high = (node.get(each) for each in ("minimum", "exclusiveMinimum", "maximum"))
    most = "" if high is None or high >= 1_000_000 else f" to {high}"
    least = f" above {above}" if above is not None else f" from {low}" if low is not None else ""
    return f"{kind[node['type']]}{least}{most}"


def _unsaid(node: Node) -> bool:
    """null, which is the same as leaving it out; a number's variable, which the page's head tells of."""
    return node.get("type") == "null" or node.get("pattern") == _FROM_ENVIRONMENT


def metrics_page(families: Mapping[str, Family]) -> str:
    """Every metric that `/metrics` shows."""
    rows = []
    for family in families.values():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        buckets = f" Buckets {_span(family.buckets)}." if family.buckets else ""
        rows.append((f"`{family.name}`", family.kind, labels, family.help + buckets))
    processes = [(f"`{name}`",) for name in NAMES]
    return _page([
        "# Metrics",
        MADE.format(source="gateway/telemetry/families.py"),
        "At `/metrics` on the operations listener; one scrape covers all workers and lags by a second at most. Values "
        "of labels come from the configuration only; anything else is `other`, and what is not there is `none`. "
        "Recording rules, alerts and questions to ask: [monitoring](../monitoring.md). Utilisation is a rule, "
        "`model:gateway_utilisation:ratio_rate5m`, or a quotient of two metrics: [cost](../cost.md#in-prometheus).",
        _table(("metric", "kind", "labels", "meaning"), rows),
        "## Processes",
        f"Of each process of the gateway, by the label `{LABEL}` (`gateway`, `worker 0`, ...), where there is a /proc:",
        _table(("metric",), processes),
    ])  # fmt: skip


def _span(buckets: Sequence[float]) -> str:
    return f"{_seconds(buckets[0])} to {_seconds(buckets[-1])}"


def _seconds(value: float) -> str:
    return f"{value * 1e6:g} µs" if value < 0.001 else f"{value * 1000:g} ms" if value < 1 else f"{value:g} s"


def commands_page(parser: argparse.ArgumentParser) -> str:
    """Every command, option and argument."""
    parts = [
        "# The command line",
        MADE.format(source="the commands' own parsers (`gateway COMMAND --help`)"),
        "Exit codes: 0 fine, 1 the answer is no, 2 usage. Tables are for people; `--json` gives the same for programs.",
    ]
    ((_, commands),) = _subcommands(parser)
    parts.append(_table(("command", "what it does"), [(f"[`gateway {name}`](#gateway-{name})", COMMANDS[name].help)
                                                      for name in commands]))  # fmt: skip
    for name, command in commands.items():
        parts += [f"## gateway {name}", str(command.description), *_options(command)]
        for _, actions in _subcommands(command):
            for action, inner in actions.items():
                parts += [f"### gateway {name} {action}", _sentence(_help_of(command, action)), *_options(inner)]
    return _page(parts)


def _subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[Any, Mapping[str, argparse.ArgumentParser]]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield action, action.choices


def _help_of(parser: argparse.ArgumentParser, name: str) -> str:
    ((action, _),) = _subcommands(parser)
    return next(str(each.help) for each in action._choices_actions if each.dest == name)


def _options(parser: argparse.ArgumentParser) -> list[str]:
    rows = []
    for action in parser._actions:
        if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
            continue
        value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else "")
        names = ", ".join(f"`{name} {value}`" if value and action.nargs != 0 else f"`{name}`"
                          for name in action.option_strings) or f"`{value or action.dest}`"  # fmt: skip
        text = (action.help or "") % {**vars(action), "prog": parser.prog}
        rows.append((names, _sentence(text) if text else ""))
    return [_table(("option", "meaning"), rows)] if rows else []


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|").strip()


def _page(parts: Sequence[str]) -> str:
    return "\n\n".join(parts) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "routes.md": lambda: routes_page(json_schema()),
    "metrics.md": lambda: metrics_page(FAMILIES),
    "cli.md": lambda: commands_page(parser_of(COMMANDS)),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Makes docs/reference of the code.")
    parser.add_argument("--check", action="store_true", help="say what differs, and change nothing")
    check = parser.parse_args(argv).check
    differs = [name for name, make in PAGES.items() if _now(name) != make()]
    for name in differs:
        if check:
            print(f"docs/reference/{name} is not as the code has it: scripts/references", file=sys.stderr)
        else:
            HERE.mkdir(exist_ok=True)
            (HERE / name).write_text(PAGES[name]())
            print(f"docs/reference/{name}")
    return 1 if check and differs else 0


def _now(name: str) -> str:
    return (HERE / name).read_text() if (HERE / name).exists() else ""


if __name__ == "__main__":
    sys.exit(main())
