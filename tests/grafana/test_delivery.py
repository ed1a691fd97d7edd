"""An alert on its whole way: a real gateway, a real Prometheus, a real Alertmanager, and a receiver that is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests import replies
from tests.prometheus import Alertmanager, Prometheus
from tests.receiver import Receiver
from tests.servers import Gateway, until
from tests.upstream import Upstream

ROUTES = """
version: 1
providers: {up: {base_url: "@BASE@"}}
models: {m: {provider: up, model: m-up, price: unmetered}}
"""


def instance_of(gateway: Gateway) -> str:
    return gateway.ops_url.removeprefix("http://")


def delivered(receiver: Receiver, status: str) -> list[dict[str, Any]]:
    """The alerts of that status, with the path that they came to."""
    told = [{**alert, "path": each.path} for each in receiver.deliveries for alert in each.told["alerts"]]
    return [alert for alert in told if alert["status"] == status]


def test_a_rejected_file_is_told_and_its_end_too(tmp_path: Path) -> None:
    with (
        Upstream(replies.ok()) as upstream,
        Receiver() as receiver,
        Gateway(tmp_path, ROUTES.replace("@BASE@", upstream.base_url)) as gateway,
        Alertmanager(tmp_path, {"now": receiver.url + "/now", "today": receiver.url + "/today"}) as alertmanager,
        Prometheus(tmp_path, [instance_of(gateway)], alertmanager=alertmanager.address) as prometheus,
    ):
        prometheus.wait('up{job="gateway"} == 1')
        assert prometheus.query('ALERTS{alertstate="firing"}') == []
        assert receiver.deliveries == []

        good = gateway.routes.read_text()
        gateway.reload("version: 2")
        (alert,) = until("the alert", lambda: delivered(receiver, "firing"))
        instance = instance_of(gateway)
        assert alert["labels"] == {"alertname": "GatewayConfigRejected", "severity": "warning", "instance": instance}
        assert alert["annotations"]["summary"] == f"{instance} rejected its changed routes.yaml"
        assert alert["annotations"]["runbook_url"] == "docs/runbooks.md#gatewayconfigrejected"
        assert alert["path"] == "/hook/today"
        assert gateway.chat("m").is_success, "it goes on with what it had"

        gateway.reload(good)
        resolved = until("the end of it", lambda: delivered(receiver, "resolved"))
        assert {each["labels"]["alertname"] for each in resolved} == {"GatewayConfigRejected"}
