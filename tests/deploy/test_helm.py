"""The chart by Helm 4, its output by Kubernetes' own schemas and the custom resources' own, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NamedTuple

import pytest
import yaml

from scripts import chart as readme
from tests.deploy.tools import DEPLOY, ROOT, node_home, parser, passes, run, system
from tests.prometheus import RULES

CHART = DEPLOY / "helm/open-model-gateway"
FILES: dict[str, dict[str, Any]] = {"defaults": {}}
FILES |= {path.stem.removesuffix("-values"): yaml.safe_load(path.read_text()) for path in CHART.glob("ci/*.yaml")}
ALWAYS = {"Deployment", "Service"}
BY_DEFAULT = ALWAYS | {"ConfigMap", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget", "ServiceAccount"}
KINDS = {
    "defaults": BY_DEFAULT,
    "everything": BY_DEFAULT | {"PrometheusRule", "ServiceMonitor"},
    "existing": ALWAYS,
    "shared": BY_DEFAULT - {"PersistentVolumeClaim"} | {"HorizontalPodAutoscaler"},
}
Manifest = dict[str, Any]


class Rendered(NamedTuple):
    lint: list[Any]
    manifests: list[Manifest]
    error: str


def helm(*values: Mapping[str, Any], chart: Path = CHART) -> list[Rendered]:
    asked = [{"chart": str(chart), "values": each} for each in values]
    answers = json.loads(passes([parser("python"), "-m", "tests.deploy.helm"], stdin=json.dumps(asked)))
    return [
        Rendered(
            each["lint"],
            [
                m
                for name, text in each["files"].items()
                if name.endswith(".yaml")
                for m in yaml.safe_load_all(text)
                if m
            ],
            each["error"],
        )
        for each in answers
    ]


@cache
def rendered() -> Mapping[str, Rendered]:
    return dict(zip(FILES, helm(*FILES.values()), strict=True))


def of(name: str, kind: str) -> list[Manifest]:
    return [each for each in rendered()[name].manifests if each["kind"] == kind]


def pod(name: str) -> Manifest:
    (deployment,) = of(name, "Deployment")
    found: Manifest = deployment["spec"]["template"]["spec"]
    return found


def container(name: str) -> Manifest:
    (found,) = pod(name)["containers"]
    return dict(found)


# What others' tools say


@pytest.mark.parametrize("name", sorted(FILES))
def test_helm_lints_and_renders(name: str) -> None:
    assert (rendered()[name].error, rendered()[name].lint) == ("", [])
    assert {each["kind"] for each in rendered()[name].manifests} == KINDS[name]


def strictly(version: str, directory: Path, names: Sequence[str]) -> CompletedProcess[str]:
    """All but custom resources, which are not Kubernetes' own."""
    written = []
    for name in names:
        written.append(str(directory / f"{name}.yaml"))
        Path(written[-1]).write_text(yaml.safe_dump_all(own(name)))
    return run([parser("kubernetes-validate"), "--strict", "--kubernetes-version", version, *written])


def test_kubernetes_takes_it_strictly(tmp_path: Path) -> None:
    validated = strictly("1.37.0", tmp_path, sorted(FILES))
    assert validated.returncode == 0, validated.stdout + validated.stderr


@pytest.mark.full
def test_the_oldest_kubernetes_that_the_chart_names_does_too(tmp_path: Path) -> None:
    oldest = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"].strip(">=").removesuffix("-0")
    validated = strictly(oldest, tmp_path, sorted(set(FILES) - {"everything"}))
    assert validated.returncode == 0, validated.stdout + validated.stderr
    newer = strictly(oldest, tmp_path, ["everything"])
    assert newer.returncode != 0
    assert "'sleep' was unexpected" in newer.stdout + newer.stderr, (
        "drain.preStopSeconds needs 1.30, as values.yaml says"
    )


def own(name: str) -> list[Manifest]:
    return [each for each in rendered()[name].manifests if not each["apiVersion"].startswith("monitoring.coreos.com/")]


def test_kubernetes_would_say_so(tmp_path: Path) -> None:
    (planted,) = of("defaults", "Deployment")
    planted = json.loads(json.dumps(planted))
    planted["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    (tmp_path / "manifests.yaml").write_text(yaml.safe_dump(planted))
    assert run([parser("kubernetes-validate"), "--strict", str(tmp_path / "manifests.yaml")]).returncode != 0


def test_the_prometheus_operator_takes_its_resources() -> None:
    given = of("everything", "ServiceMonitor") + of("everything", "PrometheusRule")
    assert len(given) == 2
    assert custom_resource_problems(given) == []
    planted = json.loads(json.dumps(given))
    planted[0]["spec"]["endpoints"][0]["intervall"] = "15s"
    planted[0]["spec"]["endpoints"][0]["port"] = 9464
    planted[1]["spec"]["groups"][0]["rules"][0]["expr"] = []
    assert len(custom_resource_problems(planted)) == 2


def custom_resource_problems(manifests: list[Manifest]) -> list[str]:
    home = node_home()
    script = home / "validate.mjs"
    script.write_text((ROOT / "tests/deploy/crds/validate.mjs").read_text())
    return passes([system("node"), str(script)], cwd=home, stdin=json.dumps(manifests)).splitlines()


def test_promtool_takes_the_rules_as_the_operator_will_write_them(tmp_path: Path) -> None:
    (rule,) = of("everything", "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    assert "SUCCESS" in passes([system("promtool"), "check", "rules", str(tmp_path / "rules.yaml")])
    shipped = [
        group
        for name in ("recording", "alerts")
        for group in yaml.safe_load((RULES / f"{name}.yaml").read_text())["groups"]
    ]
    text = json.dumps(shipped).replace("docs/runbooks.md#", "https://wiki.example.com/runbooks#")
    assert rule["spec"]["groups"] == json.loads(text)
    assert "docs/runbooks.md" not in json.dumps(rule)


def test_dashboards_are_the_checked_in_ones() -> None:
    labelled = [
        each for each in of("everything", "ConfigMap") if each["metadata"]["labels"].get("grafana_dashboard") == "1"
    ]
    shown = {name: json.loads(text) for each in labelled for name, text in each["data"].items()}
    assert shown == {path.name: json.loads(path.read_text()) for path in (ROOT / "grafana/dashboards").glob("*.json")}
    assert all(len(each["metadata"]["name"]) <= 63 for each in labelled)


# What the chart promises


def test_probes_mean_what_the_contract_says() -> None:
    given = container("defaults")
    assert {port["name"]: port["containerPort"] for port in given["ports"]} == {"public": 4000, "operations": 9464}
    probes = {name: given[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["port"] for name, probe in probes.items()} == dict.fromkeys(probes, "operations")
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_drain_fits_into_the_grace_period(name: str) -> None:
    seconds = dict(re.findall(r"--(drain-\w+)=(\d+)s", " ".join(container(name)["args"])))
    assert set(seconds) == {"drain-delay", "drain-timeout"}
    sleep = container(name).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod(name)["terminationGracePeriodSeconds"] >= sleep + sum(map(int, seconds.values())) + 10


@pytest.mark.parametrize("name", sorted(FILES))
def test_pods_have_no_rights_and_nothing_to_write_but_volumes(name: str) -> None:
    given = pod(name)
    assert given["automountServiceAccountToken"] is False
    assert given["enableServiceLinks"] is False
    assert given["securityContext"]["runAsNonRoot"] is True
    assert given["securityContext"]["runAsUser"] == 10001
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    writable = {mount["mountPath"] for mount in container(name)["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/var/lib/open-model-gateway", "/tmp"}  # noqa: S108  # the container's own
    routes = next(mount for mount in container(name)["volumeMounts"] if mount["name"] == "routes")
    assert "subPath" not in routes, "a subPath does not follow a changed ConfigMap"


def test_secrets_are_only_referred_to() -> None:
    assert not [each for name in FILES for each in rendered()[name].manifests if each["kind"] == "Secret"]
    given = container("everything")
    assert [each["secretRef"]["name"] for each in given["envFrom"]] == ["gateway-keys", "provider-keys"]
    token = next(each for each in given["env"] if each["name"] == "GATEWAY_ADMIN_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": "gateway-admin", "key": "token"}
    assert {"mountPath": "/run/secrets/eu", "name": "secret-eu", "readOnly": True} in given["volumeMounts"]
    files = [each["secret"] for each in pod("everything")["volumes"] if "secret" in each]
    assert files == [{"secretName": "eu", "defaultMode": 0o440}]


def test_a_secret_whose_name_has_dots_is_mounted() -> None:
    """Kubernetes takes dots in a Secret's name, and none in a volume's."""
    (given,) = helm({"secretFiles": ["eu.models"]})
    (spec,) = [each["spec"]["template"]["spec"] for each in given.manifests if each["kind"] == "Deployment"]
    (volume,) = [each for each in spec["volumes"] if "secret" in each]
    assert (volume["name"], volume["secret"]["secretName"]) == ("secret-eu-models", "eu.models")
    (mount,) = [each for each in spec["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    assert mount["mountPath"] == "/run/secrets/eu.models"


def test_the_ledger_outlives_the_release() -> None:
    (claim,) = of("defaults", "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    (data,) = [each for each in pod("defaults")["volumes"] if each["name"] == "data"]
    assert data["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_the_autoscaler_scales_the_deployment() -> None:
    (scaler,) = of("shared", "HorizontalPodAutoscaler")
    (deployment,) = of("shared", "Deployment")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert scaler["spec"]["scaleTargetRef"] == target
    assert "cpu" in container("shared")["resources"]["requests"], "its percentage is of what is requested"


def test_a_public_service_never_takes_the_operations_port_along() -> None:
    public, operations = of("everything", "Service")
    assert (public["spec"]["type"], [port["targetPort"] for port in public["spec"]["ports"]]) == (
        "LoadBalancer",
        ["public"],
    )
    assert (operations["spec"]["type"], operations["spec"]["ports"][0]["targetPort"]) == ("ClusterIP", "operations")


def test_who_may_reach_what_and_where_pods_may_go() -> None:
    """docs/deploy.md has it in words."""
    (policy,) = of("defaults", "NetworkPolicy")
    public, operations = policy["spec"]["ingress"]
    assert public == {"ports": [{"port": "public", "protocol": "TCP"}]}, "everybody"
    monitoring = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert operations == {"ports": [{"port": "operations", "protocol": "TCP"}], "from": monitoring}
    names, https, models = policy["spec"]["egress"]
    assert names == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    assert https == {"ports": [{"port": 443, "protocol": "TCP"}]}
    assert models == {"to": [{"podSelector": {}}]}
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    (nobody,) = helm({"networkPolicy": {"operationsFrom": [], "egress": []}})
    (closed,) = [each["spec"] for each in nobody.manifests if each["kind"] == "NetworkPolicy"]
    assert ([each["ports"][0]["port"] for each in closed["ingress"]], closed["egress"]) == (["public"], [])


def test_the_service_monitor_finds_the_operations_service_alone() -> None:
    (monitor,) = of("everything", "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [each for each in of("everything", "Service") if wanted <= each["metadata"]["labels"].items()]
    assert [each["metadata"]["name"] for each in found] == ["gateway-operations"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] in {port["name"] for port in found[0]["spec"]["ports"]}
    assert {"targetLabel": "job", "replacement": "gateway"} in endpoint["relabelings"]
    assert 'up{job="gateway"}' in (RULES / "alerts.yaml").read_text()


@pytest.mark.parametrize("name", sorted(FILES))
def test_selectors_select_the_pods(name: str) -> None:
    (deployment,) = of(name, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [each["spec"]["selector"] for each in of(name, "Service")]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in of(name, "PodDisruptionBudget")]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in of(name, "NetworkPolicy")]
    selectors += [each["labelSelector"]["matchLabels"] for each in pod(name).get("topologySpreadConstraints", ())]
    assert all(selector.items() <= labels for selector in selectors)
    assert all(selectors)


def test_without_a_shared_store_the_old_pod_goes_first() -> None:
    strategies = {name: of(name, "Deployment")[0]["spec"]["strategy"]["type"] for name in FILES}
    assert strategies.pop("shared") == "RollingUpdate"
    assert set(strategies.values()) == {"Recreate"}
    assert "replicas" not in of("shared", "Deployment")[0]["spec"], "the autoscaler's to say"


def test_routes_are_what_gateway_check_takes(tmp_path: Path) -> None:
    for name in ("defaults", "everything"):
        config = next(each["data"] for each in of(name, "ConfigMap") if "routes.yaml" in each["data"])
        (tmp_path / "routes.yaml").write_text(config["routes.yaml"])
        command = [str(ROOT / ".venv/bin/gateway"), "check", "--config", str(tmp_path / "routes.yaml")]
        assert "routes.yaml is fine" in passes(command, env={"GATEWAY_KEY": "a-key-for-this-test-0123456789"})
        stores = yaml.safe_load(config["routes.yaml"])["stores"]
        assert all(dsn.startswith("sqlite:////var/lib/open-model-gateway/") for dsn in stores.values())


# What it refuses


POSTGRES = FILES["shared"]["routes"]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two pods": ({"replicaCount": 2}, "replicaCount is 2, but ledger and budgets are in SQLite, a file"),
    "autoscaling": ({"autoscaling": {"enabled": True}}, "autoscaling is enabled, but ledger and budgets are in SQLite"),
    "two pods of a ConfigMap": ({"replicaCount": 2, "existingConfigMap": "mine"}, "could be spent once by every pod"),
    "sharing said, SQLite meant": ({"replicaCount": 2, "sharedStore": True}, "ledger and budgets are in SQLite"),
    "the same, one pod": ({"sharedStore": True}, "sharedStore is true, but ledger and budgets are in SQLite"),
    "sharing said of a ConfigMap": (
        {"replicaCount": 2, "existingConfigMap": "mine", "sharedStore": True},
        "nobody here can see which stores the ConfigMap mine names",
    ),
    "sharing said of a ConfigMap, one pod": (
        {"existingConfigMap": "mine", "sharedStore": True},
        "Put that routes.yaml into `routes`",
    ),
    "sharing not said": ({"replicaCount": 2, "routes": POSTGRES}, "and set sharedStore: true"),
    "a ledger that cannot be written": (
        {"routes": "version: 1\nstores: {ledger: 'sqlite:///gateway.db'}"},
        "a pod can write only to /var/lib/open-model-gateway",
    ),
    "too little time": ({"terminationGracePeriodSeconds": 30}, "is 30, but the drain takes up to 35 s"),
    "a drain past the chart": ({"extraArgs": ["--drain-timeout=120s"]}, "extraArgs has --drain-timeout=120s"),
    "routes that are none": ({"routes": "\n"}, "`routes` has no `version: 1`"),
    "routes in braces": ({"routes": "{version: 1}"}, "the chart cannot add them"),
    "routes that are indented": ({"routes": "  version: 1\n"}, "the chart cannot add them"),
    "routes that have an end": ({"routes": "version: 1\n...\n"}, "the chart cannot add them"),
    "routes that are no YAML": ({"routes": "version: ["}, "`routes` is not YAML"),
    "an unknown value": ({"replicas": 2}, "replicas"),
    "a wrong type": ({"workers": "many"}, "workers"),
    "a Secret written out": ({"secrets": [{"GATEWAY_KEY": "x"}]}, "secrets"),
}  # fmt: skip


@cache
def refused() -> Mapping[str, Rendered]:
    return dict(zip(REFUSED, helm(*(values for values, _ in REFUSED.values())), strict=True))


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_work_is_refused_and_why(name: str) -> None:
    assert REFUSED[name][1] in refused()[name].error
    assert refused()[name].manifests == []


def test_one_pod_with_more_workers_is_not() -> None:
    (given,) = helm({"workers": 4})
    assert given.error == ""


# What is written down of it


def test_the_readme_is_made_from_the_values() -> None:
    assert readme.main(["--check"]) == 0


def test_every_value_is_described_and_in_the_schema() -> None:
    values = (CHART / "values.yaml").read_text()
    assert readme.undescribed(values) == []
    planted = values + "planted:\n  # -- Told.\n  told: 1\n  untold: 2\n"
    assert readme.undescribed(planted) == ["planted.untold"]
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(yaml.safe_load(values)) | {"global"} == set(schema["properties"])
    structured = [each for each in schema["properties"].values() if "properties" in each]
    assert [each for each in structured if each["additionalProperties"] is not False] == []


def test_the_chart_is_of_this_gateway() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{about["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()
