"""Assembles the program from its configuration; opens and starts nothing."""

from __future__ import annotations

import functools
import ipaddress
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from mcpbridge.app.resource_limits import PoolSizer
from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.call_log import CallLog
from mcpbridge.bridge.calls.tool_filter import ToolFilter
from mcpbridge.bridge.calls.tracing import Tracing
from mcpbridge.bridge.children.child_pool import ChildPool, ChildPoolSettings
from mcpbridge.bridge.children.health_check import HealthChecker
from mcpbridge.bridge.children.listeners import Interceptor
from mcpbridge.bridge.children.server_eras import EraSupervisors
from mcpbridge.bridge.modern.request_state import RequestStateCodec
from mcpbridge.bridge.readiness import Readiness
from mcpbridge.bridge.tenant import BridgeSettings, ChildMakers, MakeChildWithEnv
from mcpbridge.channels.channel import Channel
from mcpbridge.channels.pipes import pipe_channel
from mcpbridge.config.model import Config, Settings
from mcpbridge.http.app import (
    HttpApp,
    PostHandling,
    admin_routes,
    login_routes,
    mcp_routes,
)
from mcpbridge.http.auth.access import AccessControl, HeaderEnv
from mcpbridge.http.auth.authenticator import Authenticator, FirstOf, NoAuth
from mcpbridge.http.auth.oauth import OAuth
from mcpbridge.http.auth.static_tokens import StaticTokens
from mcpbridge.http.body import BodyLimits
from mcpbridge.http.health import Probes, rendering
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.refusals import Refusals, Refused
from mcpbridge.http.server.fast_path import FastPath
from mcpbridge.http.server.listeners import Bind
from mcpbridge.http.transports.legacy import LegacyTransport
from mcpbridge.http.transports.modern import ModernTransport
from mcpbridge.http.transports.sse import SSE_PATH, SseTransport
from mcpbridge.http.transports.streamable_http import StreamableHttp
from mcpbridge.process.child import MakeChild
from mcpbridge.process.memory import memory_limit
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.spec import ChildSpec
from mcpbridge.process.subprocess_child import ChildChannel, MakeEnds, SubprocessChild
from mcpbridge.rules.access.client_address import TrustedProxies
from mcpbridge.rules.access.hosts import HostRules
from mcpbridge.rules.access.principals import Secrets
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.access.state_keys import FOR_STATE
from mcpbridge.rules.mcp.methods import KNOWN_REQUESTS
from mcpbridge.rules.supervision.crashes import CrashCharges
from mcpbridge.rules.supervision.lifecycle import DrainState
from mcpbridge.rules.supervision.memory_budget import memory_for_clients
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.telemetry.tracer import Tracer
from mcpbridge.wire.socket_address import Address, TcpAddress, UnixAddress

if TYPE_CHECKING:
    from mcpbridge.app.replicas import ServingReplica, ThisReplica


class App(msgspec.Struct, frozen=True):
    """The parts of the program that `app.lifecycle` runs."""

    config: Config
    bridge: Bridge
    keepalive: KeepAlive
    endpoint: ASGIApp
    """The application on the MCP port."""
    admin: ASGIApp | None
    """The application on `--admin-port`, if there is one."""
    fast_path: FastPath
    meters: Meters
    process_tree: ProcessTree
    tracer: Tracer | None
    """The tracer, if calls are traced; `app.lifecycle` shuts it down."""
    access: CallerAccess
    """The authentication of clients."""
    replica: ServingReplica | None
    """This process as one of several replicas; None if it serves alone."""
    refusals: Refusals
    """Logs and counts refused requests."""
    pool_sizer: PoolSizer | None
    """Limits the number of server processes by memory; None if the operator sets the number."""


_STDERR = 2

Decorate = Callable[[MakeEnds, Secrets], MakeEnds]
"""Decorates the channels of children that have these secrets of a client."""


class Additions(msgspec.Struct, frozen=True):
    """What another program that serves adds to the bridge."""

    interceptors: Sequence[Interceptor] = ()
    """Applied to each request to any process of the server, after all others."""
    decorate: Decorate | None = None
    """Applied to the channel of each process; None: they are not decorated."""
    interceptor_of: Callable[[Channel], Interceptor] | None = None
    """Makes a further, last interceptor for the channel of each process; None: there is none."""
    reloads: bool = False
    """Whether the server's processes are replaced when its program has changed."""
    waits_for_change: bool = False
    """Whether a server whose start failed is started again only if a client or a reload asks."""
    made_by: Callable[[ChildMakers], ChildMakers] | None = None
    """Returns what makes the children, by way of what the bridge was given; None: the same."""


def _no_routes(bridge: Bridge) -> Sequence[BaseRoute]:
    """Return no route."""
    return ()


MakeRoutes = Callable[[Bridge], Sequence[BaseRoute]]
"""Makes further routes of the endpoint, which is that of this bridge."""


_NONE = Additions()


def build(
    config: Config,
    process_tree: ProcessTree,
    additions: Additions = _NONE,
    routes: MakeRoutes = _no_routes,
    refused: Refused | None = None,
) -> App:
    """Assemble the program.

    Args:
        config: The configuration.
        process_tree: Gets the processes.
        additions: What another program that serves adds to the bridge.
        routes: Makes its routes.
        refused: Takes each request that is refused.
    """
    settings, below = config.settings, config.settings.listen.sse_below
    meters = Meters(KNOWN_REQUESTS)
    refusals = Refusals(meters, refused=refused)
    tracer = tracer_of(config)
    callers = access_of(config)
    access = callers.control
    parts = (config, process_tree, meters, tracer, access, below)
    served = serving(*parts, additions=additions, this=_this_replica(config, meters))
    bridge, streamable = served.bridge, served.streamable
    render = rendering(functools.partial(_exporter, meters))
    rules = host_rules(config, config.bind)
    probes = Probes(bridge.readiness)
    endpoint = HttpApp(
        [
            *mcp_routes(streamable, served.sse, settings.listen.mcp_paths, access),
            *admin_routes(probes, render if config.admin_bind is None else None, access),
            *login_routes(access),
            *routes(bridge),
        ],
        rules,
        root_path=settings.proxy.root_path,
        meter=meters.http,
        headers=[pair.header for pair in settings.auth.header_env],
        trusted=trusted_proxies(config),
        refusals=refusals,
    )
    posts = PostHandling(streamable, access)
    return App(
        config,
        bridge,
        served.keepalive,
        endpoint,
        admin_app(config, admin_routes(probes, render), refusals),
        FastPath(posts, served.limits, rules, _fast_window_s(config, tracer), meters.http),
        meters,
        process_tree,
        tracer,
        callers,
        served.replica,
        refusals,
        _sizer(config, served.child_pool),
    )


def _fast_window_s(config: Config, tracer: Tracer | None) -> float:
    # A traced call runs in a separate task, whose records carry its trace.
    return config.settings.answers.json_window_s if tracer is None else 0.0


class Served(msgspec.Struct, frozen=True):
    """One server with its bridge and the transports that lead to it."""

    bridge: Bridge
    child_pool: ChildPool
    keepalive: KeepAlive
    limits: BodyLimits
    streamable: StreamableHttp
    sse: SseTransport | None
    replica: ServingReplica | None = None
    """Serves other replicas too; None if there are none."""


def _this_replica(config: Config, meters: Meters) -> ThisReplica | None:
    if config.peer_bind is None:
        return None
    from mcpbridge.app.replicas import ThisReplica  # with --peers alone

    return ThisReplica(config, meters)


def serving(
    config: Config,
    process_tree: ProcessTree,
    meters: Meters,
    tracer: Tracer | None,
    access: AccessControl,
    below: str,
    budget: Budget | None = None,
    additions: Additions = _NONE,
    this: ThisReplica | None = None,
) -> Served:
    """Assemble one server.

    Args:
        config: Its configuration.
        process_tree: Gets the processes.
        meters: Count what it does; get its gauges.
        tracer: Traces calls, if any does.
        access: Finds out who calls.
        below: The path below which HTTP+SSE is served, without a slash at its end.
        budget: Counts the bytes that are kept for clients; None: one for this server alone.
        additions: What another program adds to it.
        this: This process as one of several replicas; None if it serves alone.
    """
    settings = config.settings
    budget = budget if budget is not None else budget_of(config)
    tracing = Tracing(tracer, meters) if tracer is not None else None
    bridge, child_pool = _bridge(config, process_tree, meters, tracing, budget, additions, this)
    keepalive = KeepAlive(settings.keepalive.every_s, access.still if access.asks else None)
    watch(meters, bridge, keepalive, child_pool)
    limits = BodyLimits(settings.guard.max_request_bytes, settings.pipes.max_json_depth)
    if this is not None:
        replica = this.serving(bridge, keepalive, limits, access, below, meters)
        common = (bridge, child_pool, keepalive, limits)
        return Served(*common, replica.streamable, replica.sse, replica)
    streamable = _streamable(config, bridge, keepalive, limits, access)
    sse = None
    if settings.eras.serves_legacy:
        sse = SseTransport(bridge, keepalive, settings.proxy, limits, below, access)
    return Served(bridge, child_pool, keepalive, limits, streamable, sse)


def budget_of(config: Config) -> Budget:
    """Return a budget for the bytes that are kept for clients."""
    return Budget(config.settings.loads.max_memory_bytes or memory_for_clients(memory_limit()))


def _streamable(
    config: Config,
    bridge: Bridge,
    keepalive: KeepAlive,
    limits: BodyLimits,
    access: AccessControl,
) -> StreamableHttp:
    settings = config.settings
    return StreamableHttp(
        LegacyTransport(bridge, keepalive, settings.answers),
        ModernTransport(bridge, keepalive, settings.answers.json_window_s),
        settings.eras,
        limits,
        access,
        bridge.budget,
    )


_Parts = tuple[Bridge, ChildPool]


def _bridge(
    config: Config,
    tree: ProcessTree,
    meters: Meters,
    tracing: Tracing | None,
    budget: Budget,
    additions: Additions,
    this: ThisReplica | None = None,
) -> _Parts:
    settings, readiness, crashes = config.settings, Readiness(), CrashCharges()
    tool_filter = ToolFilter(settings.tools, meters) if settings.tools.says_something else None
    health_checker = HealthChecker(settings.recycling)
    pool_settings = _pool_settings(settings.child_pool)
    makers = child_makers(config, tree, budget.children, additions.decorate, readiness)
    if additions.made_by is not None:
        makers = additions.made_by(makers)
    child_pool = ChildPool(
        makers.plain,
        pool_settings,
        settings.pipes,
        meters,
        settings.loads,
        functools.partial(_interceptors, tool_filter, tracing, additions),
        [health_checker],
        settings.recycling.max_requests,
        crashes,
    )
    bridge = Bridge(
        child_pool,
        _eras(config, child_pool, readiness, additions),
        _bridge_settings(settings, pool_settings, additions),
        readiness,
        meters,
        CallLog(meters, log_calls=settings.logs.calls, tracing=tracing),
        _state_codec(config, this),
        health_checker,
        tool_filter,
        makers.with_env,
        budget,
        crashes,
        this.new_session_id if this is not None else None,
        this.session_changed if this is not None else None,
    )
    return bridge, child_pool


def _eras(
    config: Config, child_pool: ChildPool, readiness: Readiness, additions: Additions
) -> EraSupervisors:
    settings = config.settings
    waits = additions.waits_for_change
    return EraSupervisors(
        child_pool,
        readiness,
        msgspec.structs.replace(settings.restart, waits_for_change=waits),
        settings.eras.child,
        settings.child_pool.start_timeout_s,
        finish_s=settings.calls.timeout_s,
        legacy_first=settings.eras.legacy_first,
        lazy=config.lazy,
        roots=bool(settings.child_pool.roots),
    )


def _state_codec(config: Config, this: ThisReplica | None) -> RequestStateCodec:
    if this is not None:
        return this.state_codec
    keyring = config.keyring
    return RequestStateCodec(keyring.keys_for(FOR_STATE) if keyring is not None else None)


def _interceptors(
    tool_filter: ToolFilter | None,
    tracing: Tracing | None,
    additions: Additions,
    channel: Channel,
) -> Sequence[Interceptor]:
    last = additions.interceptor_of(channel) if additions.interceptor_of is not None else None
    # The filter first: a denied call has no span.
    found = (tool_filter, tracing, *additions.interceptors, last)
    return [each for each in found if each is not None]


def _bridge_settings(
    settings: Settings, pool_settings: ChildPoolSettings, additions: Additions
) -> BridgeSettings:
    return BridgeSettings(
        pool_settings,
        settings.sessions,
        settings.calls,
        settings.parking,
        settings.eras,
        settings.restart.on_exit,
        settings.recycling,
        settings.loads,
        settings.streams,
        keeps_listens=additions.reloads,
    )


def _pool_settings(settings: ChildPoolSettings) -> ChildPoolSettings:
    if settings.spares == "auto" and os.isatty(_STDERR):
        # On a terminal one person tries a server: another process would serve no client.
        return msgspec.structs.replace(settings, spares="0")
    return settings


def admin_app(config: Config, routes: Sequence[BaseRoute], refusals: Refusals) -> ASGIApp | None:
    """Return the application on `--admin-port`, or None if there is none."""
    if config.admin_bind is None:
        return None
    return HttpApp(routes, host_rules(config, config.admin_bind), refusals=refusals)


def _sizer(config: Config, child_pool: ChildPool) -> PoolSizer | None:
    settings = config.settings.child_pool
    if settings.max_children is not None:
        return None
    return PoolSizer(child_pool, settings.most_children)


def child_makers(
    config: Config,
    process_tree: ProcessTree,
    account: Account,
    decorate: Decorate | None,
    readiness: Readiness,
) -> ChildMakers:
    """Return what makes the children of a server.

    Args:
        config: Its configuration.
        process_tree: Gets the processes.
        account: Charged for what waits to be sent to them.
        decorate: Decorates their channels; None: they are not decorated.
        readiness: Blocked while a server that is reached by HTTP is away.
    """
    return ChildMakers(
        _children(config, process_tree, account, decorate, readiness),
        _make_child_with_env(config, process_tree, account, decorate),
    )


def _children(
    config: Config,
    process_tree: ProcessTree,
    account: Account,
    decorate: Decorate | None,
    readiness: Readiness,
) -> MakeChild:
    limits = config.settings.pipes
    match config.source:
        case ChildSpec() as spec:
            ends: MakeEnds = functools.partial(pipe_channel, limits=limits, account=account)
            if decorate is not None:
                ends = decorate(ends, spec.hidden)
            return functools.partial(SubprocessChild, spec, ends, process_tree)
        case UnixAddress() | TcpAddress() as address:
            from mcpbridge.process.socket_child import SocketChild  # with --connect alone

            within_s = config.settings.child_pool.start_timeout_s
            return functools.partial(SocketChild, address, limits, within_s, account)
        case server:
            # An HTTP client, which other bridges do not need.
            from mcpbridge.reverse.child.remote_child import remote_children

            return remote_children(server, limits, account, decorate, readiness)


def _make_child_with_env(
    config: Config, process_tree: ProcessTree, account: Account, decorate: Decorate | None
) -> MakeChildWithEnv | None:
    served_here = isinstance(config.source, ChildSpec | Address)
    if not config.settings.auth.header_env or not served_here:
        return None
    spec, limits = config.child, config.settings.pipes
    plain: MakeEnds = functools.partial(pipe_channel, limits=limits, account=account)

    def make(hidden: Secrets) -> SubprocessChild[ChildChannel]:
        secrets = Secrets((*spec.hidden.pairs, *hidden.pairs))
        own = msgspec.structs.replace(spec, env={**spec.env, **dict(hidden.pairs)}, hidden=secrets)
        ends = decorate(plain, secrets) if decorate is not None else plain
        return SubprocessChild(own, ends, process_tree)

    return make


def tracer_of(config: Config) -> Tracer | None:
    """Return the tracer of the process, or None if calls are not traced."""
    if config.otel is None:
        return None
    from mcpbridge.telemetry.otel import OtelTracer  # an extra that may not be installed

    return OtelTracer(metrics=config.otel.metrics)


def _exporter(meters: Meters) -> Callable[[str | None], tuple[bytes, str]]:
    from mcpbridge.telemetry.prometheus import Export  # otherwise a third of an idle bridge's start

    return Export(meters).render


def host_rules(config: Config, bind: Bind) -> HostRules:
    """Return the rules for Host and Origin at an address."""
    return HostRules(
        # Browsers reach a unix socket only through a proxy, which may leave any name in Host.
        loopback=bind.path is None and _is_loopback(bind.host),
        allowed_hosts=config.settings.guard.allowed_hosts,
        allowed_origins=config.settings.guard.allowed_origins,
        search=config.search,
    )


def trusted_proxies(config: Config) -> TrustedProxies | None:
    """Return the peers that may name their client; None if none may."""
    networks = config.settings.proxy.trusted
    return TrustedProxies(networks) if networks else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class CallerAccess(msgspec.Struct, frozen=True):
    """The objects that authenticate clients."""

    authenticator: Authenticator
    control: AccessControl
    tokens: StaticTokens | None
    """The operator's static tokens, whose file is read again at SIGHUP."""


def access_of(config: Config) -> CallerAccess:
    """Assemble the authentication; send no request to the authorization server."""
    auth = config.settings.auth
    found: list[Authenticator] = []
    tokens = None
    if config.file_tokens is not None or config.env_tokens is not None:
        tokens = StaticTokens(auth.token_file, config.file_tokens, config.env_tokens)
        # First: comparing them takes no time and no request to an authorization server.
        found.append(tokens)
    if config.settings.oauth.issuer is not None:
        # Last: its challenge tells a client where to log in.
        found.append(_oauth(config, config.settings.oauth.issuer))
    authenticator = _together(found)
    header_env = HeaderEnv(auth.header_env) if auth.header_env else None
    return CallerAccess(
        authenticator, AccessControl(authenticator, header_env, auth.rate_limit), tokens
    )


def _oauth(config: Config, issuer: str) -> Authenticator:
    # An extra that may not be installed, with outgoing HTTP, which the others do not need.
    from mcpbridge.http.auth.jwks import KeyServer, RemoteKeys

    settings = config.settings
    keys = RemoteKeys(KeyServer(issuer, settings.oauth.jwks_url).read)
    return OAuth(settings.oauth, keys, (settings.listen.path, settings.listen.sse_below + SSE_PATH))


def open_to_all(config: Config) -> str | None:
    """Return the warning for an address that other machines reach without authentication."""
    settings = config.settings
    if config.asks_who or not _is_wide(config.bind) or settings.tls.client_ca is not None:
        return None
    return (
        f"every client that reaches {config.bind.host} may use this server:"
        " --auth-token-file or --oauth-issuer turns authentication on, --require-auth enforces it"
    )


def _kept(budget: Budget) -> dict[str, float]:
    """Return the bytes kept for connections, for children, and for clients' sessions and calls."""
    connections, children = budget.connections.held, budget.children.held
    clients = budget.held - connections - children
    return {"connections": connections, "children": children, "clients": clients}


def _is_wide(bind: Bind) -> bool:
    """Return whether other machines may reach the address."""
    if bind.path is not None or bind.host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(bind.host).is_loopback
    except ValueError:
        return True


def _together(found: list[Authenticator]) -> Authenticator:
    if not found:
        return NoAuth()
    return found[0] if len(found) == 1 else FirstOf(found)


def watch(meters: Meters, bridge: Bridge, keepalive: KeepAlive, child_pool: ChildPool) -> None:
    """Register the gauges: sessions, streams, calls, children, memory, readiness, drain phase.

    The names are those of `telemetry.prometheus.GAUGES`.
    """
    meters.watch("calls_in_flight", lambda: bridge.drain.in_flight)
    meters.watch("sessions_open", lambda: len(bridge.sessions))
    meters.watch("sessions_max", lambda: bridge.session_settings.max_sessions)
    meters.watch("streams_open", lambda: keepalive.open)
    meters.watch("children", lambda: child_pool.children)
    meters.watch("children_max", lambda: child_pool.max_children)
    budget = bridge.budget
    meters.watch("memory_kept_bytes", lambda: _kept(budget))
    meters.watch(
        "memory_kept_max_bytes", lambda: math.inf if budget.limit is None else budget.limit
    )
    meters.watch("fill", lambda: bridge.fill)
    meters.watch("ready", lambda: float(bridge.readiness.ready))
    meters.watch("missing", lambda: dict.fromkeys(bridge.readiness.blockers, 1.0))
    meters.watch(
        "drain_phase",
        lambda: {state.value: float(state is bridge.drain.state) for state in DrainState},
    )
