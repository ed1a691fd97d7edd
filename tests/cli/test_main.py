"""What every command has in common."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import __version__
from gateway.cli import COMMANDS, main


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"gateway {__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["chekc"],
        ["check", "--no-such-option"],
        ["check", "--conf", "x.yaml"],  # no abbreviations
        ["keys", "create", "x", "--tea", "y"],
        ["explain"],
        ["explain", "--header", "x"],
        ["serve", "--listen", "4000"],
        ["serve", "--ops-listen", "127.0.0.1:80000"],
    ],
)
def test_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage: gateway" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_takes_config_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    assert "--config FILE" in capsys.readouterr().out


def test_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for argv in (["serve"], ["check"], ["keys", "list"]):
        assert main(argv) == 1
        last, hint = capsys.readouterr().err.splitlines()[-2:]
        assert last.endswith("routes.yaml: cannot be read: no such file or directory")
        assert "--config FILE" in hint


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("version: 1\nproviders: {a: {base_url: http://a/v1}}\nmodels: {m: {provider: a}}\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        assert main(["serve", "--config", str(file), "--listen", taken]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"gateway serve: --listen {taken}: address already in use; ")
    assert "ss -ltnp" in said


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gateway.cli import main\ntry: main(['--help'])\nexcept SystemExit: print(sorted(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "serve requests" in shown
    for heavy in ("pydantic", "yaml", "asyncio", "gateway.config", "msgspec"):
        assert f"'{heavy}'" not in shown


def test_as_a_module_and_into_a_closed_pipe() -> None:
    command = f"{sys.executable} -m gateway schema | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")
