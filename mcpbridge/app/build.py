"""Config in, program out; nothing is opened or started here."""

from __future__ import annotations

import dataclasses
import ipaddress

from mcpbridge.bridge.bridge import Bridge, BridgeSettings
from mcpbridge.bridge.eras import Eras
from mcpbridge.bridge.gate import Gate
from mcpbridge.bridge.placement import Placement
from mcpbridge.bridge.seal import Seal
from mcpbridge.config.model import Config
from mcpbridge.http.admin import admin_app
from mcpbridge.http.endpoint import Endpoint
from mcpbridge.http.keepalive import KeepAlive
from mcpbridge.http.legacy_sse import LegacySse
from mcpbridge.http.stateful import Stateful
from mcpbridge.http.stateless import StatelessFace
from mcpbridge.http.streamable import Streamable
from mcpbridge.rules.hosts import HostRules
from mcpbridge.telemetry.meters import Meters


@dataclasses.dataclass(frozen=True, slots=True)
class App:
    """The parts of the program that `app.serve` brings to life."""

    config: Config
    bridge: Bridge
    keepalive: KeepAlive
    endpoint: Endpoint
    meters: Meters


def build(config: Config) -> App:
    """Assemble the program."""
    settings = config.settings
    meters = Meters()
    gate = Gate()
    placement = Placement(config.child, settings.placement, settings.pipes, meters)
    eras = Eras(
        placement,
        gate,
        settings.restart,
        settings.eras.child,
        settings.placement.start_timeout_s,
    )
    bridge = Bridge(
        placement,
        eras,
        BridgeSettings(
            settings.placement,
            settings.sessions,
            settings.calls,
            settings.parking,
            settings.eras,
            settings.restart.on_exit,
        ),
        gate,
        meters,
        Seal(config.state_key),
    )
    keepalive = KeepAlive()
    limit = settings.guard.max_request_bytes
    stateful = Stateful(bridge, keepalive, settings.answers)
    stateless = StatelessFace(bridge, keepalive, settings.answers.json_window_s)
    rules = HostRules(
        loopback=_is_loopback(config.bind.host),
        allowed_hosts=settings.guard.allowed_hosts,
        allowed_origins=settings.guard.allowed_origins,
    )
    legacy = LegacySse(bridge, keepalive, settings.proxy, limit)
    endpoint = Endpoint(
        Streamable(stateful, stateless, settings.eras, limit),
        legacy if settings.eras.serves_handshake else None,
        admin_app(gate),
        rules,
        mcp_path=settings.listen.path,
        root_path=settings.proxy.root_path,
    )
    return App(config, bridge, keepalive, endpoint, meters)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
