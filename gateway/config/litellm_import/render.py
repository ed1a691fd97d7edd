"""routes.yaml as text: one line an entry, with what differs as comments above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import yaml

from gateway.config.litellm_import.remarks import DIFFERS, LOST, Remark

_HEAD = """\
# yaml-language-server: $schema=routes.schema.json
#
# Made by `gateway import litellm`. Check it with `gateway check --config THIS_FILE`, then read the remarks at its end.
"""
Comments = Mapping[tuple[str, str], Sequence[str]]


class _Dumper(yaml.SafeDumper):
    """Decimals as the plain numbers that they are."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _decimal(dumper: yaml.SafeDumper, value: Decimal) -> yaml.Node:
    text = f"{value:f}"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in text else 'int'}", text)


_Dumper.add_representer(Decimal, _decimal)


def render(file: Mapping[str, Any], comments: Comments, remarks: Sequence[Remark]) -> str:
    lines = [_HEAD]
    for section, value in file.items():
        if isinstance(value, Mapping) and section in ("providers", "models"):
            lines.append(f"{section}:")
            for name, entry in value.items():
                lines += [f"  # {text}" for text in comments.get((section, name), ())]
                lines.append(f"  {_flow(name)}: {_flow(entry)}")
        elif isinstance(value, list):
            lines += [f"{section}:", *(f"  - {_flow(entry)}" for entry in value)]
        else:
            lines.append(f"{section}: {_flow(value)}")
        lines.append("")
    for kind, title in ((DIFFERS, "The meaning differs"), (LOST, "There is no equivalent")):
        found = [f"#   {each.path}: {each.text}" for each in remarks if each.kind == kind]
        lines += [f"# {title}:", *found, ""] if found else []
    return "\n".join(lines).rstrip() + "\n"


def _flow(value: object) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=1 << 20, sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("...").rstrip()
