"""The chart's pod with everything switched on, run as a kubelet does: its arguments, account, mounts and ConfigMap."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.container import ROOT, Container, Spec, installed
from tests.deploy.dockerfile import image
from tests.deploy.test_helm import container, of, pod
from tests.servers import until

KEY = "a-key-for-this-test-0123456789"
AUTHORIZED = {"authorization": f"Bearer {KEY}"}


class ConfigMap:
    """A mounted one: files are links into `..data`, a link that the kubelet swaps in one move."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._number = folder, 0
        folder.mkdir()

    def write(self, name: str, text: str) -> None:
        self._number += 1
        version = self.folder / f"..{self._number}"
        version.mkdir()
        (version / name).write_text(text)
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(self.folder / "..data")
        if not (self.folder / name).is_symlink():
            (self.folder / name).symlink_to(f"..data/{name}")


@pytest.fixture(scope="module")
def routes() -> str:
    maps = [each["data"] for each in of("everything", "ConfigMap")]
    return next(str(data["routes.yaml"]) for data in maps if "routes.yaml" in data)


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, routes: str) -> ConfigMap:
    found = ConfigMap(tmp_path_factory.mktemp("pod") / "routes")
    found.write("routes.yaml", routes)
    return found


@pytest.fixture(scope="module")
def gateway(mounted: ConfigMap) -> Iterator[Container]:
    directory, built = mounted.folder.parent, image("gateway")
    (directory / "eu").mkdir()
    (directory / "eu/key").write_text("sk-of-a-provider")
    data = directory / "data"
    data.mkdir()
    os.chown(data, 0, pod("everything")["securityContext"]["fsGroup"])
    data.chmod(0o2770)  # as the kubelet does for fsGroup
    sources = {"routes": mounted.folder, "data": data, "secret-eu": directory / "eu"}
    mounts = container("everything")["volumeMounts"]
    spec = Spec(
        argv=[*built.entrypoint, *container("everything")["args"]],
        uid=pod("everything")["securityContext"]["runAsUser"],
        cwd=built.workdir,
        env={**built.env, "GATEWAY_KEY": KEY, "GATEWAY_ADMIN_TOKEN": "a-token-for-this-test"},
        files={**installed(), "/opt/open-model-gateway/healthcheck.py": ROOT / "deploy/docker/healthcheck.py"},
        volumes={
            mount["mountPath"]: (sources[mount["name"]], "ro" if mount.get("readOnly") else "rw")
            for mount in mounts
            if mount["name"] in sources
        },
        tmpfs=[mount["mountPath"] for mount in mounts if mount["name"] == "tmp"],
    )
    with Container(directory, spec) as started:
        started.wait_ready()
        yield started


def test_its_arguments_are_the_gateways_own(gateway: Container) -> None:
    """Two workers, which the parent speaks for."""
    health = gateway.inside(lambda: gateway.ops.get("/healthz"))
    assert health.status_code == 200
    assert gateway.inside(lambda: gateway.api.get("/v1/models")).status_code == 401
    until(
        "the second worker",
        lambda: 'process="worker 1"' in gateway.inside(lambda: gateway.ops.get("/metrics")).text,
    )


def test_secrets_come_from_their_mounts(gateway: Container) -> None:
    """The model sleeps where the file that holds its provider's key is not there."""
    listed = gateway.inside(lambda: gateway.api.get("/v1/models", headers=AUTHORIZED)).json()
    assert {"qwen", "auto"} <= {each["id"] for each in listed["data"]}
    admin = {"authorization": "Bearer a-token-for-this-test"}
    assert gateway.inside(lambda: gateway.ops.get("/admin/budgets", headers=admin)).status_code == 200
    assert "sk-of-a-provider" not in gateway.log


def test_a_changed_config_map_needs_no_restart(gateway: Container, mounted: ConfigMap, routes: str) -> None:
    def known() -> bool:
        listed = gateway.inside(lambda: gateway.api.get("/v1/models", headers=AUTHORIZED)).json()
        return "brand-new" in {each["id"] for each in listed["data"]}

    assert not known()
    assert "match: {model: auto}" in routes
    mounted.write("routes.yaml", routes.replace("match: {model: auto}", "match: {model: [auto, brand-new]}"))
    until("the new name", known)


def test_it_ends(gateway: Container) -> None:
    """Without its drain: that would take 130 s, and test_container.py waits for one."""
    assert gateway.end_now() == 0, gateway.log
