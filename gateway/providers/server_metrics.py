"""What a self-hosted server tells Prometheus of itself: requests running and waiting, and tokens since it started.

The names, as the servers document them:
- vLLM (docs.vllm.ai/en/latest/usage/metrics.html): one series an engine; `prompt_tokens_total` counts cached input too.
- SGLang with `--enable-metrics` (docs.sglang.io/references/production_metrics.html). With data parallelism there is one
  series a `dp_rank` and one for all of them, with priorities one for each and one for all (`priority=""`).
- llama.cpp with `--metrics` (github.com/ggml-org/llama.cpp, tools/server/README.md, "GET /metrics"): it wants the API
  key, and `prompt_tokens_total` leaves out the input that it had cached.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gateway import __version__
from gateway.config.types import ProviderConfig
from gateway.core.loads import Reading
from gateway.errors import UpstreamFailure
from gateway.providers.http import HttpClient

READ_SECONDS = 2.0  # for the whole exchange
READ_LIMIT = 4 * 1024 * 1024  # bytes; vLLM's page has some 100 KB
LINES_LIMIT = 2000  # of the metrics that we look for

Header = tuple[bytes, bytes]


class Names(NamedTuple):
    """What one kind of server calls them."""

    running: str
    waiting: str
    input_tokens: str
    output_tokens: str


SERVERS = (
    Names("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:prompt_tokens_total",
          "vllm:generation_tokens_total"),
    Names("sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:prompt_tokens_total",
          "sglang:generation_tokens_total"),
    Names("llamacpp:requests_processing", "llamacpp:requests_deferred", "llamacpp:prompt_tokens_total",
          "llamacpp:tokens_predicted_total"),
)  # fmt: skip
_WANTED = re.compile(
    rb"^(?:" + "|".join(name for names in SERVERS for name in names).encode() + rb")[ {][^\n]*$", re.MULTILINE
)


def read_page(page: bytes) -> Reading | None:
    """None where no server that we know wrote it. Of a page of several engines, all of them together.

    The few lines that matter are picked out first: the parser would take milliseconds for the rest.
    """
    lines = _WANTED.findall(page)
    if not lines or len(lines) > LINES_LIMIT:
        return None
    try:
        found = list(text_string_to_metric_families(b"\n".join([*lines, b""]).decode()))
    except (ValueError, KeyError, IndexError):  # the parser's ways to say that this is no exposition
        return None
    samples: dict[str, list[Sample]] = {}
    for family in found:
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample)
    for names in SERVERS:
        running, waiting, read, written = (_total(samples.get(name, ())) for name in names)
        if running is not None:
            return Reading(running, waiting or 0, read, written)
    return None


def _total(samples: Iterable[Sample]) -> int | None:
    """Over all ranks where there are ranks; else over what is not split by priority. None where nothing is said."""
    fine = [sample for sample in samples if math.isfinite(sample.value) and sample.value >= 0]
    ranks = [sample for sample in fine if sample.labels.get("dp_rank")]
    parts = ranks or fine
    whole = [sample for sample in parts if not sample.labels.get("priority")]
    parts = whole or parts
    return round(sum(sample.value for sample in parts)) if parts else None


def page_url(config: ProviderConfig) -> str:
    """Where the page of this server is; empty where it must not be asked for."""
    if config.metrics == "off" or not (config.metrics or config.base_url):
        return ""
    if not config.metrics:
        return config.base_url.rstrip("/").removesuffix("/v1") + "/metrics"
    return config.metrics if urlsplit(config.metrics).path.strip("/") else f"{config.metrics.rstrip('/')}/metrics"


class ServerMetrics:
    """One server's page. The key and headers of its API are sent only where the page has the API's own origin."""

    def __init__(self, config: ProviderConfig) -> None:
        """Raises ValueError for a URL that cannot be used, OSError for a `ca_file` that cannot be read."""
        url = page_url(config)
        headers = {"accept": "text/plain;version=0.0.4", "user-agent": f"open-model-gateway/{__version__}"}
        if _origin(urlsplit(url)) == _origin(urlsplit(config.base_url)):
            if config.api_key:
                headers["authorization"] = f"Bearer {config.api_key}"
            headers |= {name.lower(): value for name, value in config.headers.items()}
        self._headers: Sequence[Header] = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._client = HttpClient(url, ca_file=config.ca_file, max_idle=0)

    async def read(self) -> Reading | None:
        """None where it answered with something else. Raises UpstreamFailure where it did not answer in time."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                answer = await self._client.get("", self._headers, connect_timeout=READ_SECONDS)
                try:
                    return read_page(await answer.read(READ_LIMIT)) if answer.status == 200 else None
                finally:
                    answer.close()
        except TimeoutError:
            raise UpstreamFailure("timeout", f"no metrics within {READ_SECONDS:g} s") from None

    async def close(self) -> None:
        await self._client.close()


def _origin(url: SplitResult) -> tuple[str, str, int]:
    """RFC 6454, section 4."""
    port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
    return url.scheme, url.hostname or "", port
