"""Holds the code to design decision 0001: imports point down only, `core/` is pure, nothing grows too large.

Each rule is one function from a parsed file to its findings. `test_gateway` runs them all on every file; `test_planted`
shows that each of them can fail.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# From the top down. A module may import what stands on a lower line, and its own package; names on one line never
# import each other.
LAYERS = (
    ("cli",),
    ("server",),
    ("runtime",),
    ("engine",),
    ("dispatch", "passage"),
    ("binary",),
    ("exchange",),
    ("caching", "charging", "counting", "operations", "owners"),
    (
        "pace",
        "health",
        "loads",
        "sessions",
        "admission",
        "spending",
        "rates",
        "outputs",
        "client",
        "patience",
        "race",
        "keyring",
        "webhooks",
    ),
    ("flight",),
    ("observed",),
    ("providers", "stores", "telemetry"),
    ("config",),
    ("views",),
    ("wire",),
    ("core",),
    ("errors",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ENGINE = (
    *("engine", "dispatch", "charging", "exchange", "flight", "pace", "sessions", "admission", "spending", "rates"),
    *("outputs", "client", "patience", "loads", "observed", "caching", "counting", "owners", "race", "binary"),
    "passage",
)
SEAMS = {
    "gateway.providers.base",
    "gateway.stores.base",
    "gateway.telemetry.events",
}  # all that the engine knows of them

# What `core/` may use of the standard library: no I/O, clock, randomness, logging, concurrency.
PURE = frozenset(
    {"__future__", "abc", "bisect", "calendar", "collections", "collections.abc", "dataclasses", "datetime", "decimal"}
    | {"difflib", "email.utils", "enum", "fnmatch", "fractions", "functools", "hashlib", "heapq", "html", "itertools"}
    | {"json", "json.scanner", "math", "operator", "re", "statistics", "string", "struct", "types", "typing"}
    | {"unicodedata", "urllib.parse", "zoneinfo"}
)
ONLY_IN = {
    "litellm": ("gateway/providers/litellm.py",),  # 4-8 s and 160 MB to import
    "msgspec": ("gateway/wire.py", "gateway/views/openai.py"),  # the codec is replaceable (decision 0003)
}
MAX_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 400, 60, 6
MUTABLE_TYPES = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict"}
READ_ONLY_ANNOTATIONS = {"Mapping", "Sequence", "Collection", "Iterable", "AbstractSet"}  # mypy forbids changing these


class File(NamedTuple):
    path: str  # from the checkout: "gateway/core/call.py"
    source: str
    tree: ast.Module

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def layer(self) -> str:
        return [*self.module.split("."), ""][1]


def parse(path: str, source: str) -> File:
    return File(path, source, ast.parse(source, path))


def imports(file: File) -> Iterator[tuple[int, str]]:
    """Every imported name, wherever it stands: at the top, in a function, behind TYPE_CHECKING, by import_module."""
    package = file.module.split(".") if file.path.endswith("__init__.py") else file.module.split(".")[:-1]
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module or "") if part)
            is_package = base.split(".")[0] == "gateway" and (ROOT / base.replace(".", "/")).is_dir()
            yield from ((node.lineno, f"{base}.{alias.name}" if is_package else base) for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            yield from ((node.lineno, str(given.value)) for given in node.args[:1] if isinstance(given, ast.Constant))


def called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def upward(file: File) -> Iterator[str]:
    if not file.layer or file.layer == "__main__":
        return
    if file.layer not in LEVEL:
        yield f"{file.path}: `{file.layer}` has no place in LAYERS"
        return
    for line, name in imports(file):
        package, _, rest = name.partition(".")
        layer = rest.split(".")[0]
        if package != "gateway" or layer in ("", "__version__", file.layer):
            continue
        if layer not in LEVEL:
            yield f"{file.path}:{line}: `{name}` has no place in LAYERS"
        elif LEVEL[layer] <= LEVEL[file.layer]:
            yield f"{file.path}:{line}: {file.layer} must not import {name}"
        elif file.layer in ENGINE and LEVEL[layer] == LEVEL["providers"] and name not in SEAMS:
            yield f"{file.path}:{line}: {file.layer} knows only {', '.join(sorted(SEAMS))}, not {name}"


def impure(file: File) -> Iterator[str]:
    if file.layer != "core":
        return
    for line, name in imports(file):
        allowed = name in PURE or name == "gateway.errors" or name.startswith("gateway.core")
        if not allowed:
            yield f"{file.path}:{line}: core must not import {name}"
    for node in ast.walk(file.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await):
            yield f"{file.path}:{node.lineno}: core must not be asynchronous"
        elif isinstance(node, ast.Call) and called(node) in {"open", "print", "input", "now", "utcnow", "today"}:
            yield f"{file.path}:{node.lineno}: core must not do I/O or read a clock: {called(node)}()"


def foreign(file: File) -> Iterator[str]:
    for line, name in imports(file):
        places = ONLY_IN.get(name.split(".")[0])
        if places and file.path not in places:
            yield f"{file.path}:{line}: {name} may be imported only in {' and '.join(places)}"


def mutable_globals(file: File) -> Iterator[str]:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Global):
            yield f"{file.path}:{node.lineno}: rebinds a module global"
    for statement in file.tree.body:
        if isinstance(statement, ast.AnnAssign) and annotation(statement) in READ_ONLY_ANNOTATIONS:
            continue
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            dunder = isinstance(target, ast.Name) and target.id.startswith("__")
            if not dunder and is_mutable(statement.value, only_empty=file.layer != "core"):
                yield f"{file.path}:{statement.lineno}: a mutable module global"


def annotation(statement: ast.AnnAssign) -> str:
    node = statement.annotation
    return ast.unparse(node.value if isinstance(node, ast.Subscript) else node).rpartition(".")[2]


def is_mutable(value: ast.expr, *, only_empty: bool) -> bool:
    """Outside core a filled table is taken for a constant; an empty one exists only to be changed."""
    if isinstance(value, ast.Call) and called(value) in MUTABLE_TYPES:
        return not (only_empty and value.args)
    if isinstance(value, ast.Dict):
        return not (only_empty and value.keys)
    if isinstance(value, ast.List | ast.Set):
        return not (only_empty and value.elts)
    return isinstance(value, ast.ListComp | ast.SetComp | ast.DictComp) and not only_empty


def oversized(file: File) -> Iterator[str]:
    lines = file.source.count("\n")
    if lines > MAX_LINES:
        yield f"{file.path}: {lines} lines, at most {MAX_LINES}"
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > MAX_FUNCTION_LINES:
            yield f"{file.path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"
        given = node.args
        names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg) if a]
        count = len([name for name in names if name not in ("self", "cls")])
        if count > MAX_PARAMETERS:
            yield f"{file.path}:{node.lineno}: {node.name} takes {count} parameters, at most {MAX_PARAMETERS}"


def slow_middleware(file: File) -> Iterator[str]:
    """BaseHTTPMiddleware costs 600 us a request and doubles the cost of a chunk (reference/performance)."""
    for node in ast.walk(file.tree):
        names = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom | ast.Import) else set()
        names |= {getattr(node, "id", ""), getattr(node, "attr", "")}
        if "BaseHTTPMiddleware" in names:
            yield f"{file.path}:{getattr(node, 'lineno', 0)}: BaseHTTPMiddleware is not used here"


RULES = (upward, impure, foreign, mutable_globals, oversized, slow_middleware)
FILES = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "gateway").rglob("*.py"))]
SCRIPTS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "scripts").rglob("*.py"))]


@pytest.mark.parametrize("path", FILES)
def test_gateway(path: str) -> None:
    file = parse(path, (ROOT / path).read_text())
    assert [finding for rule in RULES for finding in rule(file)] == []


@pytest.mark.parametrize("path", SCRIPTS)
def test_scripts_stay_small(path: str) -> None:
    assert list(oversized(parse(path, (ROOT / path).read_text()))) == []


def test_every_layer_that_exists_is_named() -> None:
    tops = {Path(path).parts[1].removesuffix(".py") for path in FILES} - {"__init__", "__main__"}
    assert tops - set(LEVEL) == set()
    page = (ROOT / "docs/decisions/0001-the-house.md").read_text()
    assert [name for name in sorted(tops) if f"`{name}.py`" not in page and f"`{name}/`" not in page] == []


LONG_FUNCTION = "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES
PLANTED = [
    (upward, "gateway/engine.py", "from gateway.server.app import build"),
    (upward, "gateway/engine.py", "from gateway import runtime"),
    (upward, "gateway/engine.py", "from gateway.providers.openai import OpenAI"),
    (upward, "gateway/core/call.py", "from ..config import types"),
    (upward, "gateway/core/call.py", "if TYPE_CHECKING:\n    import gateway.wire"),
    (upward, "gateway/wire.py", "from gateway.views import See"),
    (upward, "gateway/errors.py", "from gateway.core.call import Call"),
    (upward, "gateway/stores/sqlite.py", "def f():\n    from gateway.telemetry.events import Event"),
    (upward, "gateway/providers/openai.py", "from gateway.stores.base import Ledger"),
    (upward, "gateway/config/load.py", "from gateway.unheard import x"),
    (upward, "gateway/unheard.py", ""),
    (impure, "gateway/core/x.py", "import msgspec"),
    (impure, "gateway/core/x.py", "import time"),
    (impure, "gateway/core/x.py", "from random import random"),
    (impure, "gateway/core/x.py", "import logging"),
    (impure, "gateway/core/x.py", "from pathlib import Path"),
    (impure, "gateway/core/x.py", "async def f(): ..."),
    (impure, "gateway/core/x.py", "def f():\n    open('/etc/hosts')"),
    (impure, "gateway/core/x.py", "import datetime\nNOW = datetime.datetime.now()"),
    (foreign, "gateway/engine.py", "import litellm"),
    (foreign, "gateway/engine.py", "def f():\n    importlib.import_module('litellm.main')"),
    (foreign, "gateway.server.client.py", "from msgspec import json"),
    (mutable_globals, "gateway/core/x.py", "SEEN = {'a': 1}"),
    (mutable_globals, "gateway/core/x.py", "SEEN: dict[str, int] = {'a': 1}"),
    (mutable_globals, "gateway/core/x.py", "SEEN = [n for n in range(3)]"),
    (mutable_globals, "gateway/core/x.py", "from collections import deque\nSEEN = deque([1])"),
    (mutable_globals, "gateway/engine.py", "CACHE = {}"),
    (mutable_globals, "gateway/engine.py", "CACHE: dict[str, int] = dict()"),
    (mutable_globals, "gateway/engine.py", "def f():\n    global cache\n    cache = 1"),
    (oversized, "gateway/engine.py", "x = 1\n" * (MAX_LINES + 1)),
    (oversized, "gateway/engine.py", LONG_FUNCTION),
    (oversized, "gateway/engine.py", "class A:\n    async def f(self, a, b, /, c, *d, e, f, g): ..."),
    (slow_middleware, "gateway/server/app.py", "from starlette.middleware.base import BaseHTTPMiddleware"),
    (slow_middleware, "gateway/server/app.py", "class A(base.BaseHTTPMiddleware): ..."),
]


@pytest.mark.parametrize(("rule", "path", "source"), PLANTED)
def test_planted(rule: object, path: str, source: str) -> None:
    assert callable(rule)
    assert list(rule(parse(path, source))) != []


ALLOWED = [
    ("gateway/cli/serve.py", "from gateway.server.app import build\nfrom gateway import __version__, runtime"),
    ("gateway/engine.py", "from gateway.providers.base import Provider\nfrom gateway.telemetry import events"),
    ("gateway/views/openai.py", "import msgspec\nfrom gateway.wire import CODEC"),
    ("gateway/core/x.py", "from collections.abc import Mapping\nfrom gateway.errors import RequestError"),
    ("gateway/core/x.py", "STRATEGIES: Mapping[str, int] = {'a': 1}\nNAMES = ('a', 'b')\nSET = frozenset({'a'})"),
    ("gateway/engine.py", "TABLE = {404: 'account'}"),
    ("gateway/engine.py", "class A:\n    def f(self, a, b, c, *, d, e, f): ..."),
]


@pytest.mark.parametrize(("path", "source"), ALLOWED)
def test_the_rules_let_good_code_pass(path: str, source: str) -> None:
    assert [finding for rule in RULES for finding in rule(parse(path, source))] == []


def test_pure_names_are_standard_library() -> None:
    assert {name.split(".")[0] for name in PURE} - set(sys.stdlib_module_names) == set()
