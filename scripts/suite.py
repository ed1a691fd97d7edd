"""Runs the tests, three files at a time. What failed there must pass three times by itself, or the run has failed.

Processes, sockets and clocks are real, and a machine that CI shares with others stands still for seconds at a time: of
6,300 tests one in a run of them may fail by that alone. Decision 0026 says why this is asked of the failed ones, and of
how many.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

TIMES = 3
MOST_FILES = 3  # with failures. More of them are no accident
PYTEST = (sys.executable, "-m", "pytest")
FAILED = Path(".pytest_cache/v/cache/lastfailed")


def main(args: Sequence[str]) -> int:
    """`args`: further ones of pytest. Pytest's exit status: 0 where all passed, in the run or three times alone."""
    # By file, as fixtures are shared in one; the tests wait for processes more than they work.
    command = [*PYTEST, "--cache-clear", "--numprocesses", "3", "--dist", "loadfile", "--durations=25", *args]
    ended = subprocess.run(command, check=False).returncode
    if ended != pytest.ExitCode.TESTS_FAILED:
        return ended
    failed = sorted(json.loads(FAILED.read_text()))
    files = sorted({name.partition("::")[0] for name in failed})
    if len(files) > MOST_FILES:
        print(f"\nFailed in {len(files)} files: too many to be run again alone.", flush=True)
        return ended
    for time in range(1, TIMES + 1):
        print(f"\nWhat failed runs again, alone: {time} of {TIMES}", flush=True)
        ended = subprocess.run([*PYTEST, "--exitfirst", *failed], check=False).returncode
        if ended:
            return ended
    print(f"\nFAILED BESIDE OTHERS, PASSED {TIMES} TIMES ALONE. What each waits for, or for how long, is to be mended:")
    print("\n".join(failed), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
