"""A server that is reached by HTTP, as a child of a bridge: one of its sessions is one child.

The child goes on while the server is away or restarts: its client begins another session. So it
only ends by `stop`. While the server is away it is asked from time to time whether it is back, and
the bridge is not ready.
"""

from __future__ import annotations

import functools
import logging
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus

from mcpbridge.bridge.readiness import REMOTE, Readiness
from mcpbridge.channels.channel import Channel
from mcpbridge.channels.pipes import PipeLimits
from mcpbridge.client.http_client import http_url
from mcpbridge.config.remote_server import RemoteServer, login_file
from mcpbridge.errors import ServerUnreachable
from mcpbridge.process.child import MakeChild
from mcpbridge.process.subprocess_child import ChildChannel, ExitReport, MakeEnds
from mcpbridge.reverse.child.remote_channel import RemoteChannel
from mcpbridge.reverse.login.kept_login import KeptLogin
from mcpbridge.reverse.session.remote_http import (
    Remote,
    RemoteHttp,
    absence_in,
    authorities_for,
    is_exposed,
)
from mcpbridge.reverse.session.tokens import Tokens
from mcpbridge.rules.access.principals import Secrets
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.faults import UNREACHABLE, Exit, Unavailable

log = logging.getLogger("mcpbridge.reverse")
_child_log = logging.getLogger("mcpbridge.process")

_CONNECT_S = 0.9
"""Seconds for a connection, so that each call has its answer or its error within a second."""
_ASK_S = 5.0
"""Seconds for an answer that only shows that the server is there."""
_ASK_EVERY_S = 1.0
_REFUSED = "give valid credentials in headers"
_LOG_IN = "run mcpbridge login with its URL"
"""What to do if the server answers 401."""


class RemoteUnreachable(ServerUnreachable):
    """A server elsewhere that cannot be reached."""

    setting = "url"

    def __init__(self, name: str, problem: str, *, known: bool) -> None:
        super().__init__(name, problem)
        self.known = known


class RemotePlace:
    """A server elsewhere, as all its children of one bridge know it."""

    def __init__(
        self,
        remote: Remote,
        secrets: Secrets,
        readiness: Readiness,
        tokens: Tokens | None = None,
    ) -> None:
        """Make it.

        Args:
            remote: The server.
            secrets: Values of its headers.
            readiness: Blocked while the server is away.
            tokens: Bearer tokens for it; None: none is sent.
        """
        self._tokens = tokens
        self.remote = remote
        self.secrets = secrets
        self._readiness = readiness
        self._authorities: ssl.SSLContext | None = None
        self._told = ""

    async def http(self, problems: ServerAbsence) -> RemoteHttp:
        """Return new connections to it."""
        if self._authorities is None:
            # In a thread: the authorities of the system are read from a file.
            self._authorities = await to_thread.run_sync(authorities_for, self.remote.url)
        return RemoteHttp(self.remote, self._tokens, self._authorities, problems.note)

    def is_news(self, problem: str) -> bool:
        """Return whether a start has not failed for this reason since the server was reached."""
        before, self._told = self._told, problem
        return problem != before

    def away(self, problem: str) -> None:
        """Record that the server cannot be reached."""
        text = f"the remote MCP server {self.remote.name} cannot be reached: {problem}"
        self._readiness.block(REMOTE, UNREACHABLE, text)

    def back(self) -> None:
        """Record that the server can be reached, or is not needed."""
        self._told = ""
        self._readiness.unblock(REMOTE)


class ServerAbsence:
    """What one child has noticed of its server: whether it is away."""

    def __init__(self, place: RemotePlace) -> None:
        self._place = place
        self._serves = False
        self.away = anyio.Event()
        """Set while the server is away; another event takes its place when it is back."""

    def begin(self) -> None:
        """Note from now on what happens: the server has been reached once."""
        self._serves = True

    def note(self, problem: str) -> None:
        """Take what a request has shown; an empty problem: the server is there."""
        if not self._serves:
            return
        if problem:
            self._place.away(problem)
            if not self.away.is_set():
                log.warning(
                    "connect.away", extra={"url": self._place.remote.name, "problem": problem}
                )
            self.away.set()
        elif self.away.is_set():
            log.info("connect.back", extra={"url": self._place.remote.name})
            self.away = anyio.Event()
            self._place.back()


MakeDecorated = Callable[[RemoteChannel], ChildChannel]


def remote_children(
    server: RemoteServer,
    limits: PipeLimits,
    account: Account,
    decorate: Callable[[MakeEnds, Secrets], MakeEnds] | None,
    readiness: Readiness,
) -> MakeChild:
    """Return what makes children of a server elsewhere.

    Args:
        server: The server.
        limits: The longest message that it may send.
        account: Charged for what waits to be sent.
        decorate: Decorates the channels; None: they are not decorated.
        readiness: Blocked while the server is away.
    """
    secrets, place = Secrets(server.headers), http_url(server.url)
    remote = Remote(
        place,
        dict(server.headers),
        None,
        _CONNECT_S,
        limits.max_message_bytes,
        server.sse,
        "--max-message-bytes",
        _REFUSED if _has_credentials(server) else f"{_LOG_IN}, or {_REFUSED}",
    )
    tokens = None if _has_credentials(server) else KeptLogin(login_file(str(place)), place)
    if is_exposed(remote):
        log.warning("connect.in_clear_text", extra={"url": remote.name})
    # It logs addresses with their query and the headers of responses, which may be secrets.
    for library in ("httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.WARNING)
    decorated = None
    if decorate is not None:
        decorated = functools.partial(_decorated, decorate, secrets)
    return functools.partial(
        RemoteChild, RemotePlace(remote, secrets, readiness, tokens), account, decorated
    )


def _has_credentials(server: RemoteServer) -> bool:
    return any(name == "authorization" for name, _ in server.headers)


def _decorated(
    decorate: Callable[[MakeEnds, Secrets], MakeEnds], secrets: Secrets, inner: RemoteChannel
) -> ChildChannel:
    return decorate(lambda stdout_fd, stdin_fd: inner, secrets)(-1, -1)


class RemoteChild:
    """A client of a server elsewhere; over when `run` returns."""

    pid = None
    """None, since the process runs elsewhere."""

    def __init__(
        self, place: RemotePlace, account: Account, decorate: MakeDecorated | None = None
    ) -> None:
        """Make a child without connecting yet.

        Args:
            place: The server.
            account: Charged for what waits to be sent.
            decorate: Decorates its channel; None: it is not decorated.
        """
        self._place = place
        self._account = account
        self._decorate = decorate
        self._absence = ServerAbsence(place)
        self._stop_asked = anyio.Event()
        self.gone = anyio.Event()
        """Set when it has ended."""
        self.how: Exit | None = None
        self.exited = anyio.Event()
        """Set when its session has ended and `report` is set."""
        self.report: ExitReport | None = None
        self.channel: Channel

    def __repr__(self) -> str:
        return f"<RemoteChild {self._place.remote.name} {'gone' if self.gone.is_set() else ''}>"

    @property
    def secrets(self) -> Secrets:
        """Values of the headers, which no log may show."""
        return self._place.secrets

    def probed(self, method: str) -> AbstractContextManager[None]:
        """Do nothing: there is no stderr that it writes to."""
        return nullcontext()

    def stop(self, grace_s: float = 5.0) -> None:
        """Begin to end its session; do not wait. Calls in flight fail, whatever the grace."""
        self._stop_asked.set()

    def kill(self) -> None:
        """End it at once."""
        self.stop(0)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`; started once the server has been reached.

        Raises:
            RemoteUnreachable: No connection could be made.
        """
        http = await self._place.http(self._absence)
        inner = RemoteChannel(http, self._account)
        problem = "it was not asked"
        began = anyio.current_time()
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(inner.run)
                problem = await _reach(http)
                if not problem:
                    await self._serve(inner, http, task_status)
                tasks.cancel_scope.cancel()
        finally:
            if not problem:
                self._end(inner.problem, anyio.current_time() - began)
        if problem:
            known = not self._place.is_news(problem)
            raise RemoteUnreachable(self._place.remote.name, problem, known=known)

    async def _serve(
        self, inner: RemoteChannel, http: RemoteHttp, task_status: TaskStatus[None]
    ) -> None:
        channel = inner if self._decorate is None else self._decorate(inner)
        self.channel = channel
        self._absence.begin()
        self._place.back()
        async with anyio.create_task_group() as asking:
            try:
                with channel.open():
                    task_status.started()
                    # In the turn in which the channel is opened: its decorators take it as theirs.
                    _child_log.info("child.connected", extra={"address": self._place.remote.name})
                    asking.start_soon(self._ask_while_away, http)
                    await self._stop_asked.wait()
            finally:
                self.how = Exit()
                self.gone.set()
            asking.cancel_scope.cancel()

    async def _ask_while_away(self, http: RemoteHttp) -> None:
        while True:
            await self._absence.away.wait()
            await anyio.sleep(_ASK_EVERY_S)
            await _reach(http)

    def _end(self, problem: str, up_s: float) -> None:
        if self._absence.away.is_set():
            self._place.back()
        self.report = ExitReport(Exit(), up_s, (problem,) if problem else (), asked=True)
        extra = {"address": self._place.remote.name, "up_s": round(up_s, 3)}
        _child_log.info("child.disconnected", extra=extra)
        self.exited.set()


async def _reach(http: RemoteHttp) -> str:
    """Ask the server for something without an effect; return why it is away, or an empty text."""
    try:
        with anyio.move_on_after(_ASK_S):
            async with http.exchange("OPTIONS", {}) as response:
                return absence_in(response)
    except Unavailable as failed:
        return failed.problem or str(failed)
    return ""
