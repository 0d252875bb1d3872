"""One running server process, from its spawn to the report of its end.

Stopping is a ladder: close stdin, which is the only portable request to end; after a grace SIGTERM
to the whole group; after another SIGKILL to the whole group. Stdout is read on meanwhile, since a
child that cannot flush its last answers cannot end either.

Source: MCP 2025-11-25, Lifecycle, Shutdown, stdio.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import anyio
from anyio.abc import TaskStatus

from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.process.group import end_group, signal_group
from mcpbridge.process.spawn import Process, spawn
from mcpbridge.process.spec import ChildSpec
from mcpbridge.process.stderr import StderrDrain
from mcpbridge.rules.faults import Exit

log = logging.getLogger("mcpbridge.process")

_LAST_BYTES_S = 0.25
"""How long a dead child's stdout is read on: a grandchild may hold it open for ever."""


@dataclasses.dataclass(frozen=True, slots=True)
class ExitReport:
    """How a child ended."""

    how: Exit
    up_s: float
    last_words: tuple[str, ...]
    """The last lines of its stderr."""
    asked: bool
    """The bridge stopped it."""


class Child:
    """One server process; owned by whoever runs `run`, and gone when that returns."""

    def __init__(self, spec: ChildSpec, limits: PipeLimits) -> None:
        self._spec = spec
        self._limits = limits
        self._stop_asked = anyio.Event()
        self._grace_s = 5.0
        self._rung = anyio.CancelScope()
        self._asked = False
        self.gone = anyio.Event()
        """Set when the process itself has ended; `how` stands from then on."""
        self.how: Exit | None = None
        self.exited = anyio.Event()
        """Set when the process and its group are gone and `report` stands."""
        self.report: ExitReport | None = None
        self.channel: PipeChannel
        self.pid = 0

    def stop(self, grace_s: float = 5.0) -> None:
        """Begin the stop ladder, with so many seconds on each of its two rungs; does not wait.

        Where it has begun already, a shorter grace counts from now on: the bridge's own end has
        less time than a single child's.
        """
        self._asked = True
        self._grace_s = min(self._grace_s, grace_s)
        self._rung.deadline = min(self._rung.deadline, anyio.current_time() + self._grace_s)
        self._stop_asked.set()

    def kill(self) -> None:
        """SIGKILL to the whole group; `run` sees the end of it."""
        self.stop(0)
        if not self.gone.is_set() and self.pid:
            signal_group(self.pid, signal.SIGKILL)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start the process and stay until it and its group are gone.

        Reports itself started when the process runs and its channel is open.

        Raises:
            SpawnError: The process could not be started.
        """
        started_at = anyio.current_time()
        with self._process() as (process, stderr):
            task_status.started()
            log.info("child.started", extra={"pid": self.pid})
            async with anyio.create_task_group() as watch:
                watch.start_soon(self._watch_exit, process)
                watch.start_soon(self._watch_stdout)
                try:
                    await self._stop_asked.wait()
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._descend(process)
                    stderr.finish()
                    self._report(anyio.current_time() - started_at, stderr.tail)
                watch.cancel_scope.cancel()

    @contextmanager
    def _process(self) -> Iterator[tuple[Process, StderrDrain]]:
        with ExitStack() as ends:
            stdin_read, stdin_write = os.pipe()
            stdout_read, stdout_write = os.pipe()
            stderr_read, stderr_write = os.pipe()
            ours, theirs = (
                (stdin_write, stdout_read, stderr_read),
                (stdin_read, stdout_write, stderr_write),
            )
            try:
                process = spawn(self._spec, *theirs)
            except BaseException:
                for fd in ours:
                    os.close(fd)
                raise
            finally:
                for fd in theirs:
                    os.close(fd)
            self.pid = process.pid
            self.channel = PipeChannel(stdout_read, stdin_write, self._limits)
            ends.enter_context(self.channel.open())
            stderr = StderrDrain(stderr_read, process.pid)
            ends.enter_context(stderr.open())
            yield process, stderr

    async def _watch_exit(self, process: Process) -> None:
        self._has_gone(await process.wait())
        with anyio.move_on_after(_LAST_BYTES_S):
            await self.channel.ended.wait()
        self.channel.end()
        self._stop_asked.set()

    async def _watch_stdout(self) -> None:
        # A server that closes its stdout cannot answer any more, whatever else it does.
        await self.channel.ended.wait()
        self._stop_asked.set()

    async def _descend(self, process: Process) -> None:
        self.channel.close_input()
        for number in (signal.SIGTERM, signal.SIGKILL):
            # The process is waited for and not `gone`: under cancellation nobody else watches it.
            with anyio.move_on_after(self._grace_s) as self._rung:
                self._has_gone(await process.wait())
            if self.gone.is_set():
                break
            signal_group(self.pid, number)
        self._has_gone(await process.wait())
        await end_group(self.pid, self._grace_s)
        with anyio.move_on_after(_LAST_BYTES_S):
            await self.channel.ended.wait()

    def _has_gone(self, returncode: int) -> None:
        self.how = Exit.of(returncode)
        self.gone.set()

    def _report(self, up_s: float, last_words: tuple[str, ...]) -> None:
        how = self.how or Exit()
        self.report = ExitReport(how, up_s, last_words, self._asked)
        extra = {"pid": self.pid, "how": str(how), "up_s": round(up_s, 3)}
        if self._asked:
            log.info("child.stopped", extra=extra)
        else:
            log.warning("child.exited", extra={**extra, "last_words": list(last_words)})
        self.exited.set()
