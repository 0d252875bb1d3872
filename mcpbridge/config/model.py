"""Defines all settings, composed of the structs of the modules that obey them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from mcpbridge.bridge.calls.replay import StreamLimits
from mcpbridge.bridge.children.call_limiter import LoadLimits
from mcpbridge.bridge.children.child_pool import ChildPoolSettings
from mcpbridge.bridge.children.server_eras import EraSettings
from mcpbridge.bridge.keyring import KeyFile, Keyring
from mcpbridge.bridge.legacy.session_table import CallLimits, SessionSettings
from mcpbridge.bridge.modern.emulation import ParkSettings
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.config.command import CommandSettings, ServersSettings
from mcpbridge.config.self_url import DEFAULT_PORT
from mcpbridge.errors import ConfigError
from mcpbridge.http.auth.authenticator import AuthSettings
from mcpbridge.http.auth.oauth import OAuthSettings
from mcpbridge.http.keepalive import KeepAliveSettings
from mcpbridge.http.origin_check import OriginSettings
from mcpbridge.http.request_metrics import METRICS_PATH
from mcpbridge.http.server.limits import ArrivalLimits, ConnectionLimits
from mcpbridge.http.server.listeners import Bind
from mcpbridge.http.server.tls import TlsSettings
from mcpbridge.http.transports.legacy import AnswerSettings
from mcpbridge.http.transports.sse import ProxySettings
from mcpbridge.process.spec import ChildSpec
from mcpbridge.rules.access.static_tokens import TokenTable
from mcpbridge.rules.access.tool_policy import ToolPolicy
from mcpbridge.rules.homes.on_owner_lost import OnOwnerLost
from mcpbridge.rules.supervision.liveness import RecyclePolicy
from mcpbridge.rules.supervision.restart import RestartPolicy
from mcpbridge.settings import Setting, SettingsSection, Unit, setting
from mcpbridge.telemetry.logs import LogSettings
from mcpbridge.telemetry.tracer import TraceSettings
from mcpbridge.wire.socket_address import Address

if TYPE_CHECKING:
    from mcpbridge.config.remote_server import RemoteServer
    from mcpbridge.stores.url import StoreUrl

_MCP_PATH = "/mcp"
PEER_PORT = 8001
_PEERS = r"(?P<name>[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?)(?::(?P<port>[0-9]{1,5}))?\Z"
_MAX_PORT = 65535
_PROBES = ("/livez", "/readyz", "/startupz", "/health", "/healthz")


def mcp_path(text: str) -> str:
    """Return the path of the MCP endpoint, with a leading slash, or raise.

    Raises:
        ValueError: The path is invalid or taken; the text completes a sentence about the value.
    """
    path = "/" + text.strip("/")
    if not path.isascii() or not path.isprintable() or any(mark in path for mark in " ?#%"):
        raise ValueError("is not a path; write one without query and escapes, like /mcp")
    if path in _PROBES:
        raise ValueError("is the path of a health probe")
    if path == METRICS_PATH:
        raise ValueError("is the path of the metrics")
    return path


class ListenSettings(SettingsSection, frozen=True):
    """The address to listen on."""

    listen: str | None = setting(
        None,
        "--listen",
        "Address to listen on; short for --host and --port. Or a unix socket, with permissions 0600"
        " unless mode gives others.",
        group="Listening",
        metavar="HOST:PORT|unix:PATH[,mode=0660]",
    )
    host: str | None = setting(
        None,
        "--host",
        "Address to bind; localhost, which is 127.0.0.1 and ::1, or 0.0.0.0 as a container's main"
        " process or in Kubernetes.",
        group="Listening",
        metavar="ADDRESS",
    )
    port: int = setting(
        DEFAULT_PORT,
        "--port",
        "Port to bind; 0 picks a free one.",
        group="Listening",
        unit=Unit.INTEGER,
        minimum=0,
        also_env=("PORT",),
    )
    path: str = setting(
        _MCP_PATH,
        "--path",
        "Path of the MCP endpoint. With the default `/` is served as well, and HTTP+SSE at `/sse`;"
        " with any other path nothing of MCP but what is below it: HTTP+SSE at PATH/sse.",
        group="Listening",
        metavar="PATH",
        also_env=("MCP_HTTP_PATH",),
        parse=mcp_path,
    )

    @property
    def mcp_paths(self) -> tuple[str, ...]:
        """The paths of Streamable HTTP.

        An operator may choose a path that only some know: then no other one leads to the server.
        """
        # The usual one first: routes are tried in this order.
        return (self.path, "/") if self.path == _MCP_PATH else (self.path,)

    @property
    def sse_below(self) -> str:
        """The path below which HTTP+SSE is served, without a slash at its end."""
        return "" if self.path == _MCP_PATH else self.path.rstrip("/")


class AdminSettings(SettingsSection, frozen=True):
    """Where probes and metrics are served.

    A NetworkPolicy cannot tell paths apart, so they may have a separate port. The probes stay
    on both ports: a load balancer asks for them where MCP is.
    """

    port: int | None = setting(
        None,
        "--admin-port",
        "Port for health probes and `/metrics` alone; without one they are beside the MCP path."
        " 0 picks a free one.",
        group="Listening",
        unit=Unit.INTEGER,
        minimum=0,
    )
    host: str | None = setting(
        None,
        "--admin-host",
        "Address to bind for --admin-port; that of the MCP path if not given.",
        group="Listening",
        metavar="ADDRESS",
    )


class ShutdownSettings(SettingsSection, frozen=True):
    """The timing of the shutdown."""

    grace_s: float = setting(
        30.0,
        "--grace",
        "Time from the first signal until the platform kills; calls in flight finish within it, and"
        " the server ends. 10s as a container's main process outside Kubernetes.",
        group="Shutdown",
        unit=Unit.SECONDS,
        minimum=6.0,
        also_env=("TERMINATION_GRACE_PERIOD_SECONDS",),
    )
    lame_duck_s: float | None = setting(
        None,
        "--lame-duck",
        "Time to serve everything after the first signal, until load balancers have noticed;"
        " 5s in Kubernetes, less with a short --grace, else 0.",
        group="Shutdown",
        unit=Unit.SECONDS,
        minimum=0.0,
    )


class PeerService(msgspec.Struct, frozen=True):
    """The name under which the replicas find each other, and the port of each of them."""

    name: str
    port: int = PEER_PORT


def peer_service(text: str) -> PeerService:
    """Parse `NAME` or `NAME:PORT`.

    Raises:
        ValueError: Another form; the text completes a sentence that begins with the value.
    """
    match = re.match(_PEERS, text.strip())
    if match is None:
        raise ValueError("is not of the form NAME or NAME:PORT")
    port = int(match["port"] or PEER_PORT)
    if not 0 < port <= _MAX_PORT:
        raise ValueError(f"has an invalid port {port} (expected 1-{_MAX_PORT})")
    return PeerService(match["name"], port)


def store_url(text: str) -> StoreUrl:
    """Parse the URL of a store.

    Raises:
        ValueError: It names none; the text is a whole sentence, without the password.
    """
    from mcpbridge.stores.url import parse_store_url  # with --store alone

    return parse_store_url(text.strip())


class ReplicaSettings(SettingsSection, frozen=True):
    """Settings of several processes that serve together."""

    peers: PeerService | None = setting(
        None,
        "--peers",
        "Serve together with other replicas behind one Service: any of them takes any request and"
        " forwards it to the one that has its session. NAME is a headless Service of them all, PORT"
        " where they listen for each other, 8001 by default, at the address in `POD_IP` or at that"
        " of the host name. Needs the same `MCPBRIDGE_STATE_KEY` everywhere.",
        group="Replicas",
        metavar="NAME[:PORT]",
        parse=peer_service,
    )
    store: StoreUrl | None = setting(
        None,
        "--store",
        "With `--peers`: a Redis 7 or Valkey server, redis://HOST[:PORT][/DATABASE], that decides"
        " which replica takes over a session and keeps what changed in it; rediss:// for TLS. Put a"
        " password into `MCPBRIDGE_STORE`, which other users cannot read. While it is away sessions"
        " are served where they are. Needs the extra `redis`.",
        group="Replicas",
        metavar="URL",
        parse=store_url,
        secret=True,
    )
    on_owner_lost: OnOwnerLost = setting(
        OnOwnerLost.RESTART,
        "--on-owner-lost",
        "What becomes of a session that has a process alone, without `--store`, once its replica"
        " could not be reached for 30 s but may live; restart: it begins in another replica, and"
        " the old one ends its copy when it can be told; end: its client begins a new one.",
        group="Replicas",
        choices=tuple(each.value for each in OnOwnerLost),
        parse=OnOwnerLost,
    )
    hold_sessions_s: float = setting(
        0.0,
        "--hold-sessions",
        "With `--peers`: a replica that is told to end keeps sessions that have a process alone for"
        " this long, reached through the others, and hands them over after it. It ends sooner if"
        " they do. Needs a --grace that is longer. 0: they are handed over at once.",
        group="Replicas",
        unit=Unit.SECONDS,
        minimum=0.0,
    )


class Settings(msgspec.Struct, frozen=True):
    """Every setting, grouped by the module that obeys it."""

    command: CommandSettings = CommandSettings()
    servers: ServersSettings = ServersSettings()
    listen: ListenSettings = ListenSettings()
    admin: AdminSettings = AdminSettings()
    tls: TlsSettings = TlsSettings()
    guard: OriginSettings = OriginSettings()
    auth: AuthSettings = AuthSettings()
    oauth: OAuthSettings = OAuthSettings()
    arrival: ArrivalLimits = ArrivalLimits()
    connections: ConnectionLimits = ConnectionLimits()
    answers: AnswerSettings = AnswerSettings()
    keepalive: KeepAliveSettings = KeepAliveSettings()
    proxy: ProxySettings = ProxySettings()
    child_pool: ChildPoolSettings = ChildPoolSettings()
    sessions: SessionSettings = SessionSettings()
    calls: CallLimits = CallLimits()
    parking: ParkSettings = ParkSettings()
    loads: LoadLimits = LoadLimits()
    streams: StreamLimits = StreamLimits()
    eras: EraSettings = EraSettings()
    pipes: PipeLimits = PipeLimits()
    tools: ToolPolicy = ToolPolicy()
    restart: RestartPolicy = RestartPolicy()
    recycling: RecyclePolicy = RecyclePolicy()
    shutdown: ShutdownSettings = ShutdownSettings()
    replicas: ReplicaSettings = ReplicaSettings()
    logs: LogSettings = LogSettings()
    traces: TraceSettings = TraceSettings()


class Otel(msgspec.Struct, frozen=True):
    """The OpenTelemetry signals sent in addition to traces."""

    metrics: bool
    """Send durations of calls and sessions."""


class Config(msgspec.Struct, frozen=True):
    """The complete and checked configuration of the program."""

    settings: Settings
    source: ChildSpec | Address | RemoteServer
    """The command to start, or the address at which another program starts it or serves it."""
    bind: Bind
    admin_bind: Bind | None
    """Address of the listener for probes and metrics; None if they share the MCP port."""
    otel: Otel | None
    """The OpenTelemetry signals to send; None for none."""
    otel_missing: bool
    """The environment asks for OpenTelemetry, but the extra is not installed."""
    lame_duck_s: float
    keyring: Keyring | None
    """The keys for what clients keep; None for random ones."""
    key_file: KeyFile | None
    """The file that they are read from again, if there is one."""
    file_tokens: TokenTable | None = None
    """The content of `--auth-token-file` at the start."""
    env_tokens: TokenTable | None = None
    """The token of the environment."""
    lazy: bool = False
    """Whether to start no process of the server before a client needs one."""
    peer_bind: Bind | None = None
    """Address at which other replicas reach this one; None if it serves alone."""
    search: tuple[str, ...] = ()
    """The domains that the pod's resolver appends to a name; empty outside of a cluster."""

    @property
    def asks_who(self) -> bool:
        """Whether clients must authenticate."""
        static = self.file_tokens is not None or self.env_tokens is not None
        return static or self.settings.oauth.issuer is not None

    @property
    def child(self) -> ChildSpec:
        """The command to start.

        Raises:
            ConfigError: There is no command: another program starts the server.
        """
        if isinstance(self.source, ChildSpec):
            return self.source
        remedy = "use it where the command is: mcpbridge … -- COMMAND"
        raise ConfigError("--connect", "", "this needs the server's command", remedy)


class Option(msgspec.Struct, frozen=True):
    """One setting with its place in `Settings`."""

    section: str
    name: str
    setting: Setting

    @property
    def default(self) -> Any:
        """The value if it is not given."""
        return self.setting.default


def options() -> Iterator[Option]:
    """Yield every setting, in the order of the sections."""
    defaults = Settings()
    for section in Settings.__struct_fields__:
        struct = getattr(defaults, section)
        for name, facts in struct.SETTINGS.items():
            yield Option(section, name, facts)


def settings_from(values: dict[tuple[str, str], Any]) -> Settings:
    """Return the settings with these values, by section and name, in place of defaults."""
    sections: dict[str, dict[str, Any]] = {}
    for (section, field), value in values.items():
        sections.setdefault(section, {})[field] = value
    defaults = Settings()
    given = {
        section: msgspec.structs.replace(getattr(defaults, section), **own)
        for section, own in sections.items()
    }
    return msgspec.structs.replace(defaults, **given)
