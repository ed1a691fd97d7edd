"""Who can reach the two listeners: as `serve` would be told here, and as the machine says that they stand.

What stands is read from /proc/net (proc(5)), where there is one: the sockets that listen on the two ports.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

import gateway
from gateway.cli.doctor.findings import Finding, failure, ok, skipped, warning
from gateway.errors import UpstreamFailure
from gateway.providers.http import HttpClient
from gateway.server.admin import SHORTEST, TOKEN
from gateway.server.listener import is_loopback, split_address

LISTENERS, RUNNING = "listeners", "running"
PUBLIC, OPERATIONS = "public", "operations"
_PAGE_LIMIT = 64 * 1024**2  # bytes
_LISTENS = "0A"  # TCP_LISTEN in the kernel's include/net/tcp_states.h


class Guard(NamedTuple):
    """What stands between the listeners and whoever reaches them."""

    keys: bool | None  # a `keys:` section, or a key that was made; None: the configuration does not say
    anonymous: bool  # --allow-anonymous
    token: str  # GATEWAY_ADMIN_TOKEN; never shown


def judge(listen: str, ops_listen: str, standing: tuple[Iterable[str], Iterable[str]], guard: Guard) -> list[Finding]:
    """`listen`, `ops_listen`: HOST:PORT. `standing`: hosts where something listens on these ports now."""
    found = [
        *_public(_open([_host(listen), *standing[0]]), guard),
        *_operations(_open([_host(ops_listen), *standing[1]])),
    ]
    if 0 < len(guard.token) < SHORTEST:
        found.append(failure(LISTENERS, TOKEN, "is so short that it could be guessed, so `gateway serve` refuses it",
                             f"use {SHORTEST} characters or more: openssl rand -hex 32"))  # fmt: skip
    return found


def _public(hosts: str, guard: Guard) -> Iterator[Finding]:
    if not hosts:
        yield ok(LISTENERS, PUBLIC, "this machine only")
    elif guard.keys is None:
        yield skipped(
            LISTENERS, PUBLIC, f"open at {hosts}; whether there are keys is known once the configuration is fine"
        )
    elif guard.keys:
        yield ok(LISTENERS, PUBLIC, f"open at {hosts}, to who has a key")
    else:
        make = warning if guard.anonymous else failure
        yield make(LISTENERS, PUBLIC, f"open at {hosts} without any key: who reaches it spends your money",
                   "`gateway keys create NAME`, add `keys:`, or listen on 127.0.0.1")  # fmt: skip


def _operations(hosts: str) -> Iterator[Finding]:
    if not hosts:
        yield ok(LISTENERS, OPERATIONS, "this machine only")
    else:
        yield warning(LISTENERS, OPERATIONS, f"open at {hosts}: who reaches it reads names and costs at /metrics "
                      "without a token; /admin/* is as safe as its token",
                      "--ops-listen 127.0.0.1:9464, or an address that only Prometheus and the probes reach "
                      "(a firewall, a NetworkPolicy)")  # fmt: skip


def _open(hosts: Iterable[str]) -> str:
    return ", ".join(sorted({host for host in hosts if not is_loopback(host)}))


def _host(address: str) -> str:
    return split_address(address)[0]


def standing(port: int, tables: Iterable[Path] = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))) -> list[str]:
    """Hosts where something listens on `port` in this network namespace; none where the system does not say."""
    found: list[str] = []
    for table in tables:
        try:
            found += listening(table.read_text(), port)
        except OSError:
            continue
    return found


def listening(table: str, port: int) -> Iterator[str]:
    """Of the text of /proc/net/tcp or tcp6: addresses are 32-bit words in the machine's byte order."""
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) > 3 and words[3] == _LISTENS:
            address, _, digits = words[1].partition(":")
            if int(digits, 16) == port:
                yield str(_address(bytes.fromhex(address)))


def _address(raw: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    found = ipaddress.ip_address(raw)
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found


async def running(listen: str, ops_listen: str, config_hash: str, seconds: float) -> list[Finding]:
    """Whether a gateway serves here, and with what."""
    host, port = split_address(ops_listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    client = HttpClient(url, max_idle=0)
    page = ""
    try:
        async with asyncio.timeout(seconds):
            answer = await client.get("/metrics", [], connect_timeout=seconds)
            page = (await answer.read(_PAGE_LIMIT)).decode(errors="replace") if answer.status == 200 else ""
            answer.close()
    except (UpstreamFailure, TimeoutError):
        wrong = [told for address in (listen, ops_listen) if (told := _unusable(address)) is not None]
        return wrong or [skipped(RUNNING, ops_listen, "no gateway serves here now")]
    finally:
        await client.close()
    return judge_running(ops_listen, _facts(page), config_hash)


def _unusable(address: str) -> Finding | None:
    """Without listening: a gateway that starts at this moment is not in anybody's way."""
    host, port = split_address(address)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _taken(address)
        fix = "listen at an address of this machine, at a port above 1023 or with the right to use a lower one"
        return failure(RUNNING, address, f"cannot be listened at: {error.strerror or error}", fix)
    return None


def _taken(address: str) -> Finding:
    return failure(RUNNING, address, "another program listens there, so `gateway serve` could not",
                   "end that program (ss -ltnp shows it), or give `gateway serve` another port")  # fmt: skip


class Facts(NamedTuple):
    """Of a running gateway's metrics. Empty: it told none, so it is no gateway."""

    version: str = ""
    config: str = ""
    accepted: bool = True  # the last change of routes.yaml


def _facts(page: str) -> Facts:
    facts = Facts()
    wanted = [line for line in page.splitlines() if line.startswith(("gateway_build_info", "gateway_config_"))]
    for family in text_string_to_metric_families("\n".join([*wanted, ""])):
        for sample in family.samples:
            if sample.name == "gateway_build_info":
                facts = facts._replace(version=sample.labels.get("version", ""))
            elif sample.name == "gateway_config_info" and sample.value:
                facts = facts._replace(config=sample.labels.get("hash", ""))
            elif sample.name == "gateway_config_last_reload_successful":
                facts = facts._replace(accepted=bool(sample.value))
    return facts


def judge_running(address: str, facts: Facts, config_hash: str) -> list[Finding]:
    """`config_hash`: of the file here; empty where it is not fine."""
    if not facts.version:
        return [_taken(address)]
    found = []
    if facts.version != gateway.__version__:
        found.append(warning(RUNNING, address, f"version {facts.version} runs, {gateway.__version__} is installed",
                             "restart it: `systemctl restart`, or SIGTERM and start"))  # fmt: skip
    if not facts.accepted:
        found.append(failure(RUNNING, address, "the gateway that runs has rejected the last change of its routes.yaml",
                             "see its log for the problems, mend them, save again"))  # fmt: skip
    elif config_hash and facts.config and facts.config != config_hash:
        found.append(warning(RUNNING, address, f"configuration {facts.config} is in force there, {config_hash} is here",
                             "run the doctor with the gateway's own --config and environment, or restart it: "
                             "variables are read at its start"))  # fmt: skip
    return found or [ok(RUNNING, address, f"a gateway serves, version {facts.version}, configuration {facts.config}")]
