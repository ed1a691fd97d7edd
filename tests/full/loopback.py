"""An upstream in a process of its own, so that it can be killed: `python -m tests.full.loopback`. Prints its port."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests import replies
from tests.upstream import Upstream

ROOT = Path(__file__).parent.parent.parent


class Process(NamedTuple):
    process: subprocess.Popen[bytes]
    base_url: str


@contextlib.contextmanager
def loopback() -> Iterator[Process]:
    command = [sys.executable, "-m", "tests.full.loopback"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield Process(process, f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
        finally:
            process.kill()


def main() -> None:
    with Upstream(replies.ok("So it is, and so it was.", pause=0.004)) as upstream:
        print(upstream.port, flush=True)
        threading.Thread(target=sys.stdin.read, daemon=True).run()  # ends with its parent


if __name__ == "__main__":
    main()
