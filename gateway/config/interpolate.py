"""`${NAME}`, `${NAME:-default}` and `${file:/path}` in any text of the file; `$$` is a dollar sign.

A value that is not there becomes `Missing`, which remembers what was missing; what that means is for the field to say
(a provider goes to sleep, a key does not open, anything else is a problem).
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path as FilePath

from gateway.config.problems import Data, Path, Problems

MAX_SECRET_BYTES = 64 * 1024

_REFERENCE = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class FromEnvironment(str):
    """Text that holds something from the environment or a secret file: never shown in a message."""

    __slots__ = ()


class Missing(FromEnvironment):
    """Stands where a variable or file has nothing to say. `why`: "DEEPSEEK_API_KEY is not set"."""

    __slots__ = ("why",)

    why: str

    def __new__(cls, why: str) -> Missing:
        made = super().__new__(cls, "")
        made.why = why
        return made


class Interpolation:
    """Fills in one file. `read` holds every value that was looked up, for the configuration's hash."""

    def __init__(self, environ: Mapping[str, str], folder: FilePath, problems: Problems) -> None:
        self.environ = environ
        self.folder = folder
        self.problems = problems
        self.read: dict[str, str] = {}

    def fill(self, value: Data, path: Path = ()) -> Data:
        if isinstance(value, dict):
            return {key: self.fill(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.fill(inner, (*path, index)) for index, inner in enumerate(value)]
        if isinstance(value, str) and "$" in value:
            return self.text(value, path)
        return value

    def text(self, value: str, path: Path) -> str:
        why: list[str] = []
        looked_up = False

        def replace(match: re.Match[str]) -> str:
            nonlocal looked_up
            if match[0] == "$$":
                return "$"
            looked_up = True
            found, reason = self.reference(match, path)
            if reason:
                why.append(reason)
            return found

        filled = _REFERENCE.sub(replace, value)
        if why:
            return Missing(why[0])
        return FromEnvironment(filled) if looked_up else filled

    def reference(self, match: re.Match[str], path: Path) -> tuple[str, str]:
        """What stands for `${...}`, and why there is nothing."""
        inside, closed = match[1], match[2]
        if inside.startswith("file:") and closed:
            return self.file(inside.removeprefix("file:"))
        name, has_default, default = inside.partition(":-")
        if not closed or not _NAME.fullmatch(name) or "${" in default:
            self.problems.add(path, "${...} must be ${NAME}, ${NAME:-default} or ${file:/path}; a dollar sign is $$")
            return "", ""
        found = self.environ.get(name, "")
        self.read[name] = found
        if found:
            return found, ""
        return (default, "") if has_default else ("", f"{name} is not set")

    def file(self, name: str) -> tuple[str, str]:
        try:
            path = self.folder / name
            if why := _no_file(path.stat().st_mode):
                return "", f"the file {name} cannot be read: it is {why}"
            with path.open("rb") as file:
                raw = file.read(MAX_SECRET_BYTES + 1)
            found = raw.decode().removesuffix("\n").removesuffix("\r")
        except (FileNotFoundError, NotADirectoryError):
            return "", f"the file {name} is not there"
        except OSError as error:
            return "", f"the file {name} cannot be read: {(error.strerror or type(error).__name__).lower()}"
        except ValueError:  # a NUL in the name too
            return "", f"the file {name} is not text in UTF-8"
        if len(raw) > MAX_SECRET_BYTES:
            return "", f"the file {name} is longer than {MAX_SECRET_BYTES} bytes"
        self.read[f"file:{name}"] = found
        return (found, "") if found else ("", f"the file {name} is empty")


def _no_file(mode: int) -> str:
    """What stands in a file's place; a pipe would be waited for, and never end."""
    if stat.S_ISDIR(mode):
        return "a directory, not a file"
    return "" if stat.S_ISREG(mode) else "a pipe or a device, not a file"
