"""The chart's README from its values.yaml. Run by scripts/chart."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHART = Path(__file__).parent.parent / "deploy/helm/open-model-gateway"
KEY = re.compile(r"^(?P<indent> *)(?P<name>\w+):(?P<rest>.*)$")
LONG = 60  # characters of a default that a table still takes

HEAD = """# {name}

{description}.

Made by `scripts/chart` from values.yaml: change that. Installing, secrets and upgrades: docs/deploy.md.

```sh
kubectl create secret generic gateway-keys --from-literal=GATEWAY_KEY="$(openssl rand -hex 32)"
helm install gateway deploy/helm/{name} --set 'secrets={{gateway-keys}}' \\
  --set image.repository=registry.example.com/{name}
```

One pod, as long as ledger and budgets are in SQLite: more are refused. `workers` uses more cores.

Kubernetes {kube}. The chart needs no cluster-wide rights, and makes no Secret.

| value | default | what it is |
|---|---|---|
"""


class Value(NamedTuple):
    path: str
    default: str
    meaning: str


def values(text: str) -> Iterator[Value]:
    """Each value that a `# --` comment describes. Deeper structure belongs to it."""
    loaded = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    told: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            told = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#") and told:
            told.append(stripped.removeprefix("#").strip())
        elif found := KEY.match(line):
            indent = len(found["indent"])
            path = [*(step for step in path if step[0] < indent), (indent, found["name"])]
            if told:
                names = [name for _, name in path]
                yield Value(".".join(names), show(at(loaded, names)), " ".join(told))
            told = []


def at(loaded: Any, names: list[str]) -> Any:  # noqa: ANN401  # YAML
    for name in names:
        loaded = loaded[name]
    return loaded


def show(default: Any) -> str:  # noqa: ANN401  # YAML
    text = json.dumps(default)
    return f"`{text}`" if len(text) <= LONG else "see values.yaml"


def undescribed(text: str) -> list[str]:
    """Leaves of values.yaml that no comment describes."""
    described = {value.path for value in values(text)}

    def leaves(node: Any, path: str) -> Iterator[str]:  # noqa: ANN401  # YAML
        if path in described:
            return
        if not isinstance(node, dict) or not node:
            yield path
            return
        for name, value in node.items():
            yield from leaves(value, f"{path}.{name}" if path else name)

    return list(leaves(yaml.safe_load(text), ""))


def readme() -> str:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    text = (CHART / "values.yaml").read_text()
    head = HEAD.format(
        name=chart["name"], description=chart["description"], kube=chart["kubeVersion"].removesuffix("-0")
    )
    rows = (f"| `{value.path}` | {value.default} | {value.meaning.replace('|', '&#124;')} |" for value in values(text))
    return head + "\n".join(rows) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/chart", description=__doc__)
    parser.add_argument("--check", action="store_true", help="say what is not as it should be, and change nothing")
    given = parser.parse_args(arguments)
    problems = [
        f"values.yaml does not say what {path} means" for path in undescribed((CHART / "values.yaml").read_text())
    ]
    target = CHART / "README.md"
    made = readme()
    if given.check:
        if not target.exists() or target.read_text() != made:
            problems.append(f"{target.name} is not what values.yaml makes: run scripts/chart")
    elif not problems:
        target.write_text(made)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
