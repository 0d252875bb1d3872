"""Runs one server process, from its start to the report of its end.

Stopping takes three steps: close stdin, which is the only portable request to end; after the grace
period SIGTERM to the whole group; after another one SIGKILL to the whole group. Stdout is still
read during these steps, since a child that cannot flush its last answers cannot end either.

Source: MCP 2025-11-25, Lifecycle, Shutdown, stdio.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Generic, Protocol, TypeVar

import anyio
import msgspec
from anyio.abc import TaskStatus

from mcpbridge.channels.channel import Channel
from mcpbridge.channels.threaded_files import threads_for
from mcpbridge.errors import SpawnError
from mcpbridge.process.process_tree import MARK, EscapedProcess, ProcessTree, send
from mcpbridge.process.spawn import KILL, Process, explained, group_ends, spawn
from mcpbridge.process.spec import ChildSpec
from mcpbridge.process.stderr import StderrDrain
from mcpbridge.rules.access.principals import Secrets
from mcpbridge.rules.faults import Exit

log = logging.getLogger("mcpbridge.process")

_LOOP_READS = hasattr(os, "fork")
"""Whether the loop reads the pipes, and not threads, which may be late on a busy machine."""
_LAST_BYTES_S = 0.05 if _LOOP_READS else 1.0
"""Seconds to read a dead child's stdout, since a grandchild may hold it open without end. All that
the child wrote is in the pipe by then, and its callers must know within 100 ms."""


class ExitReport(msgspec.Struct, frozen=True):
    """The end of a child."""

    how: Exit
    up_s: float
    last_words: tuple[str, ...]
    """The last lines of its stderr."""
    asked: bool
    """Whether the bridge stopped it."""


class Ends(Protocol):
    """A reader of a child's stdout and writer of its stdin, which owns our ends of both pipes."""

    ended: asyncio.Event
    """Set when no more will be read."""

    def open(self) -> AbstractContextManager[None]:
        """Read and write until the block ends, then close both."""

    def close_input(self) -> None:
        """Close the child's stdin; do nothing if it is closed."""

    def end(self) -> None:
        """Stop reading; what was read is still delivered."""


class ChildChannel(Channel, Ends, Protocol):
    """A channel that owns its ends, as a child needs it."""


MakeEnds = Callable[[int, int], ChildChannel]
"""Makes a channel of the descriptors to read and to write."""

E = TypeVar("E", bound=Ends)


class SubprocessChild(Generic[E]):
    """One server process; owned by the task that runs `run`, and ended when that returns."""

    def __init__(
        self,
        spec: ChildSpec,
        make_ends: Callable[[int, int], E],
        process_tree: ProcessTree | None = None,
    ) -> None:
        """Make a child without starting it.

        Args:
            spec: What to start.
            make_ends: Makes its `channel` from the descriptors to read and to write.
            process_tree: Tracks what leaves its group; without one such processes are left alone.
        """
        self._spec = spec
        self._make_ends = make_ends
        self._process_tree = process_tree
        self._escaped: set[EscapedProcess] = set()
        self._mark = ""
        self._killed = False
        self._stop_asked = anyio.Event()
        self._grace_s = 5.0
        self._stop_step = anyio.CancelScope()
        self._asked = False
        self._stdout_ended = asyncio.Event()
        """The channel's, once there is one."""
        self.gone = anyio.Event()
        """Set when the process itself has ended; `how` is set before."""
        self.how: Exit | None = None
        self.exited = anyio.Event()
        """Set when the process and its group have ended; `report` is set before."""
        self.report: ExitReport | None = None
        self.channel: E
        self._process: Process
        self._stderr: StderrDrain
        self.pid = 0

    def __repr__(self) -> str:
        state = "running" if self.pid else "not started"
        if self.exited.is_set():
            state = f"exited: {self.how}"
        elif self._asked:
            state = "stopping"
        return f"<SubprocessChild pid={self.pid} {state} escaped={len(self._escaped)}>"

    @property
    def secrets(self) -> Secrets:
        """Values that it may write and no log may show."""
        return self._spec.hidden

    def probed(self, method: str) -> AbstractContextManager[None]:
        """Log at level debug what it writes about this method until the block ends."""
        return self._stderr.probed(method)

    def stop(self, grace_s: float = 5.0) -> None:
        """Begin to stop it, with `grace_s` seconds before each of the two signals; do not wait.

        If it is being stopped already, a shorter grace applies from now on: the shutdown of the
        bridge has less time than a single child's.
        """
        # The end of its stdout may be seen, and answered with a stop, before that of its process: a
        # process that ends by itself keeps its own exit status.
        self._asked = self._asked or not self._stdout_ended.is_set()
        self._grace_s = min(self._grace_s, grace_s)
        self._stop_step.deadline = min(
            self._stop_step.deadline, anyio.current_time() + self._grace_s
        )
        self._stop_asked.set()

    def kill(self) -> None:
        """Send SIGKILL to the whole group; `run` waits for its end."""
        self.stop(0)
        if not self.gone.is_set() and self.pid:
            # What has left the group is killed by `run`, which does not wait between its steps now.
            self._killed = True
            self._process.signal_group(KILL)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start the process and wait until it and its group have ended.

        Reports itself started when the process runs and its channel is open.

        Raises:
            SpawnError: The process could not be started.
        """
        started_at = anyio.current_time()
        with self._started() as process:
            task_status.started()
            log.info("child.started", extra={"pid": self.pid})
            async with anyio.create_task_group() as watch:
                watch.start_soon(self._watch_exit, process)
                watch.start_soon(self._watch_stdout)
                try:
                    await self._stop_asked.wait()
                finally:
                    # A cancelled task must still end its process. The steps below bound the time.
                    with anyio.CancelScope(shield=True):
                        await self._descend(process)
                    self._stderr.finish()
                    self._report(anyio.current_time() - started_at, self._stderr.tail)
                watch.cancel_scope.cancel()

    @contextmanager
    def _started(self) -> Iterator[Process]:
        with ExitStack() as ends:
            process, (stdin_write, stdout_read, stderr_read) = self._spawned()
            self._process, self.pid = process, process.pid
            if self._process_tree is not None:
                # At once: from here on the reaper ends it if the bridge is killed.
                self._process_tree.took_in(self.pid, self._mark)
            self.channel = self._make_ends(stdout_read, stdin_write)
            self._stdout_ended = self.channel.ended
            ends.enter_context(self.channel.open())
            threads = threads_for(stderr_read)
            self._stderr = StderrDrain(stderr_read, process.pid, self._spec.hidden, threads)
            ends.enter_context(self._stderr.open())
            yield process

    def _spawned(self) -> tuple[Process, tuple[int, int, int]]:
        """Start the process; return it and our ends of its stdin, stdout and stderr."""
        ends: list[int] = []
        try:
            for _ in range(3):
                ends += os.pipe()
            stdin, to_stdin, from_stdout, stdout, from_stderr, stderr = ends
            process = spawn(self._marked(), stdin, stdout, stderr)
        except BaseException as error:
            for fd in ends:
                os.close(fd)
            if isinstance(error, OSError):
                # No descriptor is left for a pipe: this child alone fails, like at any refusal.
                raise SpawnError(self._spec.argv[0], explained(error)) from error
            raise
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        return process, (to_stdin, from_stdout, from_stderr)

    def _marked(self) -> ChildSpec:
        """Return the spec with this child's mark, which all its descendants inherit."""
        if self._process_tree is None:
            return self._spec
        self._mark = self._process_tree.new_mark()
        return msgspec.structs.replace(self._spec, env={**self._spec.env, MARK: self._mark})

    async def _watch_exit(self, process: Process) -> None:
        self._has_gone(await process.wait())
        # Its last answers may still be in the pipe. A process that it left behind may hold the pipe
        # open, so the end of stdout is not waited for any longer.
        with anyio.move_on_after(_LAST_BYTES_S):
            await self.channel.ended.wait()
        self.channel.end()
        self._stop_asked.set()

    async def _watch_stdout(self) -> None:
        # A server that closed its stdout cannot answer any more, even if it still runs.
        await self.channel.ended.wait()
        self._stop_asked.set()

    async def _descend(self, process: Process) -> None:
        began = anyio.current_time()
        if self._process_tree is not None:
            # While it lives: the children of an ended process go to another parent, and are not
            # found below it.
            self._escaped = await self._process_tree.escaped_from(self.pid)
        # MCP, Lifecycle, Shutdown: first the end of stdin, then SIGTERM, then SIGKILL.
        self.channel.close_input()
        for number in (signal.SIGTERM, KILL):
            # Waits for the process and not for `gone`: under cancellation no other task watches it.
            with anyio.move_on_after(self._grace_s) as self._stop_step:
                self._has_gone(await process.wait())
            if self.gone.is_set():
                break
            # The whole group at once: a wrapper such as npx may not pass signals on.
            await self._signal(number)
        self._has_gone(await process.wait())
        await self._end_what_is_left(began)
        with anyio.move_on_after(_LAST_BYTES_S):
            await self.channel.ended.wait()
            if not _LOOP_READS:
                await self._stderr.ended.wait()

    async def _end_what_is_left(self, began: float) -> None:
        """End what the process left behind, within the time that the two steps did not use."""
        tree = self._process_tree
        if tree is not None:
            self._escaped = await tree.left_by(self.pid, self._escaped)
        over_s = anyio.current_time() - began
        left_s = min(self._grace_s, 2 * self._grace_s - over_s)
        if left_s > 0 and (await self._signal(signal.SIGTERM) or self._escaped):
            with anyio.move_on_after(left_s) as self._stop_step:
                await group_ends(self.pid)
                if tree is not None:
                    await tree.until_gone(self._escaped)
        # Always: the time may have been used up, or the group have members that ignore SIGTERM.
        self._process.signal_group(KILL)
        if tree is not None:
            await tree.kill(self._escaped)
            tree.let_go(self.pid)

    async def _signal(self, number: signal.Signals) -> bool:
        """Signal the group and the escaped processes; return whether the group has members."""
        self._killed = self._killed or number is KILL
        has_members = self._process.signal_group(number)
        await send(self._escaped, number)
        return has_members

    def _has_gone(self, returncode: int) -> None:
        if self.gone.is_set():
            return
        self.how = Exit.of(returncode)
        if self.how.signal == KILL and not self._killed and self._process_tree is not None:
            out_of_memory = self._process_tree.memory_ran_out()
            self.how = Exit(signal=self.how.signal, out_of_memory=out_of_memory)
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
