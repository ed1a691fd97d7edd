"""A page followed as a reader would: its `sh` blocks typed into one shell, in order, its files saved where it says.

A `text` block after one of `sh` is what the reader is told to see: `...` stands for what differs. A block is repeated,
as a reader would, until it shows that; what runs for a while is given time. "Save this as `mine.yaml`" before a block
makes it a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAVED = re.compile(r"[Ss]ave (?:this|it) as `([\w./-]+)`")
END = "__the_block_has_ended__"


class Step(NamedTuple):
    line: int
    code: str  # for the shell; empty for a file
    shows: str = ""  # what must come out; "": nothing in particular
    saves: str = ""  # the file to write
    content: str = ""


def steps(text: str) -> list[Step]:
    """Of a page. Blocks marked `illustrative` are pictures."""
    found: list[Step] = []
    after = 0
    for block in FENCE.finditer(text):
        language, *marks = block[1].split() or [""]
        line = text.count("\n", 0, block.start()) + 1
        before, after = text[after : block.start()], block.end()
        if "illustrative" in marks:
            continue
        if language == "sh":
            found.append(Step(line, block[2]))
        elif language == "yaml" and (name := SAVED.findall(before)):
            found.append(Step(line, "", saves=name[-1], content=block[2]))
        elif language == "text" and found and found[-1].code and not found[-1].shows:
            found[-1] = found[-1]._replace(shows=block[2])
    return found


def matches(shows: str, output: str) -> bool:
    """Whether all that a page shows is there, in order; `...` is anything, and so is white space at a line's end."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    pattern = ".*?".join(re.escape(part.strip()) for part in shows.split("..."))
    return re.search(re.sub(r"(\\ |\\\n|\s)+", r"\\s+", pattern), plain, re.DOTALL) is not None


class Shell:
    """One bash in `directory`. Use as a context manager: all that it started ends with it."""

    def __init__(self, directory: Path, env: Mapping[str, str], swap: Sequence[tuple[str, str]]) -> None:
        """`swap`: texts of the page that are other texts here, such as ports that may be taken."""
        self.directory = directory
        self._env = env
        self._swap = swap
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.directory,
            env=dict(self._env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own: what it started, and nothing else
        self._process.wait(60)
        self._process.stdout.close()

    def there(self, text: str) -> str:
        for old, new in self._swap:
            text = text.replace(old, new)
        return text

    def type(self, code: str, seconds: float = 300.0) -> tuple[int, str]:
        """The exit code of the last command, and everything that came out."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self.there(code)}\necho {END} $?\n")
        self._process.stdin.flush()
        until, output = time.monotonic() + seconds, ""
        while END not in output:
            left = until - time.monotonic()
            assert left > 0, f"{code}\ndid not end within {seconds:g} s; so far:\n{output}"
            if select.select([self._process.stdout], [], [], min(left, 1.0))[0]:
                piece = os.read(self._process.stdout.fileno(), 65536).decode(errors="replace")
                assert piece, f"{code}\nthe shell ended:\n{output}"
                output += piece
        before, _, after = output.partition(END)
        return int(after.split()[0]), before

    def follow(self, step: Step, patience: float = 60.0) -> str:
        """Does what the step says, again where it does not yet show what it should. Returns what came out at last."""
        if step.saves:
            (self.directory / step.saves).write_text(self.there(step.content))
            return ""
        shows = self.there(step.shows)
        until = time.monotonic() + patience
        while True:
            code, output = self.type(step.code)
            if code == 0 and (not shows or matches(shows, output)):
                return output
            assert time.monotonic() < until, (
                f"line {step.line}:\n{step.code}\nexit {code}, showed:\n{output}\nnot:\n{shows}"
            )
            time.sleep(0.5)
