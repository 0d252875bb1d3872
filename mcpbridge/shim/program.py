"""`mcpbridge shim`: beside a server in its container, starts one process for each connection.

A bridge elsewhere connects; the bytes of the connection are the process's stdin and stdout. The
first byte starts the process, not the connection, since probes connect and send nothing: such a
connection costs a descriptor for as long as its peer keeps it open. Nothing is parsed.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress

import anyio
from anyio.abc import TaskGroup

from mcpbridge import __version__
from mcpbridge.channels.sockets import listening, tune
from mcpbridge.errors import SpawnError
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.reaper import kept
from mcpbridge.process.spec import ChildSpec, shown
from mcpbridge.process.subprocess_child import SubprocessChild
from mcpbridge.rules.supervision.shutdown_times import times_within
from mcpbridge.runtime.exit_status import EXIT_FORCED, EXIT_OK, EXIT_START, checked, warn_of_root
from mcpbridge.runtime.signals import EndOrders, heard_signals
from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.shim.splice import Splice
from mcpbridge.telemetry.logs import LogSettings, logging_to_stderr
from mcpbridge.wire.socket_address import Address, TcpAddress, address_of

log = logging.getLogger("mcpbridge.app")

_GROUP = "Shim"
_SILENT = 256
"""Most connections that have not sent a byte; one more closes the oldest."""
_STUCK_S = 5.0
"""Seconds that a process may leave input unread after its peer has left."""
_FLUSH_S = 30.0
"""Seconds that a slow peer has to read the last output of a process that has ended."""
_PART_S = 2.0
"""Seconds that a peer has to close its side too."""
_GOING_S = 1.0
"""A process that has closed its stdin is probably about to end by itself."""
_READ_BYTES = 1 << 16
_AFTER_BRIDGE_S = 0.5
"""Seconds after the cutoff of a bridge that got SIGTERM at the same time: its calls fail with its
shutdown, and not with the end of their server."""
_OUT_OF_DESCRIPTORS_S = 0.1
_ENDING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGQUIT") if hasattr(signal, name)
)


def file_mode(text: str) -> str:
    """Return the permissions of a file in octal digits, or raise.

    Raises:
        ValueError: Not permissions; the text completes a sentence that begins with the value.
    """
    if re.fullmatch(r"0?[0-7]{3}", text) is None:
        raise ValueError("are not permissions; write three octal digits such as 0660")
    return text


class ShimSettings(SettingsSection, frozen=True):
    """The address to listen on, the limits, and the time to end."""

    listen: Address | None = setting(
        None,
        "--listen",
        "Address to listen on; `unix:@NAME` is a name without a file (Linux). Every process that"
        " can connect can use the server.",
        group=_GROUP,
        metavar="unix:PATH|tcp:HOST:PORT",
        parse=address_of,
    )
    mode: str = setting(
        "0660",
        "--mode",
        "Permissions of the file of a unix socket: users who may write to it may connect.",
        group=_GROUP,
        metavar="MODE",
        parse=file_mode,
    )
    max_connections: int = setting(
        32,
        "--max-connections",
        "Server processes at once; a connection that would need one more is closed.",
        group=_GROUP,
        unit=Unit.INTEGER,
        minimum=1,
    )
    grace_s: float = setting(
        30.0,
        "--grace",
        "Time from the first signal until the platform kills; open connections are served until"
        " they close, but no longer than this. 10s as a container's main process outside"
        " Kubernetes.",
        group=_GROUP,
        unit=Unit.SECONDS,
        minimum=6.0,
        also_env=("TERMINATION_GRACE_PERIOD_SECONDS",),
    )


def run(settings: ShimSettings, address: Address, spec: ChildSpec, logs: LogSettings) -> int:
    """Listen until told to end; return the exit status.

    | status | meaning |
    |---|---|
    | 0 | ended as asked |
    | 1 | could not listen |
    | 3 | ended by a second signal |
    | 126, 127 | the command cannot be executed, was not found |
    """
    with logging_to_stderr(logs), ExitStack() as opened:
        if (status := checked(spec)) != EXIT_OK:
            return status
        try:
            listener = opened.enter_context(listening(address, int(settings.mode, 8)))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            log.error("shim.failed", extra={"problem": f"cannot listen on {address}: {reason}"})
            return EXIT_START
        if isinstance(address, TcpAddress):
            address = TcpAddress(address.host, listener.getsockname()[1])
        with kept(spec.env) as reaper:
            shim = _Shim(settings, spec, ProcessTree(reaper), listener, opened.pop_all())
            return anyio.run(shim.run, str(address))


class _Shim:
    """One run of the program, from its first signal handler to its exit status."""

    def __init__(
        self,
        settings: ShimSettings,
        spec: ChildSpec,
        process_tree: ProcessTree,
        listener: socket.socket,
        closing: ExitStack,
    ) -> None:
        self._settings = settings
        self._spec = spec
        self._process_tree = process_tree
        self._listener = listener
        self._closing = closing
        """Closes the listener and removes its file."""
        self._silent: dict[socket.socket, anyio.CancelScope] = {}
        """Connections without a first byte, oldest first."""
        self._children: set[SubprocessChild[Splice]] = set()
        self._served = 0
        self._ending = anyio.Event()
        self._connections: TaskGroup
        self._status = EXIT_OK

    async def run(self, address: str) -> int:
        """Run the shim; return the exit status."""
        self._process_tree.open()
        with self._closing, heard_signals() as signals:
            async with anyio.create_task_group() as watch:
                watch.start_soon(self._hear_signals, signals)
                watch.start_soon(self._process_tree.run)
                extra = {
                    "address": address,
                    "command": shown(self._spec.argv),
                    "version": __version__,
                }
                log.info("shim.started", extra=extra)
                warn_of_root(self._spec)
                await self._serve(watch)
                watch.cancel_scope.cancel()
        log.info("shim.ended", extra={"status": self._status, "connections": self._served})
        return self._status

    async def _serve(self, watch: TaskGroup) -> None:
        async with anyio.create_task_group() as self._connections:
            async with anyio.create_task_group() as accepting:
                accepting.start_soon(self._accept)
                await self._ending.wait()
                accepting.cancel_scope.cancel()
            self._closing.close()
            for scope in self._silent.values():
                scope.cancel()
            watch.start_soon(self._cut_off)

    async def _hear_signals(self, signals: AsyncIterator[signal.Signals]) -> None:
        orders = EndOrders()
        async for received in signals:
            if received not in _ENDING:
                # A closed terminal, and signals that ask a bridge for something.
                continue
            order = orders.received()
            extra = {"signal": received.name, "count": orders.count}
            log.info("shim.signal", extra=extra)
            if order is None:
                continue
            if order == 1:
                self._ending.set()
            elif order == 2:
                self._status = EXIT_FORCED
                for child in self._children:
                    child.kill()
                self._connections.cancel_scope.cancel()
            else:
                os._exit(128 + signal.SIGINT)

    async def _cut_off(self) -> None:
        times = times_within(self._settings.grace_s)
        cutoff_s = times.cutoff_s + _AFTER_BRIDGE_S
        await anyio.sleep(cutoff_s)
        log.warning("shim.cut_off", extra={"connections": len(self._children)})
        for child in self._children:
            child.stop(times.step_s(cutoff_s))
        await anyio.sleep(times.children_s + 1 - cutoff_s)
        self._connections.cancel_scope.cancel()

    async def _accept(self) -> None:
        while True:
            await anyio.wait_readable(self._listener)
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                # The peer has left already.
                continue
            except OSError as error:
                log.warning("shim.accept_failed", extra={"problem": str(error)})
                await anyio.sleep(_OUT_OF_DESCRIPTORS_S)
                continue
            self._connections.start_soon(self._attend, connection)

    async def _attend(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            tune(connection)
            if await self._has_spoken(connection):
                await self._relay(connection)
                await _part(connection)

    async def _has_spoken(self, connection: socket.socket) -> bool:
        """Wait for the first byte; return False if the connection ends without one."""
        if len(self._silent) >= _SILENT:
            next(iter(self._silent.values())).cancel()
        with anyio.CancelScope() as scope:
            self._silent[connection] = scope
            try:
                await anyio.wait_readable(connection)
                return bool(connection.recv(1, socket.MSG_PEEK))
            finally:
                del self._silent[connection]
        return False

    async def _relay(self, connection: socket.socket) -> None:
        """Start a process and connect it to this connection until both have ended."""
        limit = self._settings.max_connections
        if len(self._children) >= limit:
            log.warning("shim.refused", extra={"limit": f"--max-connections {limit}"})
            return
        child = SubprocessChild(
            self._spec, functools.partial(Splice, connection=connection), self._process_tree
        )
        self._children.add(child)
        self._served += 1
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    await tasks.start(child.run)
                except SpawnError as error:
                    log.error("child.spawn_failed", extra={"problem": str(error)})
                    return
                tasks.start_soon(_stop_at_end, child)
                tasks.start_soon(_pass_end_on, child.channel, connection)
                await child.exited.wait()
                self._children.discard(child)
                with anyio.move_on_after(_FLUSH_S):
                    await child.channel.outward.flushed.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._children.discard(child)
            if hasattr(child, "channel"):
                # It writes to the connection, which is closed now.
                child.channel.outward.stop()


async def _stop_at_end(child: SubprocessChild[Splice]) -> None:
    """Stop a process when its peer sends no more, or when it reads no more itself."""
    inward, moved, deserted = child.channel.inward, -1, False
    while not inward.ended.is_set() and not deserted:
        with anyio.move_on_after(_STUCK_S):
            await inward.ended.wait()
        deserted = inward.moved == moved and child.channel.is_deserted
        moved = inward.moved
    if inward.sink_closed:
        with anyio.move_on_after(_GOING_S):
            await child.gone.wait()
    if (inward.source_ended or inward.sink_closed or deserted) and not child.gone.is_set():
        child.stop()


async def _pass_end_on(relay: Splice, connection: socket.socket) -> None:
    """Shut down the connection's sending side at once after the process's last byte."""
    await relay.outward.flushed.wait()
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


async def _part(connection: socket.socket) -> None:
    """Shut down the sending side, and discard what the peer still sends.

    A connection that is closed with unread bytes is reset, and its peer may then lose what it has
    not read.
    """
    connection.shutdown(socket.SHUT_WR)
    with anyio.move_on_after(_PART_S):
        while True:
            await anyio.wait_readable(connection)
            if not connection.recv(_READ_BYTES):
                return
