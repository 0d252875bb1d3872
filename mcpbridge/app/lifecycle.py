"""Runs the program: signals first, then the port, then the child; and the ordered shutdown.

`bridge.drain` has the order of the shutdown, `rules.supervision.shutdown_times` its times.
"""

from __future__ import annotations

import functools
import gc
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

import anyio
import msgspec
from anyio import to_thread
from starlette.routing import BaseRoute

from mcpbridge import __version__
from mcpbridge.app.build import Additions, App, build, open_to_all
from mcpbridge.app.listening import Endpoints, Listening, Sockets, all_opened
from mcpbridge.app.resource_limits import fitted
from mcpbridge.app.signal_orders import Actions, SignalOrders
from mcpbridge.app.state_dump import state_of
from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.children.handshake import list_tools
from mcpbridge.bridge.drain import DrainSteps
from mcpbridge.config.model import Config
from mcpbridge.config.otel import MISSING_EXTRA
from mcpbridge.http.refusals import Refused
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.reaper import kept
from mcpbridge.process.spec import ChildSpec, shown
from mcpbridge.rules.supervision.shutdown_times import (
    AT_A_TERMINAL,
    ShutdownTimes,
    times_within,
)
from mcpbridge.runtime.callback_faults import raise_callback_faults
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
from mcpbridge.runtime.loop_watchdog import LoopWatchdog, has_uvloop
from mcpbridge.runtime.signals import heard_signals
from mcpbridge.runtime.startup import keep_freed_memory
from mcpbridge.telemetry.logs import logging_to_stderr
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.telemetry.tracer import Tracer

log = logging.getLogger("mcpbridge.app")

_LIST_S = 10.0
"""Seconds that a server has to list its tools before `serve.ready` is logged."""
_THRESHOLDS = (10_000, 1, 1_000_000)
"""Of generations 0 to 2: at most 30,000 objects are scanned at once, in some 12 ms."""
_COLLECT_EVERY_S = 60.0
_FEW_SESSIONS = 1000
"""With at most so few a full collection takes some 10 ms."""
_LAST_SPANS_S = 2.0
"""Seconds that a trace collector has to take the last spans."""


class Companion(Protocol):
    """A part of another program that serves: it runs beside the bridge."""

    additions: Additions
    """What it adds to the bridge."""
    refused: Refused | None
    """Takes each request that is refused; None: nothing does."""

    def routes(self, bridge: Bridge) -> Sequence[BaseRoute]:
        """Return further routes of the endpoint, which is that of this bridge."""

    def text_form(self, *, colored: bool) -> logging.Formatter:
        """Return the formatter of logs as text; if it is a filter too, it chooses what is shown."""

    async def run(self, app: App, url: str) -> None:
        """Work until cancelled, from the moment when clients can connect to `url`."""


def run(config: Config, companion: Companion | None = None) -> int:
    """Serve until told to end; return the exit status.

    Args:
        config: The configuration.
        companion: Runs beside the bridge; None: nothing does.

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
    text = companion.text_form if companion is not None else None
    with logging_to_stderr(config.settings.logs, text):
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
            sockets = all_opened(config, held)
            if not isinstance(sockets, str):
                config = settled(config, sockets.mcp[0])
                env = config.source.env if isinstance(config.source, ChildSpec) else None
                reaper = held.enter_context(kept(env))
                tree = ProcessTree(reaper)
                if companion is None:
                    app = build(config, tree)
                else:
                    routes, refused = companion.routes, companion.refused
                    app = build(config, tree, companion.additions, routes, refused)
                life = _Life(app, sockets, companion)
                return run_loop(life.run, lambda: life.last_state)
            log.error("serve.failed", extra={"problem": sockets})
            return EXIT_START


def run_loop(run: Callable[[], Awaitable[int]], last_state: Callable[[], object]) -> int:
    """Run a program in an event loop; return its exit status.

    Args:
        run: The program.
        last_state: Returns the state of the program when it crashed, for the log.
    """
    try:
        return anyio.run(run, backend_options={"use_uvloop": has_uvloop()})
    except Exception:
        log.exception("serve.crashed", extra={"state": last_state()})
        return EXIT_INTERNAL


class _Life:
    """One run of the program, from its first signal handler to its exit status."""

    def __init__(
        self,
        app: App,
        sockets: Sockets,
        companion: Companion | None = None,
    ) -> None:
        self._app = app
        self._companion = companion
        self._announced = anyio.Event()
        self._status = EXIT_OK
        self.last_state: Mapping[str, object] = {}
        """The state of the program when it crashed."""
        drain = app.bridge.drain
        endpoints = Endpoints(
            app.endpoint,
            app.fast_path,
            app.admin,
            lambda: drain.ending,
            app.meters,
            app.refusals,
            app.replica.endpoint(app.refusals) if app.replica is not None else None,
        )
        self._listening = Listening(app.config, endpoints, app.bridge.budget, sockets)
        actions = Actions(functools.partial(state_of, app), self._reread, self._cut_short)
        self._orders = SignalOrders(actions, app.config.settings.logs)

    async def run(self) -> int:
        """Run the program; return the exit status."""
        self._app.process_tree.open()
        with heard_signals() as signals, LoopWatchdog().watching():
            async with anyio.create_task_group() as watch:
                watch.start_soon(raise_callback_faults)
                watch.start_soon(self._orders.hear, signals)
                # Outside of the bridge's block: children that end last still leave orphans to be
                # reaped.
                watch.start_soon(self._app.process_tree.run)
                async with self._app.bridge.running():
                    watch.start_soon(self._hear_giving_up)
                    watch.start_soon(self._announce_ready)
                    watch.start_soon(self._accompany)
                    watch.start_soon(self._app.keepalive.run)
                    watch.start_soon(collect_garbage, self._session_count)
                    watch.start_soon(self._app.access.authenticator.run)
                    if self._app.config.key_file is not None:
                        watch.start_soon(self._app.config.key_file.run)
                    if self._app.replica is not None:
                        watch.start_soon(self._app.replica.run)
                    if self._app.pool_sizer is not None:
                        watch.start_soon(self._app.pool_sizer.run)
                    try:
                        await self._listening.serve(self._serve)
                    except BaseException:
                        # Here, while the state still exists.
                        self.last_state = state_of(self._app)
                        raise
                watch.cancel_scope.cancel()
        await send_last_spans(self._app.tracer)
        counts = dict(self._app.meters.counts())
        log.info("serve.ended", extra={"status": self._status, "counts": counts})
        return self._status

    async def _serve(self) -> None:
        self._announce()
        self._announced.set()
        # After everything long-lived is made, and before the first call.
        settle_memory()
        await self._orders.ending.wait()
        await self._end()

    def _session_count(self) -> int:
        return len(self._app.bridge.sessions)

    def _refuse_traffic(self) -> None:
        self._app.bridge.readiness.block("draining", "shutting down")
        self._listening.end_keep_alive()

    def _announce(self) -> None:
        settings = self._app.config.settings
        log.info(
            "serve.started",
            extra={
                "url": self._url(),
                **self._listening.addresses(),
                **_served(self._app.config),
                "isolation": settings.child_pool.isolation.value,
                "version": __version__,
            },
        )
        warn_of_open(self._app.config)
        if isinstance(self._app.config.source, ChildSpec):
            warn_of_root(self._app.config.source)

    async def _announce_ready(self) -> None:
        await announce_ready(self._app.bridge, self._app.meters, self._url())

    async def _accompany(self) -> None:
        if self._companion is not None:
            await self._announced.wait()
            await self._companion.run(self._app, self._url())

    def _url(self) -> str:
        return self._listening.url(self._app.config.settings.listen.path)

    def _reread(self) -> bool:
        """Read the files again that may have changed; return whether there are any."""
        tokens = self._app.access.tokens
        if tokens is not None:
            tokens.reload()
        key_file = self._app.config.key_file
        if key_file is not None:
            key_file.reload()
        found = tokens is not None or key_file is not None
        return self._listening.reread_certificates() or found

    def _cut_short(self) -> None:
        self._status = EXIT_FORCED
        self._app.bridge.drain.cut_short()
        self._listening.stop_now()
        self._app.bridge.kill_children()

    async def _hear_giving_up(self) -> None:
        eras = self._app.bridge.eras
        await eras.gave_up.wait()
        self._status = status_of_failure(eras.last_report, eras.start_failure)
        cause = cause_of_failure(self._app.config.source, eras.last_report, eras.start_failure)
        log.error("serve.gave_up", extra={"status": self._status, **cause})
        self._orders.end()

    async def _end(self) -> None:
        """Drain with the times of the settings; return when nothing is left."""
        bridge = self._app.bridge
        times, lame_duck_s = drain_times(self._app.config, self._orders)
        steps = DrainSteps(
            self._refuse_traffic,
            self._end_idle_streams,
            self._cut_off,
            self._listening.stop,
        )
        if self._app.replica is not None:
            self._app.replica.leave(lame_duck_s, holds=not self._orders.from_terminal)
        calls_left = await bridge.drain.run(steps, times, lame_duck_s=lame_duck_s)
        if calls_left and self._status == EXIT_OK:
            self._status = EXIT_FORCED

    def _end_idle_streams(self) -> None:
        self._app.bridge.end_idle_streams()
        if self._app.replica is not None:
            self._app.replica.end_idle_streams()

    async def _cut_off(self, step_s: float) -> None:
        if self._app.replica is not None:
            self._app.replica.cut_off()
        await self._app.bridge.cut_off(step_s)


def drain_times(config: Config, orders: SignalOrders) -> tuple[ShutdownTimes, float]:
    """Return the deadlines of the end, and the seconds in which all is still served."""
    if orders.from_terminal:
        return AT_A_TERMINAL, 0.0
    return times_within(config.settings.shutdown.grace_s), config.lame_duck_s


def warn_of_open(config: Config) -> None:
    """Warn if other machines reach the server without authentication."""
    problem = open_to_all(config)
    if problem is not None:
        log.warning("serve.open", extra={"problem": problem})


async def announce_ready(bridge: Bridge, meters: Meters, url: str) -> None:
    """Log once that the server is ready and at which URL, and make a meter for each tool."""
    lease = await bridge.eras.first_lease()
    pages = await list_tools(lease, _LIST_S)
    facts: dict[str, object] = {"url": url}
    if lease.profile is not None:
        facts["server"] = lease.profile.name
        if lease.profile.version is not None:
            facts["version"] = lease.profile.version
    facts["tools"] = sum(map(meters.calls.learn, pages))
    log.info("serve.ready", extra=facts)


async def collect_garbage(sessions: Callable[[], int]) -> None:
    """Free garbage in cycles, as errors with their tracebacks, while that is cheap.

    Args:
        sessions: Returns the number of sessions, on which the cost depends.
    """
    while True:
        await anyio.sleep(_COLLECT_EVERY_S)
        if sessions() <= _FEW_SESSIONS:
            gc.collect()


async def send_last_spans(tracer: Tracer | None) -> None:
    """Send the spans that are left, if calls are traced."""
    if tracer is not None:
        await to_thread.run_sync(tracer.shutdown, _LAST_SPANS_S)


def _served(config: Config) -> dict[str, str]:
    """Return what is served, as fields of the start-up log record."""
    if isinstance(config.source, ChildSpec):
        return {"command": shown(config.source.argv)}
    return {"connect": str(config.source)}


def settle_memory() -> None:
    """Exclude the objects made at start-up, which live as long as the process, from collection.

    Without a collection before: for the few objects in cycles it would take 9 ms.

    From then on what survives two collections is not scanned again but by `collect_garbage`. The
    collector takes 0.4 us for each object that it scans, and a session has 22: a full collection at
    50,000 sessions would hold the loop for 0.4 s, and find nothing, since sessions and calls are
    not in cycles.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    keep_freed_memory()


def settled(config: Config, listener: socket.socket) -> Config:
    """Return the configuration with the actual address of an inherited socket."""
    if config.bind.fd is None:
        return config
    host, port, *_ = listener.getsockname()
    bind = msgspec.structs.replace(config.bind, host=host, port=port)
    return msgspec.structs.replace(config, bind=bind)
