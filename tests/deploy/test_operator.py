"""The MCPServers of `deploy/operator` fit the operator's schema and the pod it makes of them."""

from __future__ import annotations

import copy
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from mcpbridge.cli import sidecar
from mcpbridge.config.load import load
from mcpbridge.config.model import Settings
from tests.deploy.crds import KmcpServer, McpServer, ServiceMonitor, ToolHiveServer
from tests.deploy.tools import (
    DEPLOY,
    Document,
    documents,
    kustomized,
    of_kind,
    pushed_images,
    stages,
)
from tests.support.proofs import proves

SIDECAR_FLAGS = (
    "--target-addr=localhost:8000",
    "--listen-addr=:8080",
    "--metrics-addr=:9090",
    "--log-level=info",
)
"""What the operator starts the image of `spec.sidecar` with."""


def server(name: str) -> Document:
    """The one MCPServer in a file, to be changed."""
    (found,) = documents(DEPLOY / "operator" / f"{name}.yaml")
    return copy.deepcopy(found)


@pytest.mark.parametrize("name", ["wrap", "sidecar"])
def test_it_fits_the_operators_schema(name: str) -> None:
    """`v1`, no unknown field, images by tag."""
    read = msgspec.convert(server(name), McpServer)
    assert read.spec.transport is not None
    assert read.spec.health_check is not None
    http = read.spec.transport.config.http
    assert http.port == read.spec.health_check.port == Settings().listen.port
    assert http.path == Settings().listen.path
    assert read.spec.health_check.path == "/health"


def test_the_manifests_of_other_operators_fit_their_schemas() -> None:
    """kmcp and ToolHive: the port and the path are those that the program serves."""
    kmcp = msgspec.convert(server("kmcp"), KmcpServer).spec
    listen = Settings().listen
    assert (kmcp.http_transport.target_port, kmcp.deployment.port) == (listen.port, listen.port)
    assert kmcp.http_transport.path == listen.path
    assert msgspec.convert(server("toolhive"), ToolHiveServer).spec.mcp_port == listen.port
    for name, kind in (("kmcp", KmcpServer), ("toolhive", ToolHiveServer)):
        wrong = server(name)
        wrong["spec"]["port"] = 8000
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.convert(wrong, kind)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"apiVersion": "mcp.mcp-operator.io/v1alpha1"}, "apiVersion"),
        ({"spec.probes": {"readiness": {}}}, "probes"),
        ({"spec.transport.port": 8000}, "port"),
        ({"spec.transport.type": "stdio"}, "type"),
        ({"spec.transport.protocol": "stdio"}, "protocol"),
        ({"spec.image": "registry.example.org:5000/my-server:1"}, "image"),
        ({"spec.image": "my-server@sha256:" + "0" * 64}, "image"),
        ({"spec.lifecycle": {}}, "lifecycle"),
        ({"spec.podTemplate.initContainers": []}, "initContainers"),
        ({"spec.terminationGracePeriodSeconds": 60}, "terminationGracePeriodSeconds"),
    ],
)
def test_what_older_guides_print_is_refused(change: dict[str, Any], said: str) -> None:
    """The schema does not drop anything."""
    wrong = server("sidecar")
    for path, value in change.items():
        *folders, last = path.split(".")
        inner = wrong
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = value
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(wrong, McpServer)


@proves("O10")
def test_the_command_that_results_is_one_the_program_takes() -> None:
    """With what the operator puts into its environment: the port and path it asks."""
    injected = {"MCP_TRANSPORT": "http", "MCP_HTTP_PATH": "/mcp", "KUBERNETES_SERVICE_HOST": "::1"}
    for name in ("wrap", "sidecar"):
        spec = msgspec.convert(server(name), McpServer).spec
        assert spec.transport is not None
        variables = {each["name"]: each["value"] for each in spec.environment}
        config = load({}, ["python", "server.py"], {**injected, **variables})
        assert spec.transport.config.http.port == config.bind.port
        assert spec.transport.config.http.path == config.settings.listen.path
        assert config.bind.host == "0.0.0.0"
        # The operator's grace is 30 s and cannot be changed.
        assert config.settings.shutdown.grace_s <= 30


def test_the_ports_of_one_pod_are_three() -> None:
    """The metrics sidecar's two and the server's: in a pod ports are shared."""
    spec = msgspec.convert(server("sidecar"), McpServer).spec
    assert spec.transport is not None
    assert spec.metrics is not None
    assert spec.metrics.enabled
    flags = dict(flag.split("=") for flag in SIDECAR_FLAGS)
    assert flags["--target-addr"] == f"localhost:{spec.transport.config.http.port}"
    ports = [spec.transport.config.http.port, spec.metrics.port, 8080]
    assert flags["--metrics-addr"] == f":{spec.metrics.port}"
    assert len(set(ports)) == 3


def test_the_sidecars_image_takes_the_operators_flags() -> None:
    """Its entry point names the command, since the operator gives flags alone."""
    text = (DEPLOY / "operator" / "sidecar.Dockerfile").read_text("utf-8")
    base = re.search(r"^FROM (\S+)$", text, re.M)
    entry = re.search(r"^ENTRYPOINT (.*)$", text, re.M)
    check = re.search(r"^HEALTHCHECK .* CMD (.*)$", text, re.M)
    assert base is not None
    assert entry is not None
    assert check is not None
    assert base[1] == pushed_images()["slim"]
    program = stages()["slim"]["entrypoint"]
    assert json.loads(entry[1]) == [*program, "sidecar"]
    spec = msgspec.convert(server("sidecar"), McpServer).spec
    assert spec.metrics is not None
    health = f"http://127.0.0.1:{spec.metrics.port}/healthz"
    assert json.loads(check[1]) == [*program, "health", health]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    command = sidecar.program([])  # it holds signals until it can hear them
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    with click.Context(command) as context:
        assert command.parse_args(context, list(SIDECAR_FLAGS)) == []
        assert context.args == []


@pytest.mark.parametrize("folder", ["wrap", "copy-in", "sidecar", "replicas"])
def test_the_service_monitor_finds_the_service(folder: str, tmp_path: Path) -> None:
    """Also that of a renamed server, by its label and the name of its port, and no other Service.

    Prometheus' namespace is the one that is let in.
    """
    renamed = tmp_path / "deploy"
    shutil.copytree(DEPLOY, renamed)
    settings = renamed / ("wrap" if folder == "replicas" else folder) / "settings.yaml"
    settings.write_text(settings.read_text("utf-8").replace("my-server", "weather"), "utf-8")
    (found,) = of_kind("ServiceMonitor", kustomized(DEPLOY / "monitoring"))
    monitor = msgspec.convert(found, ServiceMonitor)
    wanted = monitor.spec.selector.match_labels.items()
    common = kustomized(renamed / folder)
    services, (policy,) = of_kind("Service", common), of_kind("NetworkPolicy", common)
    (service,) = (each for each in services if wanted <= each["metadata"]["labels"].items())
    assert service["metadata"]["name"] == "weather"
    (endpoint,) = monitor.spec.endpoints
    assert endpoint.port in {port["name"] for port in service["spec"]["ports"]}
    (metrics,) = [rule for rule in policy["spec"]["ingress"] if {"port": "admin"} in rule["ports"]]
    assert "namespaceSelector" in metrics["from"][0]
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({**found, "spec": {**found["spec"], "endpoint": []}}, ServiceMonitor)
