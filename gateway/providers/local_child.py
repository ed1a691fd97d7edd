"""The embedded model's own process: llama.cpp's HTTP server on a loopback port. Run by `local.py`, never by hand.

    python -m gateway.providers.local_child

The first line of stdin is JSON: model, alias, api_key, port (0: any free one), threads, context (tokens for each
request), parallel. The only line on stdout is the server's URL, written once the model is loaded. It ends when stdin
does: the kernel closes the pipe when the gateway is gone, however it went.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any

try:
    import xllamacpp
except ImportError as error:  # its wheel takes libgomp from the system, and slim images have none
    sys.exit(f"llama.cpp cannot be loaded: {error} (Debian: apt-get install libgomp1)")


def main() -> None:
    # The gateway stops this process after its last answer. Ctrl-C and systemd's SIGTERM reach the whole group at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    options = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever C++ prints is a log
    server = xllamacpp.Server(_parameters(options))
    report.write(f"{server.listening_address}\n")
    report.close()
    threading.Event().wait()


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def _parameters(options: dict[str, Any]) -> xllamacpp.CommonParams:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = options["model"]
    parameters.model_alias = {options["alias"]}
    parameters.api_keys = [options["api_key"]]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options["port"]
    parameters.n_parallel = options["parallel"]
    parameters.n_ctx = options["context"] * options["parallel"]
    parameters.n_batch = options["context"]
    parameters.n_ubatch = options["context"]  # an input to embed must fit into one batch
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = options["threads"]
    parameters.cpuparams_batch.n_threads = options["threads"]
    parameters.use_jinja = True
    parameters.endpoint_metrics = True
    parameters.embedding = True
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN  # /v1/embeddings wants one vector
    parameters.ui = False
    parameters.verbosity = 1  # errors; nothing of what is asked or answered
    return parameters


if __name__ == "__main__":
    main()
