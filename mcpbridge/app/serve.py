"""The life of the program: signals first, then the port, then the child; and the ordered end.

The order of the end is `rules.lifecycle`'s, its times are `config.model`'s. uvicorn is told last,
when every stream has ended, because it would wait for them.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import anyio
import uvicorn

from mcpbridge import __version__
from mcpbridge.app.build import App, build
from mcpbridge.app.early import release_signals
from mcpbridge.config.model import Bind, Config, cutoff_after_s
from mcpbridge.errors import CommandNotExecutable, CommandNotFound
from mcpbridge.http.protocol import protocol_with
from mcpbridge.process.orphans import reap_orphans
from mcpbridge.process.spec import check_command, shown
from mcpbridge.rules.faults import Exit
from mcpbridge.rules.lifecycle import DrainEvent, DrainState
from mcpbridge.telemetry.logs import logging_to_stderr

log = logging.getLogger("mcpbridge.app")

EXIT_OK = 0
EXIT_START = 1
EXIT_CONFIG = 2
EXIT_FORCED = 3
EXIT_INTERNAL = 70
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127

_TERMINAL_CUTOFF_S = 5.0
"""Somebody at a keyboard waits for Ctrl-C to do its work."""
_UVICORN_GRACE_S = 3
_STALLED_GRACE_S = 2.0
"""How long clients have to take their last bytes; less than what uvicorn gives."""
_BACKLOG = 1024
_COLLECT_AFTER = 20_000
"""Objects made and not freed before the collector looks for cycles among them."""


def run(config: Config) -> int:
    """Serve until told to end; returns the exit status.

    | status | meaning |
    |---|---|
    | 0 | ended as asked, every call answered |
    | 1 | could not listen |
    | 3 | ended by a second signal or the deadline, calls in flight got an error |
    | 70 | a fault of mcpbridge's own |
    | 126, 127 | the command cannot be executed, was not found |
    | other | the server kept failing: its own exit status, 128 + n for a signal n |
    """
    with logging_to_stderr(config.settings.logs):
        try:
            check_command(config.child)
        except CommandNotFound as error:
            log.error("serve.failed", extra={"problem": str(error)})
            return EXIT_NOT_FOUND
        except CommandNotExecutable as error:
            log.error("serve.failed", extra={"problem": str(error)})
            return EXIT_NOT_EXECUTABLE
        try:
            listener = _listener(config.bind)
        except (OSError, UnicodeError) as error:
            # UnicodeError: a host that cannot even be written as a DNS name.
            where = f"{config.bind.host}:{config.bind.port}"
            problem = f"cannot listen on {where}: {getattr(error, 'strerror', None) or error}"
            log.error("serve.failed", extra={"problem": problem})
            return EXIT_START
        with listener:
            return _run_loop(build(config), listener)


def _run_loop(app: App, listener: socket.socket) -> int:
    on_uvloop = sys.platform != "win32"
    try:
        return anyio.run(_Life(app, listener).run, backend_options={"use_uvloop": on_uvloop})
    except Exception:
        log.exception("serve.crashed")
        return EXIT_INTERNAL


class _Server(uvicorn.Server):
    """uvicorn, driven: signals are not its business, and it tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        async with anyio.create_task_group() as abort:
            abort.start_soon(self._abort_stalled)
            await super().shutdown(sockets)
            abort.cancel_scope.cancel()

    async def _abort_stalled(self) -> None:
        # Everything has been written by now; a client that does not read would be waited for.
        await anyio.sleep(_STALLED_GRACE_S)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()


class _Life:
    """One run of the program, from its first signal handler to its exit status."""

    def __init__(self, app: App, listener: socket.socket) -> None:
        self._app = app
        self._listener = listener
        self._drain = app.bridge.drain
        self._status = EXIT_OK
        self._signals = 0
        self._from_terminal = False
        self._server = _Server(
            uvicorn.Config(
                app.endpoint,
                interface="asgi3",
                http=cast(Any, protocol_with(app.config.settings.arrival)),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=_UVICORN_GRACE_S,
            )
        )

    async def run(self) -> int:
        """Live; returns the exit status."""
        ending = anyio.Event()
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            release_signals()
            async with anyio.create_task_group() as watch:
                watch.start_soon(self._hear_signals, signals, ending)
                if os.getpid() == 1:
                    watch.start_soon(reap_orphans)
                async with self._app.bridge.running():
                    watch.start_soon(self._hear_giving_up, ending)
                    watch.start_soon(self._app.keepalive.run)
                    async with anyio.create_task_group() as serving:
                        serving.start_soon(self._server.serve, [self._listener])
                        await self._server.listening.wait()
                        self._announce()
                        _settle_memory()
                        await ending.wait()
                        await self._end()
                        self._server.should_exit = True
                watch.cancel_scope.cancel()
        counts = dict(self._app.meters.counts())
        log.info("serve.ended", extra={"status": self._status, "counts": counts})
        return self._status

    def _announce(self) -> None:
        bind, settings = self._app.config.bind, self._app.config.settings
        port = self._listener.getsockname()[1]
        host = f"[{bind.host}]" if ":" in bind.host else bind.host
        reachable = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        log.info(
            "serve.started",
            extra={
                "url": f"http://{reachable}:{port}{settings.listen.path}",
                "address": f"{host}:{port}",
                "because": bind.why,
                "command": shown(self._app.config.child.argv),
                "isolation": settings.placement.isolation.value,
                "version": __version__,
            },
        )

    async def _hear_signals(
        self, signals: AsyncIterator[signal.Signals], ending: anyio.Event
    ) -> None:
        async for received in signals:
            self._signals += 1
            log.info("serve.signal", extra={"signal": received.name, "count": self._signals})
            if self._signals == 1:
                self._from_terminal = received is signal.SIGINT and sys.stdin.isatty()
                ending.set()
            elif self._signals == 2:
                self._status = EXIT_FORCED
                self._advance(DrainEvent.SIGNAL)
                self._server.force_exit = True
                self._app.bridge.kill_children()
            else:
                os._exit(128 + signal.SIGINT)

    async def _hear_giving_up(self, ending: anyio.Event) -> None:
        eras = self._app.bridge.eras
        await eras.gave_up.wait()
        report = eras.last_report
        self._status = _status_of(report.how if report is not None else None)
        extra = {"status": self._status, "last_words": list(report.last_words) if report else []}
        log.error("serve.gave_up", extra=extra)
        ending.set()

    async def _end(self) -> None:
        """The phases of the end, in their order, up to the moment when nothing is left."""
        bridge = self._app.bridge
        bridge.gate.lack("draining", "shutting down")
        self._advance(DrainEvent.SIGNAL)
        settings = self._app.config.settings.shutdown
        cutoff_s = cutoff_after_s(settings.grace_s)
        lame_duck_s = self._app.config.lame_duck_s
        if self._from_terminal:
            cutoff_s, lame_duck_s = _TERMINAL_CUTOFF_S, 0.0
        with anyio.move_on_after(cutoff_s) as until_cutoff:
            with anyio.move_on_after(lame_duck_s):
                await self._drain.until_cutoff()
            if self._drain.state is DrainState.LAME_DUCK:
                self._advance(DrainEvent.LAME_DUCK_OVER)
                bridge.end_idle_streams()
                await self._until_idle_or_cutoff()
        if until_cutoff.cancelled_caught:
            self._advance(DrainEvent.DEADLINE)
        if self._drain.held and self._status == EXIT_OK:
            self._status = EXIT_FORCED
        await bridge.cut_off()
        self._advance(DrainEvent.STOPPED)

    async def _until_idle_or_cutoff(self) -> None:
        async with anyio.create_task_group() as either:
            either.start_soon(self._leave_at_cutoff, either.cancel_scope)
            await self._drain.until_idle()
            either.cancel_scope.cancel()
        if self._drain.state is DrainState.DRAINING:
            self._advance(DrainEvent.IDLE)

    async def _leave_at_cutoff(self, scope: anyio.CancelScope) -> None:
        await self._drain.until_cutoff()
        scope.cancel()

    def _advance(self, event: DrainEvent) -> None:
        if self._drain.state is not DrainState.ENDED:
            self._drain.advance(event)


def _settle_memory() -> None:
    """What start-up made lives as long as the process: the collector need not look at it again.

    Calls make many objects and next to no cycles, so it need not look for them often either.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


def _listener(bind: Bind) -> socket.socket:
    """A bound socket that does not listen yet: a taken port is known before a child starts."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def _status_of(how: Exit | None) -> int:
    """A child's end as our exit status; never 0, since giving up is a failure."""
    if how is None:
        return EXIT_START
    return 128 + how.signal if how.signal is not None else (how.code or EXIT_START)
