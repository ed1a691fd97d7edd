"""Secrets of a LiteLLM file: each becomes a variable of its own, and none is repeated."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.litellm_import.servers import ENVIRON, environment

ABOUT = ("secret", "key", "token", "credentials", "auth", "cookie", "password")  # in the name of an option or a header
# What people write where a server wants no key and a library insists on one.
NO_KEYS = frozenset({"none", "null", "empty", "fake", "fake-key", "dummy", "dummy-key", "anything", "na", "n/a"}
                    | {"no-key", "no-key-required", "not-needed", "not-used", "unused", "x", "xxx"})  # fmt: skip


class Secrets:
    """Which variable stands for which secret: two that differ never share one, and neither do one that the file names
    itself and one that stood in it. A server would be sent the key of another.
    """

    def __init__(self) -> None:
        self._variables: set[str] = set()
        self._names: dict[tuple[str, str], str] = {}  # of the variable, by scope and secret

    def reserve(self, variable: str) -> None:
        """One that is in the environment already."""
        self._variables.add(variable)

    def written(self, value: object, variable: str, scope: str = "") -> tuple[str, bool]:
        """What to write for a secret, and whether it stood in the file itself. `variable`: what it should be called.

        A secret that stands in several places is one variable, within a `scope`.
        """
        written = environment(value)
        if isinstance(written, str) and written.startswith("${"):
            return written, False
        secret = (scope, str(value))
        if secret not in self._names:
            name, number = variable, 1
            while name in self._variables:
                number += 1
                name = f"{variable}_{number}"
            self._variables.add(name)
            self._names[secret] = name
        return "${" + self._names[secret] + "}", bool(value)


def is_secret(name: str) -> bool:
    return any(word in name.lower() for word in ABOUT)


def is_no_key(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower() in NO_KEYS


def variables(data: object) -> list[str]:
    """Every X of `os.environ/X`, however deep."""
    if isinstance(data, Mapping):
        return [name for inner in data.values() for name in variables(inner)]
    if isinstance(data, list):
        return [name for inner in data for name in variables(inner)]
    return [data.removeprefix(ENVIRON)] if isinstance(data, str) and data.startswith(ENVIRON) else []
