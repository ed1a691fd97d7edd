"""Every kind of mistake in a routes.yaml, as golden files: `tests/data/config/NAME.yaml`, and what is said: `NAME.txt`.

`UPDATE_GOLDEN=1 pytest tests/config/test_problems.py` writes the latter anew; read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config.load import load
from gateway.config.yamlfile import MAX_BYTES
from gateway.errors import ConfigError

DATA = Path(__file__).parent.parent / "data" / "config"
SECRETS = {
    "SHARED_KEY": "shared-secret-of-two-keys",
    "SHARED_KEY_2": "shared-secret-of-nobody",
    "NOT_A_URL": "sk-pasted-into-the-wrong-variable",
    "MULTI_LINE": "sk-first-line\nsecond-line",
}
IN_FILES = ("hunter2", "sixteen-letters!", "a secret with", "1234567890123456", "password@", "user:secret")


def said_about(name: str, environ: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(Path(name), environ or {})
    return caught.value


@pytest.mark.parametrize("name", sorted(path.stem for path in DATA.glob("*.yaml")))
def test_golden(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA)
    said = f"{said_about(f'{name}.yaml', SECRETS)}\n"
    golden = DATA / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(said)
    assert said == golden.read_text()
    assert not [secret for secret in (*SECRETS.values(), *IN_FILES) if secret in said]


def test_ten_mistakes_show_ten_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA)
    problems = said_about("ten-mistakes.yaml").problems
    assert len(problems) == 10
    lines = (DATA / "ten-mistakes.yaml").read_text().splitlines()
    at = {problem.path: lines[problem.line - 1].strip() for problem in problems}
    assert at["models.qwen.provider"] == "provider: vlm"
    assert at["routes[0].use[1].model"] == "use: [qwen, {model: gtp, weight: 1}]"
    assert at["routes[0].timeout.total"] == "timeout: {total: 600}"


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version: 1\nx: \xff\n", "routes.yaml:2: is not UTF-8 text (byte 0xff)"),
        (b"version: 1\n" + b"#" * MAX_BYTES, "is larger than 8 MiB"),
        (b"a: " + b"[" * 20_000, "nested more than 40 levels deep"),
        (b"a: " + b"{a: " * 20_000, "nested more than 40 levels deep"),
        (BOMB.encode(), "once aliases are expanded"),
        (MERGE_BOMB.encode(), "once aliases are expanded"),
        (b"a: &a [*a]\n", "the alias *a has no finished anchor"),
        (b"a: !!python/object:os.system x\n", "YAML tags such as"),
        (b"a: 1\n? [b]\n: 2\n", "a key must be plain text"),
        (b"a: \x00\n", "not valid YAML"),
        (b"<<: 5\n", "`<<` takes a mapping"),
    ],
)
def test_hostile_files_are_one_problem(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_bytes(content)
    error = said_about(str(path))
    assert len(error.problems) == 1
    assert words in str(error)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be read: no such file or directory" in str(said_about(str(tmp_path / "routes.yaml")))
    assert "cannot be read: is a directory" in str(said_about(str(tmp_path)))
