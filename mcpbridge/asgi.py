"""A bridge as an ASGI application, for programs that mount it beside what they serve themselves.

    tools = bridge_app(["python", "server.py"], allowed_host=["mcp.example.org"])
    app = Starlette(routes=[Mount("/tools", tools)], lifespan=lifespan_of(tools))

The program's server gives connections, TLS and signals, the program its logging; so the settings
of these are not taken here. Everything else is named as on the command line, with underscores.
"""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
)
from typing import Any

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcpbridge.app.build import App, build
from mcpbridge.bridge.drain import DrainSteps
from mcpbridge.config.command import COMMAND_LINE
from mcpbridge.config.load import load
from mcpbridge.config.model import Config, options
from mcpbridge.errors import CommandNotExecutable, CommandNotFound, ConfigError
from mcpbridge.http.origin_check import ClientGone
from mcpbridge.http.responses import send_refusal
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.reaper import kept
from mcpbridge.process.spec import ChildSpec, check_command
from mcpbridge.rules.faults import INTERNAL_ERROR
from mcpbridge.rules.mcp.admission import refuse
from mcpbridge.rules.supervision.shutdown_times import times_within
from mcpbridge.runtime.exit_status import cause_of_failure, status_of_failure

log = logging.getLogger("mcpbridge.app")

_OF_THE_SERVER = ("listen", "admin", "tls", "arrival", "connections", "proxy")
"""Sections of the settings that the program's ASGI server has in our place."""
_OF_THE_PROGRAM = ("log_level", "log_format", "log_color", "lame_duck")
_OF_THE_PROCESS = ("child_user", "no_new_privileges")
_LAST_SPANS_S = 2.0


def bridge_app(command: Sequence[str] = (), **settings: Any) -> Starlette:
    """Return an application that serves an MCP server, started with the application's lifespan.

    Servers run the lifespan of the outermost application only, so the program of a mounted one
    enters it, by `lifespan_of`. Each lifespan starts new server processes, and drains at its end.

    Args:
        command: The MCP server and its arguments.
        settings: By the names of the command line's flags, with underscores. Values are text as
            there, numbers (seconds, bytes), booleans, and lists for what may be repeated.

    Raises:
        ConfigError: A setting is unknown, wrong or not the bridge's here; or the command is not
            found or cannot be executed.
    """
    if isinstance(command, str):
        raise ConfigError("command", "", "is one text", 'write a list: ["python", "server.py"]')
    config = load(_flags(settings), command, reads_variables=False)
    if isinstance(config.source, ChildSpec):
        try:
            check_command(config.source)
        except (CommandNotFound, CommandNotExecutable) as error:
            raise ConfigError("command", "", str(error)) from None
    bridge = _Mounted(config)
    return Starlette(routes=[Mount("", bridge)], lifespan=bridge.lifespan)


def lifespan_of(*apps: Starlette) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return a lifespan for a program that mounts these applications: it enters theirs."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for app in apps:
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    return lifespan


class _Mounted:
    """One bridge in a program: its application while the lifespan lasts."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._endpoint: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        if self._endpoint is None:
            problem = "the bridge does not run: enter its lifespan (mcpbridge.asgi.lifespan_of)"
            await send_refusal(send, refuse(503, INTERNAL_ERROR, problem))
            return
        await self._endpoint(scope, receive, functools.partial(_send, send, scope))

    @asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """Start the server's processes; drain and stop them at the end."""
        source = self._config.source
        env = source.env if isinstance(source, ChildSpec) else None
        with ExitStack() as held:
            # In a thread, as its end below: both wait for a process.
            reaper = await to_thread.run_sync(held.enter_context, kept(env))
            app = build(self._config, ProcessTree(reaper, mounted=True))
            try:
                async with _running(app):
                    self._endpoint = app.endpoint
                    try:
                        yield
                    finally:
                        with anyio.CancelScope(shield=True):
                            await _drain(app)
            finally:
                self._endpoint = None
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(held.close)


@asynccontextmanager
async def _running(app: App) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        async with app.bridge.running():
            tasks.start_soon(_hear_giving_up, app)
            tasks.start_soon(app.keepalive.run)
            tasks.start_soon(app.access.authenticator.run)
            if app.pool_sizer is not None:
                tasks.start_soon(app.pool_sizer.run)
            yield
        # After the bridge: its end has to wait for the server's processes.
        tasks.cancel_scope.cancel()
    if app.tracer is not None:
        await to_thread.run_sync(app.tracer.shutdown, _LAST_SPANS_S)


async def _drain(app: App) -> None:
    """Let calls in flight finish; returns when the server's processes have ended."""
    bridge = app.bridge
    steps = DrainSteps(
        functools.partial(bridge.readiness.block, "draining", "shutting down"),
        bridge.end_idle_streams,
        bridge.cut_off,
        lambda last_bytes_s: None,  # the program's server has stopped already
    )
    times = times_within(app.config.settings.shutdown.grace_s)
    await bridge.drain.run(steps, times, lame_duck_s=0.0)


async def _hear_giving_up(app: App) -> None:
    """Log why the bridge has given up its server; the program and its other paths go on."""
    eras = app.bridge.eras
    await eras.gave_up.wait()
    cause = cause_of_failure(app.config.source, eras.last_report, eras.start_failure)
    status = status_of_failure(eras.last_report, eras.start_failure)
    log.error("serve.gave_up", extra={"status": status, **cause})


async def _send(send: Send, scope: Scope, message: Message) -> None:
    """Send by any ASGI server.

    Raises:
        ClientGone: The server says so, as servers of ASGI 2.4 do, by OSError.
    """
    version = scope.get("http_version", "1.1")
    if message["type"] == "http.response.start" and not version.startswith("1"):
        # HTTP/2 has no such header (RFC 9113, 8.2.2).
        kept_lines = [pair for pair in message["headers"] if pair[0] != b"connection"]
        message = {**message, "headers": kept_lines}
    try:
        await send(message)
    except OSError as error:
        raise ClientGone from error


def _flags(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the texts of flags that these settings would be on the command line."""
    known = {each.setting.flag.removeprefix("--").replace("-", "_"): each for each in options()}
    flags: dict[str, list[str]] = {}
    for name, value in settings.items():
        option = known.get(name)
        if option is None:
            (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise ConfigError(name, "", "no such setting", f"did you mean {nearest}?")
        flag = option.setting.flag
        if option.section in _OF_THE_SERVER and name != "path":
            raise ConfigError(flag, COMMAND_LINE, "the program's ASGI server decides it here")
        if name in _OF_THE_PROGRAM:
            raise ConfigError(flag, COMMAND_LINE, "the program decides it here")
        if option.section == "servers":
            problem = "it would serve several servers; mount an application for each of them"
            raise ConfigError(flag, COMMAND_LINE, problem)
        if option.section == "replicas":
            problem = "replicas need a port for each other, which an application does not have"
            raise ConfigError(flag, COMMAND_LINE, problem)
        if name in _OF_THE_PROCESS:
            problem = "it would hold for the whole process, which is the program's"
            raise ConfigError(flag, COMMAND_LINE, problem)
        if value is not None and value is not False:
            flags[flag] = _texts(flag, value)
    return flags


def _texts(flag: str, value: object) -> list[str]:
    if isinstance(value, list | tuple):
        return [text for each in value for text in _texts(flag, each)]
    if isinstance(value, bool):
        return ["true"]
    if isinstance(value, str | int | float):
        return [str(getattr(value, "value", value))]
    problem = f"a {type(value).__name__} is neither text, number, boolean nor list"
    raise ConfigError(flag, "", problem)
