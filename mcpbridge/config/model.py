"""Everything that can be set, composed from the structs of the modules that obey it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, get_type_hints

from mcpbridge.bridge.eras import EraSettings
from mcpbridge.bridge.placement import PlacementSettings
from mcpbridge.bridge.sessions import CallLimits, SessionSettings
from mcpbridge.bridge.stateless import ParkSettings
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.config.reach import DEFAULT_PORT
from mcpbridge.http.guard import GuardSettings
from mcpbridge.http.legacy_sse import ProxySettings
from mcpbridge.http.protocol import ArrivalLimits
from mcpbridge.http.stateful import AnswerSettings
from mcpbridge.process.spec import ChildSpec
from mcpbridge.rules.restart import RestartPolicy
from mcpbridge.settings import Setting, Unit, setting, setting_of
from mcpbridge.telemetry.logs import LogSettings

_PROBES = ("/livez", "/readyz", "/startupz", "/health", "/healthz")


def mcp_path(text: str) -> str:
    """The path of the MCP endpoint: begins with a slash, and is nobody else's.

    Raises:
        ValueError: It cannot be one; the text completes a sentence that begins with the value.
    """
    path = "/" + text.strip("/")
    if not path.isascii() or not path.isprintable() or any(mark in path for mark in " ?#%"):
        raise ValueError("is no path; write one without query and escapes, like /mcp")
    if path in _PROBES:
        raise ValueError("is the path of a health probe")
    return path


@dataclasses.dataclass(frozen=True, slots=True)
class CommandSettings:
    """What to start and with what."""

    stdio: str | None = setting(
        None,
        "--stdio",
        "The server's command as one text, split like a shell would but run without one; or give"
        " it after `--`.",
        group="Server",
        metavar="COMMAND",
    )
    env: tuple[str, ...] = setting(
        (),
        "--env",
        "Set a variable for the server; may be repeated.",
        group="Server",
        metavar="NAME=VALUE",
        repeatable=True,
        quoted=True,
    )
    env_file: str | None = setting(
        None,
        "--env-file",
        "Set the variables in this file, one NAME=VALUE a line, for the server.",
        group="Server",
        metavar="FILE",
    )
    cwd: str | None = setting(
        None, "--cwd", "Start the server in this folder.", group="Server", metavar="FOLDER"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class ListenSettings:
    """Where to listen."""

    listen: str | None = setting(
        None,
        "--listen",
        "Address to listen on; short for --host and --port.",
        group="Listening",
        metavar="HOST:PORT",
    )
    host: str | None = setting(
        None,
        "--host",
        "Address to bind; 127.0.0.1, or 0.0.0.0 as a container's main process or in Kubernetes.",
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
        "/mcp",
        "--path",
        "Path of the MCP endpoint; `/` is served as well.",
        group="Listening",
        metavar="PATH",
        also_env=("MCP_HTTP_PATH",),
        parse=mcp_path,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class ShutdownSettings:
    """How the process ends."""

    grace_s: float = setting(
        30.0,
        "--grace",
        "Time from the first signal until the platform kills; calls in flight finish within it.",
        group="Shutdown",
        unit=Unit.SECONDS,
        minimum=6.0,
        also_env=("TERMINATION_GRACE_PERIOD_SECONDS",),
    )
    lame_duck_s: float | None = setting(
        None,
        "--lame-duck",
        "Serve everything for so long after the first signal, until load balancers have noticed;"
        " 5s in Kubernetes, less with a short --grace, else 0.",
        group="Shutdown",
        unit=Unit.SECONDS,
        minimum=0.0,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, grouped by the module that obeys it."""

    command: CommandSettings = CommandSettings()
    listen: ListenSettings = ListenSettings()
    guard: GuardSettings = GuardSettings()
    arrival: ArrivalLimits = ArrivalLimits()
    answers: AnswerSettings = AnswerSettings()
    proxy: ProxySettings = ProxySettings()
    placement: PlacementSettings = PlacementSettings()
    sessions: SessionSettings = SessionSettings()
    calls: CallLimits = CallLimits()
    parking: ParkSettings = ParkSettings()
    eras: EraSettings = EraSettings()
    pipes: PipeLimits = PipeLimits()
    restart: RestartPolicy = RestartPolicy()
    shutdown: ShutdownSettings = ShutdownSettings()
    logs: LogSettings = LogSettings()


@dataclasses.dataclass(frozen=True, slots=True)
class Bind:
    """The address to listen on, and why that one."""

    host: str
    port: int
    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """What the program was asked to do, complete and checked."""

    settings: Settings
    child: ChildSpec
    bind: Bind
    lame_duck_s: float
    state_key: bytes | None
    """Seals what parked calls give their clients to keep; None for a random one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One setting with its place in the tree."""

    section: str
    name: str
    setting: Setting
    default: Any


def cutoff_after_s(grace_s: float) -> float:
    """When calls that are still in flight get their error, in seconds after the first signal.

    Before the platform kills there must be time to stop children (two rungs of 2 s) and a reserve
    of 5 s (1 s where there is little in all).
    """
    reserve_s = 5.0 if grace_s > 10 else 1.0
    return max(0.0, grace_s - reserve_s - 4.0)


def options() -> Iterator[Option]:
    """Every setting, in the order of the sections."""
    defaults = Settings()
    for section in dataclasses.fields(Settings):
        struct = getattr(defaults, section.name)
        for field in dataclasses.fields(struct):
            facts = setting_of(field)
            if facts is not None:
                yield Option(section.name, field.name, facts, getattr(struct, field.name))


def settings_from(values: dict[tuple[str, str], Any]) -> Settings:
    """The settings with these values, by section and name, in place of defaults."""
    sections: dict[str, Any] = {}
    for name, kind in get_type_hints(Settings).items():
        own = {field: value for (section, field), value in values.items() if section == name}
        sections[name] = kind(**own)
    return Settings(**sections)
