"""The bridge with five bugs in it, run as `python broken_bridge.py ...`.

Opening a session whose client has the experimental capability `broken` fails; SIGWINCH makes a
task of the program's own fail; a line of the server with "break the callback" makes a callback of
the event loop fail; telling the state (SIGUSR1) stands still for a while first;
with the variable ENDLESS_END children are not stopped, and the end waits for them without end.
"""

import os
import signal
import sys
import time
from typing import Any

import anyio

from mcpbridge.app import lifecycle, state_dump
from mcpbridge.bridge.children.child_pool import ChildPool
from mcpbridge.bridge.legacy import session_start
from mcpbridge.channels.pipes import PipeChannel
from mcpbridge.cli import main as cli
from mcpbridge.http.keepalive import KeepAlive

open_session = session_start.SessionStarter._open
keep_alive = KeepAlive.run
state_of = state_dump.state_of
read = PipeChannel._read


async def fail_session(self: Any, session: Any, exchange: Any) -> None:
    """As before, but for the clients that ask for it."""
    if b"broken" in (exchange.request.params or b""):
        raise RuntimeError("a bug of one session")
    await open_session(self, session, exchange)


async def fail_program(self: Any) -> None:
    """As before, until the signal."""
    with anyio.open_signal_receiver(signal.SIGWINCH) as signals:
        async for _ in signals:
            raise RuntimeError("a bug of the program")


def fail_callback(self: Any) -> Any:
    """As before, but for such a line."""
    lines = read(self)
    if any(isinstance(line, bytes) and b"break the callback" in line for line in lines):
        raise RuntimeError("a bug of a callback")
    return lines


def stand_still(app: Any) -> Any:
    """As before, but slowly."""
    time.sleep(2.5)
    return state_of(app)


async def never_stop(self: Any, grace_s: float) -> None:
    """Instead of stopping the children."""
    await anyio.sleep_forever()


def kill_none(self: Any) -> None:
    """Instead of killing the children."""


if os.environ.get("ENDLESS_END"):
    ChildPool.stop_all = never_stop  # type: ignore[method-assign]
    ChildPool.kill_all = kill_none  # type: ignore[method-assign]
session_start.SessionStarter._open = fail_session  # type: ignore[method-assign]
PipeChannel._read = fail_callback  # type: ignore[method-assign]
KeepAlive.run = fail_program  # type: ignore[method-assign]
lifecycle.state_of = stand_still  # type: ignore[attr-defined]
# What runs it puts the words of the usual command line behind it: an interpreter, -m, the package.
cli.main(sys.argv[4:])
