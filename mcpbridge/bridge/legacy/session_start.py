"""How a session begins: on which child, and with which answer to its `initialize`.

| child | server requests | `initialize` is answered from |
|---|---|---|
| legacy, shared | declined | the record of the bridge's own handshake |
| legacy, the session's own | passed on | the child's own answer, as it came |
| 2026-07-28 | translated | the child's answer to `server/discover` |
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.child_pool import ChildPoolSettings
from mcpbridge.bridge.children.handshake import initialize
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.children.server_eras import EraSupervisors
from mcpbridge.bridge.children.shared_state import Subscriber, catch_up, restore
from mcpbridge.bridge.children.supervisor import Ready
from mcpbridge.bridge.legacy.modern_child import ModernChildAdapter
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_child import ModernChild, OwnChild, SessionChild, SharedChild
from mcpbridge.bridge.legacy.sessionless import SessionlessCalls
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.rules.faults import (
    Fault,
    PoolExhausted,
    Unavailable,
    handshake_refused,
    session_closed,
)
from mcpbridge.rules.mcp.initialize import ServerProfile, read_profile
from mcpbridge.rules.mcp.methods import INITIALIZED
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY, negotiated
from mcpbridge.rules.mcp.to_legacy import introduced
from mcpbridge.rules.supervision.isolation import Isolation, needs_own_child
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.wire.messages import Failure, Notification, Reply, Result


class SessionStarter:
    """An opener of the sessions of one tenant; owned by it."""

    def __init__(
        self,
        eras: EraSupervisors,
        child_pool: ChildSource,
        settings: ChildPoolSettings,
        spawn: Spawn,
        close: Callable[[Session], None],
        subscribers: Callable[[], Iterable[Subscriber]],
    ) -> None:
        """Make a starter.

        Args:
            eras: Keeps the shared children.
            child_pool: Starts children of single sessions.
            settings: Decide which sessions get their own child.
            spawn: Starts a task of the bridge, which outlives the request.
            close: Ends a session whose opening fails.
            subscribers: Returns the clients that use the shared child.
        """
        self._eras = eras
        self._child_pool = child_pool
        self._settings = settings
        self._spawn = spawn
        self._close = close
        self._subscribers = subscribers

    def open(self, session: Session, exchange: Exchange) -> None:
        """Open a session; the exchange gets the answer to `initialize`, or a fault."""
        state = self._eras.legacy.state
        verdict = self._eras.verdict
        shares = verdict is not None and verdict.legacy and not self._wants_own(session)
        if shares and isinstance(state, Ready) and not state.lease.mux.shut:
            self._share(session, exchange, state.lease)
        else:
            self._spawn(self._open, session, exchange)

    async def open_sessionless(self, calls: SessionlessCalls) -> None:
        """Link calls without a session to the shared child, once the eras are known.

        May be called again: only the first call has an effect.
        """
        verdict = await self._eras.known()
        if calls.link.state is SessionState.OPENING:
            calls.opened(self._shared_child() if verdict.legacy else self._modern_child(calls))

    def _shared_child(self) -> SessionChild:
        return SharedChild(self._eras.legacy.lease)

    def _modern_child(self, client: Session | SessionlessCalls) -> SessionChild:
        adapter = ModernChildAdapter(
            client.client,
            client.link.find,
            client.server_requests,
            client.listener.on_notification,
            self._spawn,
        )
        return ModernChild(self._eras.modern_lease, adapter)

    def _wants_own(self, session: Session) -> bool:
        return needs_own_child(self._settings.isolation, session.client_profile)

    async def _open(self, session: Session, exchange: Exchange) -> None:
        try:
            verdict = await self._eras.known()
            if not verdict.legacy:
                await self._interpret(session, exchange)
            elif self._wants_own(session):
                await self._give_own(session, exchange)
            else:
                self._share(session, exchange, await self._eras.legacy.lease())
        except Unavailable as error:
            self._fail(session, exchange, error.fault)

    def _share(self, session: Session, exchange: Exchange, lease: Lease) -> None:
        if _is_over(session):
            return
        assert lease.profile is not None
        revision, result = lease.profile.answer(session.client_profile.requested)
        session.opened(self._shared_child(), revision, lease)
        exchange.answered(Result(exchange.request.id, result))

    async def _interpret(self, session: Session, exchange: Exchange) -> None:
        lease = await self._eras.modern_lease()
        if _is_over(session):
            return
        assert lease.profile is not None
        revision = negotiated(session.client_profile.requested, NEWEST_LEGACY)
        session.opened(self._modern_child(session), revision, lease)
        exchange.answered(Result(exchange.request.id, introduced(lease.profile, revision)))

    async def _give_own(self, session: Session, exchange: Exchange) -> None:
        try:
            lease = await self._child_pool.own()
        except PoolExhausted as error:
            self._share(session, exchange, await self._shared_instead(error))
            return
        if _is_over(session):
            # The client left while the child started: this is the only code that can end the child.
            self._child_pool.release(lease)
            return
        session.listener.take(lease)
        reply = await self._introduce(session, lease)
        if _is_over(session):
            return
        profile = _profile_in(reply)
        if profile is not None:
            lease.introduced_as(profile)
            own = OwnChild(functools.partial(self._own_child_again, session))
            session.opened(own, profile.revision)
            exchange.answered(Result(exchange.request.id, profile.result))
        elif isinstance(reply, Failure):
            exchange.answered(Failure(exchange.request.id, reply.error))
            self._close(session)
        else:
            raise Unavailable(handshake_refused())

    async def renew(self, session: Session) -> None:
        """Replace the own child of a session that has nothing in flight; see `Session.renew`."""
        before = session.renew()
        if before is not None:
            self._child_pool.release(before)
            await before.child.exited.wait()

    async def _own_child_again(self, session: Session) -> Lease:
        """Return a fresh child, restored to the state that this session's last child had."""
        try:
            lease = await self._child_pool.own(wanted=lambda: not _is_over(session))
        except PoolExhausted as error:
            return await self._shared_again(session, error)
        try:
            profile = _profile_in(await self._introduce(session, lease))
            if profile is None:
                raise Unavailable(handshake_refused())
        except Unavailable:
            self._child_pool.release(lease)
            raise
        lease.introduced_as(profile)
        if session.client.initialized:
            lease.mux.send(Notification(INITIALIZED))
        await restore(lease, profile, [session.listener])
        if _is_over(session):
            self._child_pool.release(lease)
            raise Unavailable(session_closed())
        return lease

    async def _shared_instead(self, exhausted: PoolExhausted) -> Lease:
        """Return the shared child for a session that should have its own and gets none.

        Its client is served, and the server's requests to it are declined.

        Raises:
            PoolExhausted: `exhausted`, if the operator wants a child for each session.
            Unavailable: There is no shared child now.
        """
        if self._settings.isolation is not Isolation.AUTO:
            raise exhausted
        self._child_pool.fell_back()
        return await self._eras.legacy.lease()

    async def _shared_again(self, session: Session, exhausted: PoolExhausted) -> Lease:
        """Return what `_shared_instead` returns, for a session whose own child is gone."""
        lease = await self._shared_instead(exhausted)
        if session.client.level is not None or session.client.subscriptions:
            await catch_up(lease, [*self._subscribers(), session.listener])
        return lease

    async def _introduce(self, session: Session, lease: Lease) -> Reply:
        return await initialize(
            lease, session.client_profile.params, self._settings.start_timeout_s
        )

    def _fail(self, session: Session, exchange: Exchange, fault: Fault) -> None:
        exchange.refuse(fault)
        self._close(session)


def _profile_in(reply: Reply) -> ServerProfile | None:
    return read_profile(reply.result) if isinstance(reply, Result) else None


def _is_over(session: Session) -> bool:
    return session.state is SessionState.CLOSED
