"""scripts/suite.py: which failures of a run are forgiven, and which are not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.test_docs import ROOT

SUITE = str(ROOT / "scripts/suite.py")
PASSES = "def test(): pass\n"
FAILS = "def test(): assert False\n"
CROWDED = "import os\ndef test(): assert 'PYTEST_XDIST_WORKER' not in os.environ\n"  # fails beside others only
OFTEN = """
import pathlib
def test():  # fails in the first run, and in the last of those alone
    with (pathlib.Path(__file__).parent / "runs").open("a") as runs:
        runs.write("x")
    assert len((pathlib.Path(__file__).parent / "runs").read_text()) not in (1, 4)
"""


@pytest.mark.parametrize(
    ("files", "status", "said"),
    [
        ({"one": PASSES}, 0, "1 passed"),
        ({"one": PASSES, "two": CROWDED}, 0, "PASSED 3 TIMES ALONE"),
        ({"one": PASSES, "two": FAILS}, 1, "alone: 1 of 3"),
        ({"one": OFTEN, "two": PASSES}, 1, "alone: 3 of 3"),
        ({"one": CROWDED, "two": CROWDED, "three": CROWDED, "four": CROWDED}, 1, "Failed in 4 files"),
        ({"one": PASSES, "two": "import nothing_of_this_name\n"}, 2, "alone: 1 of 3"),
    ],
    ids=["all pass", "only beside others", "always", "sometimes alone", "too many", "not to be imported"],
)
def test_a_run(tmp_path: Path, files: Mapping[str, str], status: int, said: str) -> None:
    for name, text in files.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    given = ["--numprocesses", "1", "--rootdir", str(tmp_path), str(tmp_path)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # of the run it is in
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"}  # other plugins load for seconds
    ended = subprocess.run(
        [sys.executable, SUITE, *given], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert said in ended.stdout
    assert ("PASSED 3 TIMES ALONE" in ended.stdout) == (said == "PASSED 3 TIMES ALONE")
    for name in files:
        told = ended.stdout.rpartition("PASSED 3 TIMES ALONE")[2] if status == 0 else ""
        assert (f"test_{name}.py::test" in told) == (said.startswith("PASSED") and files[name] == CROWDED)
