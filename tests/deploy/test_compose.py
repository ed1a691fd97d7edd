"""compose.yaml by Compose's own parser, and what it mounts by the tools of those who read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.deploy.dockerfile import DOCKERFILE, image, stages
from tests.deploy.stack import FILLED_IN, FOLDER, binds, compose, mounted, resolved
from tests.deploy.tools import ROOT, parser, passes, run, system

PROFILES = ("", "gpu")
SETTING = re.compile(r"^#?([A-Z_]+)=", re.MULTILINE)


def services(profile: str = "") -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = resolved(profile)["services"]
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_compose_takes_it(profile: str) -> None:
    always = {"gateway", "model", "prometheus", "alertmanager", "grafana"}
    assert set(services(profile)) == always | ({"vllm"} if profile else set())


@pytest.mark.parametrize("missing", sorted(FILLED_IN))
def test_what_must_be_said_is_asked_for(missing: str) -> None:
    command = [parser("docker-compose"), "--env-file", "/dev/null", "-f", str(FOLDER / "compose.yaml"), "config", "-q"]
    refused = run(command, env={name: value for name, value in FILLED_IN.items() if name != missing})
    assert refused.returncode != 0
    assert f"required variable {missing} is missing a value: set it in .env" in refused.stderr


def test_the_example_of_env_names_every_variable() -> None:
    example = (FOLDER / ".env.example").read_text()
    assert set(re.findall(r"\$\{([A-Z_]+)", (FOLDER / "compose.yaml").read_text())) - set(SETTING.findall(example)) == {
        "PROMETHEUS_RETENTION"
    }
    empty = {name for name in SETTING.findall(example) if f"\n{name}=\n" in example}
    assert empty == set(FILLED_IN)


def test_an_env_file_that_is_filled_in_is_enough(tmp_path: Path) -> None:
    filled = (FOLDER / ".env.example").read_text()
    for name, value in FILLED_IN.items():
        filled = filled.replace(f"\n{name}=\n", f"\n{name}={value}\n")
    (tmp_path / "env").write_text(filled)
    file = str(FOLDER / "compose.yaml")
    command = [parser("docker-compose"), "--env-file", str(tmp_path / "env"), "-f", file, "config", "--format", "json"]
    assert json.loads(passes(command)) == resolved()


@pytest.mark.parametrize("profile", PROFILES)
def test_only_the_public_port_is_open_to_others(profile: str) -> None:
    ports = {
        (name, port["target"]): port.get("host_ip", "")
        for name, each in services(profile).items()
        for port in each.get("ports", ())
    }
    assert {place for place, address in ports.items() if address != "127.0.0.1"} == {("gateway", 4000)}
    assert {name for name, _ in ports} == {"gateway", "prometheus", "alertmanager", "grafana"}
    assert "network_mode" not in json.dumps(services(profile))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_model_is_reached_by_the_gateway_alone_and_has_no_way_out(profile: str) -> None:
    """vLLM beside it has a way out, for its weights, and is asked by the gateway in the same network."""
    at = {name: set(each["networks"]) for name, each in services(profile).items()}
    assert at["model"] == {"models"}
    assert {name for name, networks in at.items() if "models" in networks} - {"vllm"} == {"gateway", "model"}
    assert resolved(profile)["networks"]["models"]["internal"] is True


@pytest.mark.parametrize("service", ["gateway", "model", "prometheus", "alertmanager", "grafana"])
def test_each_runs_read_only_and_without_rights(service: str) -> None:
    given = services()[service]
    assert (given["read_only"], given["cap_drop"], given["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert "privileged" not in given
    assert all(each.get("read_only") for each in given["volumes"] if each["type"] == "bind")


def test_what_it_builds_and_mounts_exists() -> None:
    built = {name: each["build"] for name, each in services().items() if "build" in each}
    assert {name: each["target"] for name, each in built.items()} == {"gateway": "gateway", "model": "model"}
    for each in built.values():
        assert Path(each["context"], each["dockerfile"]) == DOCKERFILE
        assert each["target"] in stages(DOCKERFILE.read_text())
    for service in services():
        for target, source in binds(service).items():
            assert source.exists(), f"{service}: {target} is not there"
            assert ROOT in source.parents
    used = {each["source"] for s in services("gpu").values() for each in s["volumes"] if each["type"] == "volume"}
    assert used == set(resolved("gpu")["volumes"])


def test_the_ledger_is_in_its_volume_and_the_drain_has_time() -> None:
    gateway = services()["gateway"]
    (volume,) = [each for each in gateway["volumes"] if each["type"] == "volume"]
    (place,) = image("gateway").volumes
    assert (volume["source"], volume["target"]) == ("ledger", place)
    stores = yaml.safe_load((FOLDER / "config/routes.yaml").read_text())["stores"]
    assert set(stores) == {"ledger", "counters", "cache"}
    assert all(dsn.startswith(f"sqlite:///{place}/") for dsn in stores.values())
    drain = [int(each.removesuffix("s")) for each in image("gateway").argv if re.fullmatch(r"\d+s", each)]
    assert len(drain) == 2
    assert int(gateway["stop_grace_period"].removesuffix("s")) >= sum(drain) + 10


def test_gateway_check_takes_its_routes() -> None:
    env = {**services()["gateway"]["environment"], "VLLM_BASE_URL": "http://vllm:8000/v1", "OPENAI_API_KEY": "x"}
    command = [str(ROOT / ".venv/bin/gateway"), "check", "--strict", "--config", str(FOLDER / "config/routes.yaml")]
    assert "3 of 3 models live" in passes(command, env=env)


def test_promtool_takes_what_prometheus_is_given(tmp_path: Path) -> None:
    (option,) = [each for each in services()["prometheus"]["command"] if each.startswith("--config.file=")]
    config = mounted("prometheus", tmp_path) / option.partition("=")[2].lstrip("/")
    told = passes([system("promtool"), "check", "config", str(config)])
    assert "SUCCESS: 2 rule files found" in told
    assert len(re.findall(r"SUCCESS: \d+ rules found", told)) == 2
    (tmp_path / "etc/prometheus/rules/alerts.yaml").write_text("groups: [{name: x, rules: [{alert: A, expr: 'sum('}]}]")
    assert run([system("promtool"), "check", "config", str(config)]).returncode != 0


def test_prometheus_asks_where_the_others_are() -> None:
    given = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    shipped = yaml.safe_load((ROOT / "grafana/prometheus/prometheus.yaml").read_text())
    assert given["scrape_configs"][0]["job_name"] == shipped["scrape_configs"][0]["job_name"] == "gateway"
    assert given["global"] == shipped["global"]
    (gateway,) = given["scrape_configs"][0]["static_configs"][0]["targets"]
    (alertmanager,) = given["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    listens = image("gateway").argv[image("gateway").argv.index("--ops-listen") + 1]
    assert gateway == f"gateway:{listens.rpartition(':')[2]}"
    assert alertmanager == "alertmanager:9093"
    for name in ("gateway", "prometheus", "alertmanager", "grafana"):
        assert "monitoring" in services()[name]["networks"]


def test_amtool_takes_what_alertmanager_is_given(tmp_path: Path) -> None:
    (option,) = [each for each in services()["alertmanager"]["command"] if each.startswith("--config.file=")]
    config = mounted("alertmanager", tmp_path) / option.partition("=")[2].lstrip("/")
    assert "SUCCESS" in passes([system("amtool"), "check-config", str(config)])
    given = yaml.safe_load(config.read_text())
    shipped = yaml.safe_load((ROOT / "grafana/prometheus/alertmanager.yaml").read_text())
    assert (given["route"], given["inhibit_rules"]) == (shipped["route"], shipped["inhibit_rules"])
    assert {each["name"] for each in given["receivers"]} == {each["name"] for each in shipped["receivers"]}


def test_grafana_finds_what_its_provisioning_names(tmp_path: Path) -> None:
    root = mounted("grafana", tmp_path)
    (providers,) = sorted((root / "etc/grafana/provisioning/dashboards").glob("*.yaml"))
    (provider,) = yaml.safe_load(providers.read_text())["providers"]
    folder = root / provider["options"]["path"].lstrip("/")
    shown = {path.name: json.loads(path.read_text())["uid"] for path in folder.glob("*.json")}
    assert set(shown) == {path.name for path in (ROOT / "grafana/dashboards").glob("*.json")}
    assert len(shown) >= 4
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (root / home.lstrip("/")).is_file()

    (sources,) = sorted((root / "etc/grafana/provisioning/datasources").glob("*.yaml"))
    (source,) = yaml.safe_load(sources.read_text())["datasources"]
    address = urlsplit(source["url"])
    assert address.hostname == "prometheus"
    assert address.hostname in services()
    (port,) = services()["prometheus"]["ports"]
    assert port["target"] == address.port


def test_the_gpu_profile_asks_for_a_gpu() -> None:
    vllm = services("gpu")["vllm"]
    (device,) = vllm["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "ports" not in vllm
    told = compose("--profile", "gpu", "config", "--format", "json", env={**FILLED_IN, "VLLM_MODEL": "org/other"})
    both = json.loads(told)["services"]
    assert both["gateway"]["environment"]["VLLM_MODEL"] == "org/other"
    assert "org/other" in both["vllm"]["command"]
