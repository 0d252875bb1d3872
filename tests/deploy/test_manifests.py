"""The manifests of `deploy/`: what the scanners say of them, and whether their numbers are ours."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from mcpbridge.config.load import load
from mcpbridge.config.model import PeerService, Settings
from mcpbridge.telemetry.prometheus import GAUGES
from tests.deploy.tools import (
    DEPLOY,
    ROOT,
    SHAPES,
    Document,
    containers,
    deployment,
    documents,
    kustomized,
    of_kind,
    pushed_images,
    run,
    stages,
)

pytestmark = pytest.mark.slow

KUBERNETES = "1.36"
NOT_OURS = {
    "CKV_K8S_15": "the pull policy: Always is for tags that move, and these do not",
    "CKV_K8S_21": "the namespace is that of who applies it",
    "CKV_K8S_43": "the digest of an image that its reader builds is not known here",
    "CKV_DOCKER_3": "the user of sidecar.Dockerfile is that of the image it is built on",
}
"""Checks of checkov that are not obeyed, each for its reason."""
DOCKERFILES = (ROOT / "Dockerfile", DEPLOY / "operator" / "sidecar.Dockerfile")
SETTINGS = Settings()


def rendered(folder: Path) -> list[Path]:
    """Each shape as a separate file, of the kinds that Kubernetes itself knows."""
    files = []
    for shape in (*SHAPES, "replicas"):
        texts = [json.dumps(document) for document in kustomized(DEPLOY / shape)]
        path = folder / f"{shape}.yaml"
        path.write_text("\n---\n".join(texts), "utf-8")
        files.append(path)
    return files


def test_every_manifest_fits_the_schema_of_kubernetes(tmp_path: Path) -> None:
    """`kubernetes-validate --strict`; and it would say so if one did not."""
    done = run("kubernetes-validate", "--strict", "-k", KUBERNETES, *map(str, rendered(tmp_path)))
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in ("service", "deployment", "poddisruptionbudget", "networkpolicy"):
        assert (done.stdout + done.stderr).count(f"resource {kind}/my-server ") == len(SHAPES) + 1
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((tmp_path / "wrap.yaml").read_text().replace("replicas", "replica"), "utf-8")
    assert run("kubernetes-validate", "--strict", "-k", KUBERNETES, str(wrong)).returncode != 0


@pytest.mark.parametrize("shape", SHAPES)
def test_two_values_make_a_shape_the_readers_own(shape: str, tmp_path: Path) -> None:
    """`name` and `image` in settings.yaml; nothing keeps the name of the example."""
    copy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, copy)
    settings = copy / shape / "settings.yaml"
    text = settings.read_text("utf-8").replace("name: my-server", "name: weather")
    settings.write_text(re.sub("image: .*", "image: example.org/weather:7", text), "utf-8")
    found = kustomized(copy / shape)
    assert {document["metadata"]["name"] for document in found} == {"weather"}
    assert "my-server" not in json.dumps(found)
    (workload,) = of_kind("Deployment", found)
    (server,) = (each for each in containers(workload) if each["name"] == "server")
    assert server["image"] == "example.org/weather:7"


def test_the_name_of_the_server_is_that_of_all_that_replicas_have(tmp_path: Path) -> None:
    """Two values of another folder are enough, and the Secret and the peers follow them."""
    copy = tmp_path / "deploy"
    shutil.copytree(DEPLOY, copy)
    settings = copy / "wrap" / "settings.yaml"
    text = settings.read_text("utf-8").replace("name: my-server", "name: weather")
    settings.write_text(re.sub("image: .*", "image: example.org/weather:7", text), "utf-8")
    found = kustomized(copy / "replicas")
    assert {document["metadata"]["name"] for document in found} == {"weather", "weather-peers"}
    assert "my-server" not in json.dumps(found)


def test_replicas_find_each_other_and_others_do_not(tmp_path: Path) -> None:
    """The peer port is that of the program, its Service has no address, and pods alone may call."""
    found = kustomized(DEPLOY / "replicas")
    (workload,) = of_kind("Deployment", found)
    (bridge,) = workload["spec"]["template"]["spec"]["containers"]
    labels = workload["spec"]["selector"]["matchLabels"]
    env = {each["name"]: each for each in bridge["env"]}
    (headless,) = (each for each in of_kind("Service", found) if "clusterIP" in each["spec"])
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["publishNotReadyAddresses"] is True
    assert headless["spec"]["selector"] == labels
    assert env["MCPBRIDGE_PEERS"]["value"] == headless["metadata"]["name"]
    (policy,) = of_kind("NetworkPolicy", found)
    assert policy["spec"]["ingress"][-1] == {
        "from": [{"podSelector": {"matchLabels": labels}}],
        "ports": [{"port": "peer"}],
    }
    (scaler,) = of_kind("HorizontalPodAutoscaler", found)
    assert scaler["spec"]["minReplicas"] == 2
    assert "replicas" not in workload["spec"]
    names = {each["pods"]["metric"]["name"] for each in scaler["spec"]["metrics"] if "pods" in each}
    assert names <= {f"mcpbridge_{gauge}" for gauge in GAUGES}
    # What the program itself makes of the variables, with the mounted key in its place.
    key = tmp_path / "key"
    key.write_text("k" * 40, "utf-8")
    assert env["MCPBRIDGE_STATE_KEY_FILE"]["value"] == f"{_mounted(bridge, 'state-key')}/key"
    given = {name: each["value"] for name, each in env.items() if "value" in each}
    settings = load({}, ["server"], {**given, "MCPBRIDGE_STATE_KEY_FILE": str(key)}).settings
    (port,) = (each["containerPort"] for each in bridge["ports"] if each["name"] == "peer")
    assert settings.replicas.peers == PeerService(headless["metadata"]["name"], port)
    assert headless["spec"]["ports"][0]["port"] == port


def _mounted(container: Document, volume: str) -> str:
    (mount,) = (each for each in container["volumeMounts"] if each["name"] == volume)
    path: str = mount["mountPath"]
    return path


def test_checkov_finds_nothing(tmp_path: Path) -> None:
    """But for what has its reason in `NOT_OURS`, and each of those is used."""
    files = [*rendered(tmp_path), *DOCKERFILES]
    done = run(
        "checkov",
        *("--framework", "kubernetes", "dockerfile"),
        *("--compact", "--skip-download", "-o", "json", "-f"),
        *map(str, files),
    )
    reports = json.loads(done.stdout)
    found = {
        failed["check_id"]: f"{failed['file_path']}: {failed['check_name']}"
        for report in reports
        for failed in report["results"]["failed_checks"]
    }
    assert {report["check_type"] for report in reports} == {"kubernetes", "dockerfile"}
    assert sum(report["summary"]["passed"] for report in reports) > 300
    assert sum(report["summary"]["parsing_errors"] for report in reports) == 0
    assert {check: text for check, text in found.items() if check not in NOT_OURS} == {}
    assert set(NOT_OURS) <= set(found)


def test_hadolint_finds_nothing_in_dockerfiles() -> None:
    """Ours; those of the documentation have their own test."""
    done = run("hadolint", "--no-color", *map(str, DOCKERFILES))
    assert (done.returncode, done.stdout) == (0, "")


def test_every_file_belongs_to_a_kustomization_or_is_looked_at_by_name() -> None:
    """Everything in `deploy/` is checked."""
    by_plan = {
        (path.parent / name).resolve()
        for path in DEPLOY.rglob("kustomization.yaml")
        for name in [
            line.strip().removeprefix("- ") for line in path.read_text("utf-8").splitlines()
        ]
    }
    # `helm lint` and test_chart.py look at the chart.
    chart = {path for path in (DEPLOY / "chart").rglob("*") if path.is_file()}
    others = {path for path in DEPLOY.rglob("*") if path.is_file()} - by_plan - chart
    names = {str(path.relative_to(DEPLOY)) for path in others}
    folders = (*SHAPES, "common", "monitoring", "replicas")
    names -= {f"{folder}/kustomization.yaml" for folder in folders}
    # A patch is named by its path.
    names -= {f"replicas/{patch}.yaml" for patch in ("deployment", "networkpolicy")}
    shapes = ("wrap", "sidecar", "kmcp", "toolhive")
    operators = {f"operator/{shape}.yaml" for shape in shapes}
    assert names == operators | {"operator/sidecar.Dockerfile", "compose.yaml"}


def test_the_compose_file_runs_the_image_as_the_guide_does() -> None:
    """Confined, on loopback, with the health check of the image and the grace of the program."""
    (found,) = documents(DEPLOY / "compose.yaml")
    (service,) = found["services"].values()
    assert service["ports"] == [f"127.0.0.1:{SETTINGS.listen.port}:{SETTINGS.listen.port}"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    grace_s = service["environment"]["TERMINATION_GRACE_PERIOD_SECONDS"]
    assert service["stop_grace_period"] == f"{grace_s}s"
    (check,) = set(re.findall(r"^HEALTHCHECK (.*)$", (ROOT / "Dockerfile").read_text(), re.M))
    own = service["healthcheck"]
    words = json.dumps(own["test"][1:])
    assert check == (
        f"--interval={own['interval']} --timeout={own['timeout']}"
        f" --start-period={own['start_period']} --retries={own['retries']} CMD {words}"
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_the_times_are_those_of_the_program(shape: str) -> None:
    """The grace is --grace; the start may take as long as --start-timeout, and a probe in time."""
    pod = deployment(shape)["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == SETTINGS.shutdown.grace_s == 30
    (bridge,) = pod["containers"]
    start = bridge["startupProbe"]
    assert (
        start["periodSeconds"] * start["failureThreshold"]
        >= 2 * SETTINGS.child_pool.start_timeout_s
    )
    assert "lifecycle" not in bridge, "a preStop hook takes its time from the grace"
    ready = bridge["readinessProbe"]
    # The lame duck is to outlast what it takes until the pod is seen as not ready.
    assert ready["periodSeconds"] <= 5


@pytest.mark.parametrize("shape", SHAPES)
def test_the_ports_are_those_that_the_program_binds(shape: str) -> None:
    """MCP on the default port, probes and metrics on the one that the variable says."""
    found = kustomized(DEPLOY / shape)
    (bridge,) = deployment(shape)["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in bridge["ports"]}
    (variable,) = bridge["env"]
    assert variable == {"name": "MCPBRIDGE_ADMIN_PORT", "value": str(ports["admin"])}
    assert ports["mcp"] == SETTINGS.listen.port
    for probe, path in (("startup", "startupz"), ("readiness", "readyz"), ("liveness", "livez")):
        assert bridge[f"{probe}Probe"]["httpGet"] == {"path": f"/{path}", "port": "admin"}
    (service,) = of_kind("Service", found)
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(ports)
    assert {port["port"] for port in service["spec"]["ports"]} == set(ports.values())
    (policy,) = of_kind("NetworkPolicy", found)
    admitted = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert admitted == set(ports)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_objects_select_the_pods(shape: str) -> None:
    """Service, budget, policy and Deployment name the same label."""
    found = kustomized(DEPLOY / shape)
    workload = deployment(shape)
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == labels
    (service,), (budget,) = of_kind("Service", found), of_kind("PodDisruptionBudget", found)
    (policy,) = of_kind("NetworkPolicy", found)
    assert service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert policy["spec"]["podSelector"]["matchLabels"] == labels


@pytest.mark.parametrize("shape", SHAPES)
def test_every_container_is_restricted_and_bounded(shape: str) -> None:
    """The restricted Pod Security Standard; 64Mi/100m asked, 256Mi/500m at most."""
    workload = deployment(shape)
    pod = workload["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(workload):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        passing = container["name"] == "bring-mcpbridge"
        assert passing or container["resources"] == {
            "requests": {"cpu": "100m", "memory": "64Mi"},
            "limits": {"cpu": "500m", "memory": "256Mi"},
        }
        assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("shape", SHAPES)
def test_images_are_ours_or_the_readers(shape: str) -> None:
    """Ours are pushed by the release of this version; no image is without a tag."""
    for container in containers(deployment(shape)):
        name, _, tag = container["image"].partition(":")
        assert tag
        readers = name in ("my-server", "my-node-server")
        assert readers or container["image"] in pushed_images().values()


def test_what_is_copied_is_mounted_where_it_is_executed() -> None:
    """The folder of `copy-self` is the volume that the server's container begins with."""
    for shape in ("copy-in", "sidecar"):
        bring, server, *_ = containers(deployment(shape))
        assert bring["image"] == pushed_images()["tree"]
        assert stages()["tree"]["entrypoint"][0] == server["command"][0]
        volume, folder = bring["volumeMounts"][0]["name"], bring["args"][1]
        assert bring["args"][0] == "copy-self"
        assert bring["volumeMounts"] == [{"name": volume, "mountPath": folder}]
        mounts = {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]}
        assert server["command"][0] == f"{mounts[volume]}/bin/mcpbridge"


def test_both_ends_of_the_socket_are_in_one_volume() -> None:
    """The shim is a native sidecar, and listens where the bridge connects."""
    _, server, bridge = containers(deployment("sidecar"))
    assert server["restartPolicy"] == "Always"
    listen, connect = _after("--listen", server["command"]), _after("--connect", bridge["args"])
    assert listen == connect
    assert server["startupProbe"]["exec"]["command"][-2:] == ["health", listen]
    folder = str(Path(listen.removeprefix("unix:")).parent)
    for container in (server, bridge):
        assert {"name": "socket", "mountPath": folder} in container["volumeMounts"]


def _after(flag: str, words: list[str]) -> str:
    return words[words.index(flag) + 1]
