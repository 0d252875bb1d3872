"""Runs a process with several servers: what `app.lifecycle` does for one.

A server that fails ends neither the process nor another server; the process ends when told to.
"""

from __future__ import annotations

import functools
import getpass
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import anyio
import msgspec
from anyio import to_thread

from mcpbridge import __version__
from mcpbridge.app.lifecycle import (
    collect_garbage,
    drain_times,
    run_loop,
    send_last_spans,
    settle_memory,
    settled,
    warn_of_open,
)
from mcpbridge.app.listening import Listening, all_opened
from mcpbridge.app.resource_limits import fitted
from mcpbridge.app.server_routes import SERVERS_PATH
from mcpbridge.app.servers import Fleet, FleetCompanion, checked_entry, fleet_of
from mcpbridge.app.signal_orders import Actions, SignalOrders
from mcpbridge.app.state_dump import tasks_by_coroutine
from mcpbridge.config.model import Config
from mcpbridge.config.otel import MISSING_EXTRA
from mcpbridge.config.servers_file import ServerEntry, ServersFile, read_servers_file
from mcpbridge.errors import ConfigError
from mcpbridge.fleet.directory import Unusable
from mcpbridge.fleet.member import DrainTimes
from mcpbridge.fleet.reload import FileWatch
from mcpbridge.http.server.listeners import url_of
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.reaper import kept
from mcpbridge.runtime.callback_faults import raise_callback_faults
from mcpbridge.runtime.exit_status import (
    EXIT_CONFIG,
    EXIT_FORCED,
    EXIT_OK,
    EXIT_START,
    checked_process,
    warn_of_root,
)
from mcpbridge.runtime.loop_watchdog import LoopWatchdog
from mcpbridge.runtime.signals import heard_signals
from mcpbridge.telemetry.logs import logging_to_stderr

log = logging.getLogger("mcpbridge.app")

_LAST_BYTES_S = 2.0
"""Seconds that clients have to take their last bytes once all servers have ended."""

Entries = Mapping[str, ServerEntry | Unusable]


def run_servers(config: Config, companion: FleetCompanion | None = None) -> int:
    """Serve the servers of the file until told to end; return the exit status.

    The statuses are those of `app.lifecycle.run`, but a server that fails ends nothing, and 2 says
    as well that no server of the file can be served.

    Args:
        config: The configuration of the process; its child has the environment, for the file's
            references and for the servers.
        companion: Gives each server what runs beside it; None: nothing does.

    Raises:
        ConfigError: The file cannot be read.
    """
    fitting = fitted(config)
    source = _Source(config if isinstance(fitting, str) else fitting)
    file = source.read()
    with logging_to_stderr(
        config.settings.logs, companion.text_form if companion is not None else None
    ):
        if (status := checked_process(config.child)) != EXIT_OK:
            return status
        if config.otel_missing:
            log.warning("traces.unavailable", extra={"problem": MISSING_EXTRA})
        if isinstance(fitting, str):
            log.error("serve.failed", extra={"problem": fitting})
            return EXIT_START
        entries = _checked(file)
        if all(isinstance(entry, Unusable) for entry in entries.values()):
            problem = f"{file.path}: no server of this file can be served"
            log.error("serve.failed", extra={"problem": problem})
            return EXIT_CONFIG
        with ExitStack() as held:
            sockets = all_opened(fitting, held)
            if not isinstance(sockets, str):
                fitting = settled(fitting, sockets.mcp[0])
                secure = fitting.settings.tls.cert is not None
                url = functools.partial(url_of, fitting.bind, sockets.mcp[0], secure=secure)
                tree = ProcessTree(held.enter_context(kept(fitting.child.env)))
                fleet = fleet_of(fitting, tree, url, companion)
                listening = Listening(fitting, fleet.endpoints, fleet.budget, sockets)
                life = _Life(fleet, listening, source, companion)
                return run_loop(functools.partial(life.run, file, entries), lambda: life.last_state)
            log.error("serve.failed", extra={"problem": sockets})
            return EXIT_START


def _checked(file: ServersFile) -> Entries:
    return {name: checked_entry(entry) for name, entry in file.servers.items()}


class _Source:
    """The file of servers, as often as it is read; an operator is asked for an input only once."""

    def __init__(self, config: Config) -> None:
        assert config.settings.servers.config is not None
        self.path = Path(config.settings.servers.config)
        self._settings = config.settings
        # A copy: os.environ makes new texts at each look, and each server keeps them.
        self._env = dict(config.child.env)
        self._answers: dict[str, str | None] = {}

    def read(self) -> ServersFile:
        """Read the file; raise ConfigError if it cannot be read."""
        return self._read(_asked_at_terminal())

    def read_again(self) -> ServersFile:
        """Read the file as `read` does, but ask for nothing: clients are being served."""
        return self._read(lambda prompt: None)

    def _read(self, ask: Callable[[str], str | None]) -> ServersFile:
        def remembered(prompt: str) -> str | None:
            if self._answers.get(prompt) is None:
                self._answers[prompt] = ask(prompt)
            return self._answers[prompt]

        return read_servers_file(self.path, self._settings, self._env, remembered)


def _asked_at_terminal() -> Callable[[str], str | None]:
    if not (os.isatty(0) and os.isatty(2)):
        return lambda prompt: None
    return lambda prompt: getpass.getpass(f"{prompt}: ", sys.stderr) or None


class _Life:
    """One run of the process, from its first signal handler to its exit status."""

    def __init__(
        self,
        fleet: Fleet,
        listening: Listening,
        source: _Source,
        companion: FleetCompanion | None,
    ) -> None:
        self._fleet = fleet
        self._companion = companion
        self._listening = listening
        self._source = source
        self._watch = FileWatch(source.path)
        self._status = EXIT_OK
        self.last_state: Mapping[str, object] = {}
        """The state of the process when it crashed."""
        actions = Actions(self._state, self._reread, self._cut_short)
        self._orders = SignalOrders(actions, fleet.config.settings.logs)

    async def run(self, file: ServersFile, entries: Entries) -> int:
        """Run the process with these entries at first; return the exit status."""
        self._fleet.process_tree.open()
        with heard_signals() as signals, LoopWatchdog().watching():
            async with anyio.create_task_group() as watch:
                watch.start_soon(raise_callback_faults)
                watch.start_soon(self._orders.hear, signals)
                watch.start_soon(self._fleet.process_tree.run)
                watch.start_soon(self._fleet.access.authenticator.run)
                watch.start_soon(collect_garbage, self._session_count)
                async with self._fleet.directory.running():
                    self._watch.others(file.env_files)
                    self._fleet.directory.follow(entries, file.default)
                    watch.start_soon(self._follow_files)
                    try:
                        await self._listening.serve(self._serve)
                    except BaseException:
                        # Here, while the state still exists.
                        self.last_state = self._state()
                        raise
                watch.cancel_scope.cancel()
        await send_last_spans(self._fleet.tracer)
        log.info("serve.ended", extra={"status": self._status})
        return self._status

    def _session_count(self) -> int:
        return sum(len(each.bridge.sessions) for each in self._fleet.directory.members)

    async def _serve(self) -> None:
        self._announce()
        settle_memory()
        await self._orders.ending.wait()
        times = DrainTimes(*drain_times(self._fleet.config, self._orders))
        self._fleet.directory.refuse_traffic()
        self._listening.end_keep_alive()
        if await self._fleet.directory.drain(times) and self._status == EXIT_OK:
            self._status = EXIT_FORCED
        self._listening.stop(_LAST_BYTES_S)

    def _announce(self) -> None:
        log.info(
            "serve.started",
            extra={
                "url": self._listening.url(SERVERS_PATH),
                **self._listening.addresses(),
                "config": str(self._source.path),
                "servers": self._fleet.directory.names,
                "version": __version__,
            },
        )
        warn_of_open(self._fleet.config)
        warn_of_root(self._fleet.config.child)
        if self._companion is not None:
            self._companion.started(self._listening.url)

    async def _follow_files(self) -> None:
        """Follow the file and each `envFile` that it names."""
        async for _ in self._watch.changes():
            try:
                # Parsing takes 8 ms for each KiB.
                file = await to_thread.run_sync(self._source.read_again)
                entries = await to_thread.run_sync(_checked, file)
            except ConfigError as error:
                log.error("servers.reload_failed", extra={"problem": str(error)})
                continue
            self._watch.others(file.env_files)
            if not self._fleet.directory.ending:
                changes = self._fleet.directory.follow(entries, file.default)
                log.info("servers.reloaded", extra=msgspec.structs.asdict(changes))

    def _reread(self) -> bool:
        """Read the files again that may have changed."""
        tokens = self._fleet.access.tokens
        if tokens is not None:
            tokens.reload()
        if self._fleet.config.key_file is not None:
            self._fleet.config.key_file.reload()
        self._listening.reread_certificates()
        self._watch.ask()
        return True

    def _cut_short(self) -> None:
        self._status = EXIT_FORCED
        self._fleet.directory.cut_short()
        self._listening.stop_now()
        self._fleet.directory.kill_children()

    def _state(self) -> Mapping[str, object]:
        """Return the state of each server; no session ids and no part of a message."""
        directory = self._fleet.directory
        statuses = ((name, directory.status(name)) for name in directory.names)
        return {
            "servers": {name: status.state for name, status in statuses if status is not None},
            "pids": self._fleet.process_tree.children,
            "tasks": tasks_by_coroutine(),
        }
