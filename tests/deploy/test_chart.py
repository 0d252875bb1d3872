"""The Helm chart: what it renders for each shape, and what it refuses."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

import pytest

from mcpbridge import __version__
from mcpbridge.config.load import load
from mcpbridge.config.model import options
from scripts.release import dated_chart
from tests.deploy.tools import (
    DEPLOY,
    SHAPES,
    Document,
    containers,
    deployment,
    documents_in,
    kustomized,
    of_kind,
    pushed_images,
    run,
)

pytestmark = pytest.mark.slow

CHART = DEPLOY / "chart"
KUBERNETES = "1.36"
ALL_VALUES = {
    "server": {
        "image": "example.org/weather:7",
        "command": ["node", "/srv/index.js"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    },
    "bridge": {
        "settings": {"isolation": "shared", "max-children": 3},
        "env": [{"name": "MCPBRIDGE_MAX_SESSIONS", "value": "50"}],
        "volumeMounts": [{"name": "tls", "mountPath": "/run/tls", "readOnly": True}],
        "path": "/tools",
    },
    "auth": {
        "tokenSecret": {"name": "tokens"},
        "oauth": {
            "issuer": "https://issuer.example.org",
            "audience": "https://weather.example.org",
        },
        "required": True,
    },
    "autoscaling": {"enabled": True},
    "peers": {"enabled": True, "stateKeySecret": {"name": "state"}, "port": 8002},
    "monitoring": {"serviceMonitor": {"enabled": True}},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"a": "b"},
        "host": "weather.example.org",
        "tlsSecret": "weather-tls",
    },
    "writableFolders": ["/tmp"],
    "volumes": [
        {"name": "data", "emptyDir": {}},
        {"name": "tls", "secret": {"secretName": "tls"}},
    ],
    "serviceAccountName": "weather",
    "podLabels": {"c": "d"},
    "terminationGracePeriodSeconds": 60,
    "podAnnotations": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "imagePullSecrets": [{"name": "pull"}],
}
"""A value for everything that can be set."""
LEAST: Document = {"server": {"image": "example.org/weather:7", "command": ["python", "server.py"]}}


def template(values: Document, folder: Path) -> subprocess.CompletedProcess[str]:
    """Render the chart as a release `weather`."""
    file = folder / "values.json"
    file.write_text(json.dumps(values), "utf-8")
    return run("helm", "template", "weather", str(CHART), "--values", str(file))


@functools.cache
def _text(shape: str, folder: Path, *, everything: bool) -> str:
    done = template({"shape": shape, **(ALL_VALUES if everything else LEAST)}, folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_rendered_fits_the_schema_of_kubernetes(
    shape: str, everything: bool, tmp_path: Path
) -> None:
    """Every object but the ServiceMonitor, which is not of Kubernetes itself."""
    found = documents_in(_text(shape, tmp_path, everything=everything))
    kinds = {each["kind"] for each in found}
    optional = {"HorizontalPodAutoscaler", "Ingress", "ServiceMonitor"} if everything else set()
    assert kinds == {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} | optional
    peers = {"weather-peers"} if everything else set()
    assert {each["metadata"]["name"] for each in found} == {"weather"} | peers
    own = [json.dumps(each) for each in found if each["kind"] != "ServiceMonitor"]
    file = tmp_path / "rendered.yaml"
    file.write_text("\n---\n".join(own), "utf-8")
    done = run("kubernetes-validate", "--strict", "-k", KUBERNETES, str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed for resource ") == len(own)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pod_of_the_chart_is_one_of_the_manifests(shape: str, tmp_path: Path) -> None:
    """Probes, ports, rights and resources are the same as in `deploy/`."""
    (ours,) = of_kind("Deployment", documents_in(_text(shape, tmp_path, everything=False)))
    theirs = deployment(shape)
    for own, other in zip(containers(ours), containers(theirs), strict=True):
        for key in ("ports", "startupProbe", "readinessProbe", "livenessProbe", "resources",
                    "securityContext", "volumeMounts", "restartPolicy"):  # fmt: skip
            assert own.get(key) == other.get(key), key
    for key in ("securityContext", "terminationGracePeriodSeconds", "enableServiceLinks"):
        own_pod, other_pod = (each["spec"]["template"]["spec"] for each in (ours, theirs))
        assert own_pod[key] == other_pod[key]
    assert ours["spec"]["strategy"] == theirs["spec"]["strategy"]


@pytest.mark.parametrize("shape", ["copy-in", "sidecar"])
def test_images_are_those_of_the_release_unless_the_values_say_otherwise(
    shape: str, tmp_path: Path
) -> None:
    """Of one repository, in the version of the chart; or others, all by one value or one by one."""

    def images(**bridge: str) -> set[str]:
        done = template({**LEAST, "shape": shape, "bridge": bridge}, tmp_path)
        assert done.returncode == 0, done.stderr
        (found,) = of_kind("Deployment", documents_in(done.stdout))
        return {each["image"] for each in containers(found)} - {LEAST["server"]["image"]}

    targets = ["tree"] if shape == "copy-in" else ["tree", "slim"]
    assert images() == {pushed_images()[target] for target in targets}
    mirrored = {f"mirror.example.org:5000/bridge:9.8.7-{target}" for target in targets}
    assert images(repository="mirror.example.org:5000/bridge", version="9.8.7") == mirrored
    own = {"tree": "example.org/tree@sha256:0", "slim": "example.org/slim:1"}
    assert images(image=own["slim"], treeImage=own["tree"]) == {own[each] for each in targets}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_program_takes_every_setting_of_a_pod(shape: str, tmp_path: Path) -> None:
    """The variables are read as the values say; a value of the reader wins over the chart's."""
    (found,) = of_kind("Deployment", documents_in(_text(shape, tmp_path, everything=True)))
    served = found["spec"]["template"]["spec"]["containers"][0]
    env = {each["name"]: each["value"] for each in served["env"] if "value" in each}
    tokens = tmp_path / "tokens"
    tokens.write_text("x" * 40, "utf-8")
    assert env.pop("MCPBRIDGE_AUTH_TOKEN_FILE") == "/run/secrets/mcpbridge/tokens"
    (mount,) = (each for each in served["volumeMounts"] if each["name"] == "tokens")
    assert mount["mountPath"] == "/run/secrets/mcpbridge"
    assert env["MCPBRIDGE_STATE_KEY_FILE"] == "/run/secrets/mcpbridge-state/key"
    (mount,) = (each for each in served["volumeMounts"] if each["name"] == "state-key")
    assert mount["mountPath"] == "/run/secrets/mcpbridge-state"
    env["MCPBRIDGE_STATE_KEY_FILE"] = str(tokens)
    config = load({"--auth-token-file": [str(tokens)]}, ["python"], env)
    settings = config.settings
    assert settings.listen.path == "/tools"
    assert settings.child_pool.isolation.value == "shared"
    assert settings.child_pool.max_children == 3
    assert settings.shutdown.grace_s == 60
    assert settings.oauth.issuer == "https://issuer.example.org"
    assert settings.auth.require
    assert settings.sessions.max_sessions == 50
    assert settings.guard.allowed_hosts == ("weather.example.org",)
    names = {option.setting.flag for option in options()}
    words = [*served.get("args", [])]
    assert {word for word in words if word.startswith("--") and word != "--"} <= names


@pytest.mark.parametrize("shape", SHAPES)
def test_a_volume_is_where_its_mount_says(shape: str, tmp_path: Path) -> None:
    """Files of mcpbridge in the container that serves, those of the server in its own."""
    (found,) = of_kind("Deployment", documents_in(_text(shape, tmp_path, everything=True)))
    pod = found["spec"]["template"]["spec"]
    mounts = {
        each["name"]: {mount["name"] for mount in each.get("volumeMounts", ())}
        for each in containers(found)
    }
    serving = "mcpbridge" if shape == "sidecar" else "server"
    assert [name for name, has in mounts.items() if "tls" in has] == [serving]
    assert [name for name, has in mounts.items() if "data" in has] == ["server"]
    assert {name for has in mounts.values() for name in has} <= {
        each["name"] for each in pod["volumes"]
    }
    assert pod["serviceAccountName"] == "weather"
    assert found["spec"]["template"]["metadata"]["labels"]["c"] == "d"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_ingress_leads_to_the_mcp_port(shape: str, tmp_path: Path) -> None:
    """By the name of the Service and of its port, with the certificate of the host."""
    found = documents_in(_text(shape, tmp_path, everything=True))
    (ingress,) = of_kind("Ingress", found)
    (rule,) = ingress["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    (service,) = (each for each in of_kind("Service", found) if "clusterIP" not in each["spec"])
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    assert ingress["spec"]["tls"] == [{"hosts": [rule["host"]], "secretName": "weather-tls"}]


@pytest.mark.parametrize("shape", SHAPES)
def test_peers_are_what_the_manifests_of_replicas_have(shape: str, tmp_path: Path) -> None:
    """Service, policy, autoscaler, port, variables and volume, under the names of the release."""
    values = {
        **LEAST,
        "shape": shape,
        "peers": {"enabled": True, "stateKeySecret": {"name": "weather"}},
        "autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 8},
    }
    done = template(values, tmp_path)
    assert done.returncode == 0, done.stderr
    ours, theirs = documents_in(done.stdout), kustomized(DEPLOY / "replicas")

    def of_peers(found: tuple[Document, ...]) -> dict[str, object]:
        (headless,) = (
            each["spec"] for each in of_kind("Service", found) if each["spec"].get("clusterIP")
        )
        (policy,) = of_kind("NetworkPolicy", found)
        (scaler,) = of_kind("HorizontalPodAutoscaler", found)
        (workload,) = of_kind("Deployment", found)
        pod = workload["spec"]["template"]["spec"]
        served = pod["containers"][0]
        env = {each["name"]: each for each in served["env"]}
        return {
            "headless": {**headless, "selector": None},
            "admitted": policy["spec"]["ingress"][-1]["ports"],
            "scaler": {**scaler["spec"], "scaleTargetRef": None},
            "replicas": workload["spec"].get("replicas"),
            "port": [each for each in served["ports"] if each["name"] == "peer"],
            "address": env["POD_IP"],
            "key file": env["MCPBRIDGE_STATE_KEY_FILE"],
            "mount": [each for each in served["volumeMounts"] if each["name"] == "state-key"],
        }

    assert of_peers(ours) == of_peers(theirs)
    (workload,) = of_kind("Deployment", ours)
    labels = workload["spec"]["selector"]["matchLabels"]
    (policy,) = of_kind("NetworkPolicy", ours)
    assert policy["spec"]["ingress"][-1]["from"] == [{"podSelector": {"matchLabels": labels}}]
    pod = workload["spec"]["template"]["spec"]
    env = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert env["MCPBRIDGE_PEERS"] == "weather-peers:8001"
    (volume,) = (each for each in pod["volumes"] if each["name"] == "state-key")
    assert volume["secret"]["secretName"] == "weather"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "/server/image"),
        (
            {"server": {"image": "a"}, "shape": "copy-in"},
            "server.command is needed with shape copy-in",
        ),
        ({"server": {"image": "a"}, "shape": "other"}, "/shape"),
        ({"server": {"image": "a"}, "replica": 2}, "replica"),
        ({"server": {"image": "a"}, "peers": {"enabled": True}}, "peers.stateKeySecret.name"),
        ({"server": {"image": "a"}, "ingress": {"enabled": True}}, "ingress.host is needed"),
        ({"server": {"image": "a"}, "volumes": [{}]}, "/volumes/0"),
        ({"server": {"image": "a"}, "bridge": {"repository": ""}}, "/bridge/repository"),
        ({"server": {"image": "a"}, "bridge": {"version": "1:2"}}, "/bridge/version"),
        ({"server": {"image": "a"}, "terminationGracePeriodSeconds": 1}, "minimum"),
    ],
)
def test_wrong_values_are_refused_with_what_is_wrong(
    values: Document, problem: str, tmp_path: Path
) -> None:
    """By the schema, or by the template."""
    done = template(values, tmp_path)
    assert done.returncode != 0
    assert problem in done.stderr


def test_the_chart_passes_lint_and_names_this_version() -> None:
    """`helm lint`; version and appVersion are the program's."""
    done = run("helm", "lint", str(CHART), "--set", "server.image=a:1", "--strict")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (CHART / "Chart.yaml").read_text("utf-8")
    assert text == dated_chart(text, __version__)
    (chart,) = documents_in(text)
    assert chart["version"] == chart["appVersion"]
