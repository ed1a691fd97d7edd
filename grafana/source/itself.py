"""Gateway itself: what it adds to requests, what it waits for, what it uses, and what configuration it runs."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from grafana.source.frame import frame, section
from grafana.source.panels import (
    BLUE,
    BYTES,
    CORES,
    GREEN,
    ORANGE,
    PER_SECOND,
    PLAIN,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    About,
    Column,
    Panel,
    Query,
    number,
    rows,
    trend,
)
from grafana.source.queries import ALL, over_range, per_second, quantile, quantile_over_range

OVERHEAD = "gateway_overhead_seconds"
QUICK = ((None, GREEN), (0.005, YELLOW), (0.05, RED))
MINE = "and on (instance) gateway_build_info"  # other programs have process_* metrics too
PROCESS = "{{process}} at {{instance}}"


def build() -> dashboard.Dashboard:
    page = frame(
        "gateway-itself",
        "What the gateway adds to requests, what it waits for, what it uses, and which configuration it runs.",
        *("team", "route", "model"),
    )
    section(page, "Headline: all of it, but for the requests of the chosen team, route and model", *_headline())
    section(page, "What it adds, and what goes through it", *_requests())
    section(page, "Ledger and configuration", *_state())
    section(page, "Processes", *_processes())
    return page


def _headline() -> list[Panel]:
    reload = "min(gateway_config_last_reload_successful)"
    return [
        number(
            About("Request rate", "Finished, now.", PER_SECOND, 3, 4),
            Query(f"sum({per_second('gateway_requests_total', ALL)})"),
        ),
        number(
            About(
                "Overhead, median",
                "The gateway's own part of a request's duration, over the range.",
                *(SECONDS, 3, 4, QUICK, 2),
            ),
            Query(quantile_over_range(0.5, OVERHEAD)),
        ),
        number(
            About(
                "Overhead, 99%",
                "The gateway's own part: 99% of requests had less. Over the range.",
                *(SECONDS, 3, 4, QUICK, 2),
            ),
            Query(quantile_over_range(0.99, OVERHEAD)),
        ),
        number(
            About("In flight now", "Attempts under way. By model.", PLAIN, 3, 4, ((None, BLUE),), 0),
            Query('sum(gateway_requests_in_flight{model=~"$model"})'),
        ),
        number(
            About(
                "Memory",
                "Resident memory of all processes of the gateway, embedded models included. Pages that several share "
                "are counted for each.",
                *(BYTES, 3, 4),
            ),
            Query(f"sum(process_resident_memory_bytes {MINE})"),
        ),
        number(
            About(
                "Ledger failures",
                "Tries to write a batch that failed, over the range. They are repeated: rows are late, not lost.",
                *(PLAIN, 3, 4, ((None, GREEN), (0.5, RED)), 0),
            ),
            Query(f"sum({over_range('gateway_ledger_write_failures_total')})"),
        ),
        number(
            About(
                "Last reload",
                "1: the last change of routes.yaml is in force on every replica. 0: one rejected it; its log says why.",
                *(PLAIN, 3, 4, ((None, RED), (1, GREEN)), 0),
            ),
            Query(reload),
        ),
        number(
            About("Version", "Of the gateway; several while a new one is rolled out.", PLAIN, 3, 4),
            Query("count by (version) (gateway_build_info)", "{{version}}"),
            name=True,
        ),
    ]


def _requests() -> list[Panel]:
    return [
        trend(
            About(
                "Overhead",
                "The gateway's own part of a request's duration: half, 95% and 99% of requests had less. All requests.",
                *(SECONDS, 8),
            ),
            Query(quantile(0.5, OVERHEAD), "50%"),
            Query(quantile(0.95, OVERHEAD), "95%"),
            Query(quantile(0.99, OVERHEAD), "99%"),
        ),
        trend(
            About(
                "Stages, 95%",
                "Where that time goes, and who is waited for. Of each request: read, admit, decide; of each attempt: "
                "reserve, connect, first_byte (the upstream's own time). 95% took less. All requests.",
                *(SECONDS, 8),
            ),
            Query(quantile(0.95, "gateway_stage_seconds", by="le, stage"), "{{stage}}"),
        ),
        trend(
            About("Requests by outcome", "Finished requests a second.", PER_SECOND, 8),
            Query(f"sum by (outcome) ({per_second('gateway_requests_total', ALL)})", "{{outcome}}"),
            stack="normal",
        ),
        trend(
            About("In flight", "Attempts under way, by model.", PLAIN, 8, 8, ((None, BLUE),), 0),
            Query('sum by (model) (gateway_requests_in_flight{model=~"$model"})', "{{model}}"),
            stack="normal",
        ),
        trend(
            About(
                "Refused",
                "Requests that were never sent upstream, a second. `overload`: the gateway or its models were full.",
                *(PER_SECOND, 8),
            ),
            Query(f"sum by (reason) ({per_second('gateway_rejections_total')})", "{{reason}}"),
            stack="normal",
        ),
        trend(
            About(
                "Lines left out of streams",
                "Lines of upstreams' streams that were not JSON, a second, by model. SDKs would raise on them.",
                *(PER_SECOND, 8),
            ),
            Query(
                "sum by (model) (" + per_second("gateway_stream_lines_dropped_total", 'model=~"$model"') + ")",
                "{{model}}",
            ),
            stack="normal",
        ),
    ]


def _state() -> list[Panel]:
    return [
        trend(
            About(
                "Ledger queue",
                "Requests that wait to be written to the ledger, by replica. A full queue makes requests wait.",
                *(PLAIN, 8, 8, ((None, BLUE),), 0),
            ),
            Query("sum by (instance) (gateway_ledger_queue_depth)", "{{instance}}"),
        ),
        trend(
            About(
                "Ledger failures and dropped rows",
                "A second. Failed batches are tried again; rows are dropped only with `stores.on_full: drop`.",
                *(PER_SECOND, 8),
            ),
            Query(f"sum({per_second('gateway_ledger_write_failures_total')})", "failed batches"),
            Query(f"sum({per_second('gateway_ledger_rows_dropped_total')})", "dropped rows"),
        ),
        rows(
            About(
                "Configuration",
                "Which configuration runs where; two hashes: not every replica has the new one.",
                PLAIN,
                8,
            ),
            {"instance": "Replica", "hash": "Hash of routes.yaml"},
            {
                "Last reload": Column(
                    "max by (instance, hash) (gateway_config_last_reload_successful * on (instance) group_right () "
                    "gateway_config_info)",
                    PLAIN,
                    ((None, RED), (1, GREEN)),
                ),
            },
        ),
    ]


def _processes() -> list[Panel]:
    return [
        trend(
            About("Memory by process", "Resident; pages that several share are counted for each.", BYTES, 8),
            Query(f"process_resident_memory_bytes {MINE}", PROCESS),
        ),
        trend(
            About(
                "CPU by process", "Cores in use. A worker at 1 is full: start more.", CORES, 8, 8, ((None, BLUE),), 2
            ),
            Query(f"{per_second('process_cpu_seconds_total')} {MINE}", PROCESS),
        ),
        trend(
            About("Open files", "Of those that each process may open: connections are files.", RATIO, 8),
            Query(f"process_open_fds / process_max_fds {MINE}", PROCESS),
        ),
        rows(
            About("Since when", "How long each process has run.", PLAIN, 12, 6),
            {"instance": "Replica", "process": "Process"},
            {"Up": Column(f"max by (instance, process) (time() - process_start_time_seconds {MINE})", SECONDS)},
        ),
        rows(
            About("Reloads", "Changes of routes.yaml over the range, by replica.", PLAIN, 12, 6),
            {"instance": "Replica", "result": "Result"},
            {
                "Reloads": Column(
                    f"sum by (instance, result) ({over_range('gateway_config_reloads_total')})",
                    PLAIN,
                    ((None, BLUE), (1, ORANGE)),
                )
            },
        ),
    ]
