"""A server process behind a connection: the listener there starts it and ends it.

One connection is one process, so the end of the connection stands for the end of the process. Its
exit status is unknown. Stopping takes two steps: first the end of the bridge's output, which the
listener passes on as the end of the server's stdin; after a while the end of the connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import AbstractContextManager, nullcontext

import anyio
from anyio.abc import TaskStatus

from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.channels.sockets import dial, socket_channel
from mcpbridge.errors import ServerUnreachable
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.access.principals import NOTHING
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.faults import Exit
from mcpbridge.wire.socket_address import Address

log = logging.getLogger("mcpbridge.process")

_STOP_STEPS = 2
"""A local child gets two steps of this length before it is killed; so does this one, since the
listener stops it in the same way."""


class SocketChild:
    """One connection and the server process at its other end; over when `run` returns."""

    pid = None
    """None, since the process runs elsewhere."""
    secrets = NOTHING
    """None, since only a process of the bridge is given any."""

    def __init__(
        self,
        address: Address,
        limits: PipeLimits,
        within_s: float,
        account: Account | None = None,
    ) -> None:
        """Make a child without connecting yet.

        Args:
            address: The listener that starts a server process for each connection.
            limits: Bounds on what the child may write.
            within_s: Seconds that connecting may take.
            account: See `PipeChannel`.
        """
        self._address = address
        self._limits = limits
        self._within_s = within_s
        self._account = account
        self._stop_asked = anyio.Event()
        self._grace_s = 5.0
        self._stop_step = anyio.CancelScope()
        self._asked = False
        self._stream_ended = asyncio.Event()
        """The channel's, once there is one."""
        self.gone = anyio.Event()
        """Set when the connection has ended."""
        self.how: Exit | None = None
        self.exited = anyio.Event()
        """Set when the connection is over and `report` is set."""
        self.report: ExitReport | None = None
        self.channel: PipeChannel

    def __repr__(self) -> str:
        state = "stopping" if self._asked else "running"
        return f"<SocketChild {self._address} {'gone' if self.gone.is_set() else state}>"

    def probed(self, method: str) -> AbstractContextManager[None]:
        """Do nothing: the stderr of a process elsewhere is not read here."""
        return nullcontext()

    def stop(self, grace_s: float = 5.0) -> None:
        """Begin to stop it, within twice `grace_s` seconds; do not wait.

        A shorter grace of a later call applies from then on, as for a local child.
        """
        # Its end may be seen, and answered with a stop, before this object's task has run.
        self._asked = self._asked or not self._stream_ended.is_set()
        self._grace_s = min(self._grace_s, grace_s)
        deadline = anyio.current_time() + _STOP_STEPS * self._grace_s
        self._stop_step.deadline = min(self._stop_step.deadline, deadline)
        self._stop_asked.set()

    def kill(self) -> None:
        """Close the connection; `run` sees the end of it."""
        self.stop(0)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Connect and wait until the connection has ended.

        Reports itself started when the connection is made; whether there is a process behind it is
        known only from its first answer.

        Raises:
            ServerUnreachable: The address does not accept connections, or not in time.
        """
        self.channel = socket_channel(await self._connected(), self._limits, self._account)
        self._stream_ended = self.channel.ended
        started_at = anyio.current_time()
        with self.channel.open():
            task_status.started()
            log.info("child.connected", extra={"address": str(self._address)})
            async with anyio.create_task_group() as watch:
                watch.start_soon(self._watch_end)
                try:
                    await self._stop_asked.wait()
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._descend()
                    self._report(anyio.current_time() - started_at)
                watch.cancel_scope.cancel()

    async def _connected(self) -> socket.socket:
        try:
            with anyio.fail_after(self._within_s):
                return await dial(self._address)
        except TimeoutError:
            problem = f"no answer within {self._within_s:g} s (--start-timeout)"
            raise ServerUnreachable(str(self._address), problem) from None
        except (OSError, UnicodeError) as error:
            code = getattr(error, "errno", None)
            # Errors of name resolution have other numbers, below zero.
            problem = os.strerror(code).lower() if code is not None and code > 0 else str(error)
            raise ServerUnreachable(str(self._address), problem) from error

    async def _watch_end(self) -> None:
        await self.channel.ended.wait()
        self._has_gone()
        self._stop_asked.set()

    async def _descend(self) -> None:
        self.channel.close_input()
        with anyio.move_on_after(_STOP_STEPS * self._grace_s) as self._stop_step:
            await self.channel.ended.wait()
        self._has_gone()

    def _has_gone(self) -> None:
        self.how = Exit()
        self.gone.set()

    def _report(self, up_s: float) -> None:
        self.report = ExitReport(Exit(), up_s, ("the connection ended",), self._asked)
        extra = {"address": str(self._address), "up_s": round(up_s, 3)}
        if self._asked:
            log.info("child.disconnected", extra=extra)
        else:
            log.warning("child.connection_lost", extra=extra)
        self.exited.set()
