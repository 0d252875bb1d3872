"""The fields of custom resources that our manifests may use; any other is refused.

What the MCP Operator's `v1`, kmcp and ToolHive take, if our manifests could need it, and the
Prometheus Operator's ServiceMonitor. An API server refuses unknown fields under strict validation
and drops them otherwise, so a misspelt field would do nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=1, le=65535)]
# By tag only: no digest, and a registry's port does not fit either.
Image = Annotated[
    str, Meta(pattern=r"^[a-z0-9._-]+(/[a-z0-9._-]+)*(:[A-Za-z0-9][A-Za-z0-9._-]*)?$")
]
Quantity = Annotated[str, Meta(pattern=r"^[0-9]+(m|Mi|Gi)?$")]
Duration = Annotated[str, Meta(pattern=r"^[0-9]+(s|m|h)$")]


class _Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Knows its fields and no others."""


class Metadata(_Strict):
    """Of any object."""

    name: str
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Http(_Strict):
    """`spec.transport.config.http`."""

    port: Port = 8080
    path: str = ""


class TransportConfig(_Strict):
    """`spec.transport.config`."""

    http: Http


class Transport(_Strict):
    """`spec.transport`; a stdio type does not exist."""

    config: TransportConfig
    type: Literal["http"] = "http"
    protocol: Literal["auto", "streamable-http", "sse"] = "auto"


class HealthCheck(_Strict):
    """`spec.healthCheck`: one path for liveness and readiness."""

    enabled: bool = True
    path: str = "/health"
    port: Port | None = None


class Resources(_Strict):
    """Requests and limits."""

    requests: dict[Literal["cpu", "memory"], Quantity]
    limits: dict[Literal["cpu", "memory"], Quantity]


class Security(_Strict):
    """`spec.security`."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None


class PodTemplate(_Strict):
    """`spec.podTemplate`; neither lifecycle hooks nor init containers."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    volumes: list[dict[str, Any]] = []
    volume_mounts: list[dict[str, Any]] = []


class Metrics(_Strict):
    """`spec.metrics`: whether there is a metrics sidecar."""

    enabled: bool
    port: Port = 9090


class Sidecar(_Strict):
    """`spec.sidecar`: what runs in its place."""

    image: Image
    resources: Resources | None = None


class McpServerSpec(_Strict):
    """`spec`."""

    image: Image
    command: list[str] = []
    args: list[str] = []
    replicas: Annotated[int, Meta(ge=0)] = 1
    environment: list[dict[str, Any]] = []
    transport: Transport | None = None
    health_check: HealthCheck | None = None
    resources: Resources | None = None
    security: Security | None = None
    pod_template: PodTemplate | None = None
    metrics: Metrics | None = None
    sidecar: Sidecar | None = None


class McpServer(_Strict):
    """An MCPServer; `v1` is the only version that is served."""

    api_version: Literal["mcp.mcp-operator.io/v1"]
    kind: Literal["MCPServer"]
    metadata: Metadata
    spec: McpServerSpec


class KmcpHttp(_Strict):
    """`spec.httpTransport` of kmcp: the port and the path that its Service and its clients use."""

    target_port: Port
    path: str


class KmcpDeployment(_Strict):
    """`spec.deployment` of kmcp."""

    image: str
    port: Port = 3000
    cmd: str = ""
    args: list[str] = []
    env: dict[str, str] = {}


class KmcpServerSpec(_Strict):
    """`spec` of kmcp."""

    deployment: KmcpDeployment
    http_transport: KmcpHttp
    transport_type: Literal["http"]


class KmcpServer(_Strict):
    """An MCPServer of kmcp, in front of a server that speaks HTTP."""

    api_version: Literal["kagent.dev/v1alpha1"]
    kind: Literal["MCPServer"]
    metadata: Metadata
    spec: KmcpServerSpec


class ToolHiveServerSpec(_Strict):
    """`spec` of ToolHive."""

    image: str
    transport: Literal["streamable-http", "sse"]
    mcp_port: Port
    proxy_port: Port = 8080
    args: list[str] = []
    env: list[dict[str, str]] = []


class ToolHiveServer(_Strict):
    """An MCPServer of ToolHive, in front of a server that speaks HTTP."""

    api_version: Literal["toolhive.stacklok.dev/v1alpha1"]
    kind: Literal["MCPServer"]
    metadata: Metadata
    spec: ToolHiveServerSpec


class LabelSelector(_Strict):
    """Objects by their labels."""

    match_labels: dict[str, str]


class ScrapeEndpoint(_Strict):
    """One port of each pod of a Service, by the port's name in the Service."""

    port: str
    path: Literal["/metrics"]
    interval: Duration
    scrape_timeout: Duration


class ServiceMonitorSpec(_Strict):
    """`spec`."""

    selector: LabelSelector
    endpoints: list[ScrapeEndpoint]


class ServiceMonitor(_Strict):
    """A ServiceMonitor of the Prometheus Operator."""

    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["ServiceMonitor"]
    metadata: Metadata
    spec: ServiceMonitorSpec
