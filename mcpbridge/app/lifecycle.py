"""Runs the program: signals first, then the port, then the child; and the ordered shutdown.

`bridge.drain` has the order of the shutdown, `rules.supervision.shutdown_times` its times.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any

import anyio
import msgspec
from anyio import to_thread
from starlette.types import ASGIApp

from mcpbridge import __version__
from mcpbridge.app.build import App, build, host_rules, open_to_all, trusted_proxies
from mcpbridge.app.resource_limits import fitted
from mcpbridge.app.state_dump import state_of
from mcpbridge.bridge.children.handshake import list_tools
from mcpbridge.bridge.drain import DrainSteps
from mcpbridge.config.model import Config
from mcpbridge.config.otel import MISSING_EXTRA
from mcpbridge.http.server.connection import protocol_with
from mcpbridge.http.server.fast_path import FastPath
from mcpbridge.http.server.limits import BAND, Connections
from mcpbridge.http.server.listeners import address_of, opened, url_of
from mcpbridge.http.server.server import HttpServer, server_of
from mcpbridge.http.server.tls import Certificates, listening_options
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.reaper import kept
from mcpbridge.process.spec import ChildSpec, shown
from mcpbridge.rules.supervision.shutdown_times import AT_A_TERMINAL, times_within
from mcpbridge.runtime.exit_status import (
    EXIT_FORCED,
    EXIT_INTERNAL,
    EXIT_OK,
    EXIT_START,
    cause_of_failure,
    checked,
    status_of_failure,
    warn_of_root,
)
from mcpbridge.runtime.loop_watchdog import LoopWatchdog
from mcpbridge.runtime.signals import EndOrders, heard_signals
from mcpbridge.telemetry.logs import logging_to_stderr, toggle_debug
from mcpbridge.telemetry.metrics import Meters

log = logging.getLogger("mcpbridge.app")

Listeners = Sequence[socket.socket]

_LIST_S = 10.0
"""Seconds that a server has to list its tools before `serve.ready` is logged."""
_THRESHOLDS = (10_000, 1, 1_000_000)
"""Of generations 0 to 2: at most 30,000 objects are scanned at once, in some 12 ms."""
_COLLECT_EVERY_S = 60.0
_FEW_SESSIONS = 1000
"""With at most so few a full collection takes some 10 ms."""
_LAST_SPANS_S = 2.0
"""Seconds that a trace collector has to take the last spans."""


def run(config: Config) -> int:
    """Serve until told to end; return the exit status.

    | status | meaning |
    |---|---|
    | 0 | ended as asked, every call answered |
    | 1 | could not listen |
    | 2 | `--child-user` without root |
    | 3 | ended by a second signal or the deadline, calls in flight got an error |
    | 4 | the server kept exceeding `--start-timeout` |
    | 70 | a bug in mcpbridge itself |
    | 126, 127 | the command cannot be executed, was not found |
    | other | the server kept failing: its own exit status, 128 + n for a signal n |
    """
    with logging_to_stderr(config.settings.logs):
        if isinstance(config.source, ChildSpec) and (status := checked(config.source)) != EXIT_OK:
            return status
        if config.otel_missing:
            log.warning("traces.unavailable", extra={"problem": MISSING_EXTRA})
        fitting = fitted(config)
        if isinstance(fitting, str):
            log.error("serve.failed", extra={"problem": fitting})
            return EXIT_START
        config = fitting
        with ExitStack() as held:
            listeners, admin = (
                opened(bind, held, config.settings.connections.send_s) if bind is not None else ()
                for bind in (config.bind, config.admin_bind)
            )
            if not isinstance(listeners, str) and not isinstance(admin, str):
                config = settled(config, listeners[0])
                env = config.source.env if isinstance(config.source, ChildSpec) else None
                reaper = held.enter_context(kept(env))
                return _run_loop(build(config, ProcessTree(reaper)), listeners, admin)
            problem = listeners if isinstance(listeners, str) else admin
            log.error("serve.failed", extra={"problem": problem})
            return EXIT_START


def _run_loop(app: App, listeners: Listeners, admin: Listeners) -> int:
    on_uvloop = sys.platform != "win32"
    life = _Life(app, listeners, admin)
    try:
        return anyio.run(life.run, backend_options={"use_uvloop": on_uvloop})
    except Exception:
        log.exception("serve.crashed", extra={"state": life.last_state})
        return EXIT_INTERNAL


class _Life:
    """One run of the program, from its first signal handler to its exit status."""

    def __init__(self, app: App, listeners: Listeners, admin: Listeners) -> None:
        self._app = app
        self._listeners = listeners
        self._drain = app.bridge.drain
        self._status = EXIT_OK
        self._orders = EndOrders()
        self._from_terminal = False
        self._has_terminal = _has_terminal()
        self.last_state: Mapping[str, object] = {}
        """The state of the program when it crashed."""
        self._admin = admin
        tls, settings = app.config.settings.tls, app.config.settings
        self._certificates = Certificates(tls) if tls.cert is not None else None
        options: Mapping[str, Any] = {}
        if self._certificates is not None:
            options = listening_options(self._certificates.context, settings.arrival.header_s)
        self._server = _server(app, app.endpoint, app.fast_path, options, meters=app.meters)
        self._servers = [(self._server, listeners)]
        if app.admin is not None and admin:
            self._servers.append((_server(app, app.admin), admin))

    async def run(self) -> int:
        """Run the program; return the exit status."""
        ending = anyio.Event()
        self._app.process_tree.open()
        with heard_signals() as signals, LoopWatchdog().watching():
            async with anyio.create_task_group() as watch:
                watch.start_soon(self._hear_signals, signals, ending)
                # Outside of the bridge's block: children that end last still leave orphans to be
                # reaped.
                watch.start_soon(self._app.process_tree.run)
                async with self._app.bridge.running():
                    watch.start_soon(self._hear_giving_up, ending)
                    watch.start_soon(self._announce_ready)
                    watch.start_soon(self._app.keepalive.run)
                    watch.start_soon(self._collect)
                    watch.start_soon(self._app.access.authenticator.run)
                    if self._app.pool_sizer is not None:
                        watch.start_soon(self._app.pool_sizer.run)
                    try:
                        await self._serve(ending)
                    except BaseException:
                        # Here, while the state still exists.
                        self.last_state = state_of(self._app)
                        raise
                watch.cancel_scope.cancel()
        await self._send_last_spans()
        counts = dict(self._app.meters.counts())
        log.info("serve.ended", extra={"status": self._status, "counts": counts})
        return self._status

    async def _serve(self, ending: anyio.Event) -> None:
        async with anyio.create_task_group() as serving:
            for server, listeners in self._servers:
                serving.start_soon(server.serve, list(listeners))
                # Before the address is announced: it may be used at once.
                await server.listening.wait()
            self._announce()
            # After everything long-lived is made, and before the first call.
            _settle_memory()
            await ending.wait()
            await self._end()

    def _refuse_traffic(self) -> None:
        self._app.bridge.readiness.block("draining", "shutting down")
        for server, _ in self._servers:
            server.end_keep_alive()

    async def _collect(self) -> None:
        """Free garbage in cycles, as errors with their tracebacks, while that is cheap."""
        while True:
            await anyio.sleep(_COLLECT_EVERY_S)
            if len(self._app.bridge.sessions) <= _FEW_SESSIONS:
                gc.collect()

    def _stop_serving(self, last_bytes_s: float) -> None:
        for server, _ in self._servers:
            server.stop(last_bytes_s)

    async def _send_last_spans(self) -> None:
        if self._app.tracer is not None:
            await to_thread.run_sync(self._app.tracer.shutdown, _LAST_SPANS_S)

    def _announce(self) -> None:
        bind, settings = self._app.config.bind, self._app.config.settings
        secure = self._certificates is not None
        log.info(
            "serve.started",
            extra={
                "url": url_of(bind, self._listeners[0], settings.listen.path, secure=secure),
                "address": address_of(bind, self._listeners[0]),
                "because": bind.why,
                **self._other_address(),
                **_served(self._app.config),
                "isolation": settings.child_pool.isolation.value,
                "version": __version__,
                **self._admin_address(),
            },
        )
        problem = open_to_all(self._app.config)
        if problem is not None:
            log.warning("serve.open", extra={"problem": problem})
        if isinstance(self._app.config.source, ChildSpec):
            warn_of_root(self._app.config.source)

    async def _announce_ready(self) -> None:
        """Log once that the server is ready and at which URL, and make a meter for each tool."""
        lease = await self._app.bridge.eras.first_lease()
        pages = await list_tools(lease, _LIST_S)
        bind, settings = self._app.config.bind, self._app.config.settings
        secure = self._certificates is not None
        facts: dict[str, object] = {
            "url": url_of(bind, self._listeners[0], settings.listen.path, secure=secure)
        }
        if lease.profile is not None:
            facts["server"] = lease.profile.name
            if lease.profile.version is not None:
                facts["version"] = lease.profile.version
        facts["tools"] = sum(map(self._app.meters.calls.learn, pages))
        log.info("serve.ready", extra=facts)

    def _admin_address(self) -> dict[str, str]:
        bind = self._app.config.admin_bind
        if bind is None or not self._admin:
            return {}
        return {"admin": address_of(bind, self._admin[0])}

    def _other_address(self) -> dict[str, str]:
        if len(self._listeners) < 2:
            return {}
        host, port, *_ = self._listeners[1].getsockname()
        return {"also": f"[{host}]:{port}"}

    async def _hear_signals(
        self, signals: AsyncIterator[signal.Signals], ending: anyio.Event
    ) -> None:
        async for received in signals:
            match received.name:
                case "SIGUSR1":
                    log.info("serve.state", extra=state_of(self._app))
                case "SIGUSR2":
                    level = toggle_debug(self._app.config.settings.logs)
                    log.warning("log.level_changed", extra={"now": level})
                case "SIGHUP" if not self._has_terminal:
                    # Without a terminal SIGHUP is not an order to end.
                    extra = {"signal": received.name, "ignored": not self._reread()}
                    log.info("serve.signal", extra=extra)
                case _:
                    self._told_to_end(received, ending)

    def _reread(self) -> bool:
        """Read the files again that may have changed; return whether there are any."""
        tokens = self._app.access.tokens
        if tokens is not None:
            tokens.reload()
        if self._certificates is not None:
            self._certificates.reread()
        return self._certificates is not None or tokens is not None

    def _told_to_end(self, received: signal.Signals, ending: anyio.Event) -> None:
        order = self._orders.received()
        log.info("serve.signal", extra={"signal": received.name, "count": self._orders.count})
        if order is None:
            return
        if order == 1:
            self._from_terminal = received is not signal.SIGTERM and self._has_terminal
            ending.set()
        elif order == 2:
            self._status = EXIT_FORCED
            self._drain.cut_short()
            for server, _ in self._servers:
                server.stop_now()
            self._app.bridge.kill_children()
        else:
            # The third signal: the operator must not have to wait for what hangs.
            os._exit(128 + signal.SIGINT)

    async def _hear_giving_up(self, ending: anyio.Event) -> None:
        eras = self._app.bridge.eras
        await eras.gave_up.wait()
        self._status = status_of_failure(eras.last_report, eras.start_failure)
        cause = cause_of_failure(self._app.config.source, eras.last_report, eras.start_failure)
        log.error("serve.gave_up", extra={"status": self._status, **cause})
        ending.set()

    async def _end(self) -> None:
        """Drain with the times of the settings; return when nothing is left."""
        bridge, config = self._app.bridge, self._app.config
        times, lame_duck_s = times_within(config.settings.shutdown.grace_s), config.lame_duck_s
        if self._from_terminal:
            times, lame_duck_s = AT_A_TERMINAL, 0.0
        steps = DrainSteps(
            self._refuse_traffic,
            bridge.end_idle_streams,
            bridge.cut_off,
            self._stop_serving,
        )
        calls_left = await self._drain.run(steps, times, lame_duck_s=lame_duck_s)
        if calls_left and self._status == EXIT_OK:
            self._status = EXIT_FORCED


def _has_terminal() -> bool:
    """Return whether a user at a terminal runs the program, so that a hang-up ends it.

    Process 1 may have a terminal, but a user who detaches from a container does not want to end it.
    """
    if os.getpid() == 1 or sys.platform == "win32":
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return os.isatty(0)


def _server(
    app: App,
    endpoint: ASGIApp,
    fast_path: FastPath | None = None,
    listening_options: Mapping[str, Any] = MappingProxyType({}),
    meters: Meters | None = None,
) -> HttpServer:
    """Return the server for the connections of one listener."""
    settings, bridge = app.config.settings, app.bridge
    connections = Connections(
        settings.connections,
        endpoint,
        most=settings.connections.max_connections or BAND,
        max_request_bytes=settings.guard.max_request_bytes,
        rules=host_rules(app.config, app.config.bind),
        budget=bridge.budget,
        trusted=trusted_proxies(app.config),
        meters=meters,
        refusals=app.refusals,
    )
    protocol = protocol_with(settings.arrival, connections, lambda: bridge.drain.ending, fast_path)
    return server_of(
        endpoint,
        protocol,
        listening_options=listening_options,
        timeout_keep_alive=settings.connections.keep_alive_s,
    )


def _served(config: Config) -> dict[str, str]:
    """Return what is served, as fields of the start-up log record."""
    if isinstance(config.source, ChildSpec):
        return {"command": shown(config.source.argv)}
    return {"connect": str(config.source)}


def _settle_memory() -> None:
    """Exclude the objects made at start-up, which live as long as the process, from collection.

    Without a collection before: for the few objects in cycles it would take 9 ms.

    From then on what survives two collections is not scanned again but by `_collect`. The collector
    takes 0.4 us for each object that it scans, and a session has 22: a full collection at 50,000
    sessions would hold the loop for 0.4 s, and find nothing, since sessions and calls are not in
    cycles.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def settled(config: Config, listener: socket.socket) -> Config:
    """Return the configuration with the actual address of an inherited socket."""
    if config.bind.fd is None:
        return config
    host, port, *_ = listener.getsockname()
    bind = msgspec.structs.replace(config.bind, host=host, port=port)
    return msgspec.structs.replace(config, bind=bind)
