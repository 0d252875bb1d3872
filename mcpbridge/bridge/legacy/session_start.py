"""How a session begins: on which child, and with which answer to its `initialize`.

| child | server requests | `initialize` is answered from |
|---|---|---|
| handshake, shared | cannot be asked | the record of the bridge's own handshake |
| handshake, its own | can be asked | the record of another child's handshake, if there is one |
| the same, the first | can be asked | the child's own answer, as it came |
| 2026-07-28 | any | what the child says to `server/discover` |
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable

import anyio

from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.children.child_pool import ChildPoolSettings
from mcpbridge.bridge.children.handshake import initialize
from mcpbridge.bridge.children.lease import ChildSource, Lease
from mcpbridge.bridge.children.server_eras import EraSupervisors
from mcpbridge.bridge.children.shared_state import (
    Subscriber,
    announce_lists,
    catch_up,
    restore,
)
from mcpbridge.bridge.children.supervisor import Ready
from mcpbridge.bridge.legacy.modern_child import ModernChildAdapter
from mcpbridge.bridge.legacy.session import Session
from mcpbridge.bridge.legacy.session_child import (
    ModernChild,
    OwnChild,
    OwnStarts,
    SessionChild,
    SharedChild,
)
from mcpbridge.bridge.legacy.sessionless import SessionlessCalls
from mcpbridge.bridge.tasks import Spawn
from mcpbridge.rules.faults import (
    Fault,
    PoolExhausted,
    Unavailable,
    child_exited,
    handshake_refused,
    session_closed,
)
from mcpbridge.rules.mcp.initialize import ServerProfile, differences, read_profile
from mcpbridge.rules.mcp.methods import INITIALIZED
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY, Era, known, negotiated
from mcpbridge.rules.mcp.to_legacy import introduced
from mcpbridge.rules.supervision.isolation import Isolation, needs_own_child
from mcpbridge.rules.supervision.lifecycle import SessionState
from mcpbridge.wire.messages import Failure, Notification, Reply, Result

log = logging.getLogger("mcpbridge.bridge")

_PATIENCE_S = 0.5
"""Seconds that a client waits for its own child's answer, if it can be answered without it.

The child's own answer, or its refusal, is the better one. The least patient client known is the
validator of the MCP Operator, which waits 5 s; below `--json-window` the answer is plain JSON.
"""


class _FirstChild:
    """The first child of a session that gets one for itself."""

    def __init__(self) -> None:
        self.told: ServerProfile | None = None
        """What the client was told before the child had answered; None: it waits for that."""
        self._over = anyio.Event()
        self._outcome: Lease | Unavailable | None = None

    def answer_early(self, told: ServerProfile) -> None:
        """Record what the client has been told."""
        self.told = told

    def ended(self, outcome: Lease | Unavailable | None) -> None:
        """Record which child it is, or why there is none; the first record counts."""
        if not self._over.is_set():
            self._outcome = outcome
            self._over.set()

    async def lease(self) -> Lease | None:
        """Return the child once it has been introduced; None from the second time on.

        Raises:
            Unavailable: It could not be started.
        """
        await self._over.wait()
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, Unavailable):
            raise outcome
        return outcome


def _no_child() -> _FirstChild:
    """Return the first child of a session that has none: the next one is started."""
    first = _FirstChild()
    first.ended(None)
    return first


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
        self._starts = OwnStarts(child_pool, settings.start_timeout_s, spawn)
        self._profiles: dict[str, ServerProfile] = {}
        """What children of single sessions said of themselves, by the revision asked for."""
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
            # Has to wait: the child is not ready, or it is not known yet what the server speaks.
            self._spawn(self._open, session, exchange)

    async def revive(self, session: Session) -> None:
        """Open a session that another replica had, and lost.

        Its child is told what the client had said, and its client that lists may differ.

        Raises:
            Unavailable: There is no child that could serve it.
        """
        verdict, requested = self._eras.verdict, session.client_profile.requested
        may_be_legacy = verdict is None or verdict.legacy is not False
        if may_be_legacy and self._wants_own(session):
            # As after the end of its child: the next one is introduced before it gets a message.
            profile = self._eras.legacy.profile or self._profiles.get(requested)
            revision = negotiated(requested, profile.revision if profile else NEWEST_LEGACY)
            session.opened(self._own_child(session, _no_child()), revision)
            session.send_queue.seek()
            return
        legacy = (await self._eras.known_for_legacy()).legacy
        lease = await (self._eras.legacy_lease() if legacy else self._eras.modern_lease())
        if _is_over(session):
            raise Unavailable(session_closed())
        assert lease.profile is not None
        newest = lease.profile.revision if legacy else NEWEST_LEGACY
        child = self._shared_child() if legacy else self._modern_child(session)
        session.opened(child, negotiated(requested, newest), lease)
        if legacy and (session.client.level is not None or session.client.subscriptions):
            await catch_up(lease, [*self._subscribers()])
        announce_lists(lease.profile, [session.listener])

    def leaves_behind(self, lease: Lease) -> bool:
        """Keep the child of a session that has ended for the next one, if it is starting."""
        return self._starts.leave(lease)

    def client_left(self, session: Session) -> None:
        """Let the next client have the child of a session whose client left unanswered.

        The session stays as it is until then: its client may come back for the answer.
        """
        if session.state is SessionState.OPENING and session.lease is not None:
            self._starts.abandon(session.lease, functools.partial(self._give_way, session))

    def _give_way(self, session: Session) -> None:
        # Before the session is closed, which would end the child that the next client gets.
        session.listener.rest()
        self._close(session)

    def give_up_left_behind(self) -> Lease | None:
        """Take a child for which no session waits, to be ended; None if there is none."""
        return self._starts.give_up()

    async def prepare_sessionless(self, calls: SessionlessCalls) -> None:
        """Lead calls without a session to the shared child, if that runs without them."""
        lease = await self._eras.first_lease()
        assert lease.profile is not None
        if lease.profile.revision.era is Era.LEGACY:
            await self.open_sessionless(calls)

    async def open_sessionless(self, calls: SessionlessCalls) -> None:
        """Link calls without a session to the shared child, once the eras are known.

        May be called again: only the first call has an effect.
        """
        verdict = await self._eras.known_for_legacy()
        if calls.link.state is SessionState.OPENING:
            calls.opened(self._shared_child() if verdict.legacy else self._modern_child(calls))

    def _shared_child(self) -> SessionChild:
        return SharedChild(self._eras.legacy_lease)

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
        settings, profile = self._settings, session.client_profile
        return needs_own_child(settings.isolation, profile, answers_roots=bool(settings.roots))

    async def _open(self, session: Session, exchange: Exchange) -> None:
        try:
            verdict = self._eras.verdict
            may_be_legacy = verdict is None or verdict.legacy is not False
            if may_be_legacy and self._wants_own(session):
                # Its child starts beside the first process, whatever that turns out to be.
                await self._give_own(session, exchange)
            elif (await self._eras.known_for_legacy()).legacy:
                self._share(session, exchange, await self._eras.legacy_lease())
            else:
                await self._interpret(session, exchange)
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
        """Open a session on its own child.

        Raises:
            Unavailable: It could not be started, and its client has no answer yet.
        """
        first = _FirstChild()
        # A timer and no task: a cancelled task leaves a circle of references behind.
        patience = asyncio.get_running_loop().call_later(
            _PATIENCE_S, self._answer_early, session, exchange, first
        )
        try:
            await self._serve_by_own(session, exchange, first)
        except Unavailable as error:
            first.ended(error)
            if first.told is None:
                raise
        finally:
            patience.cancel()
            # Calls may wait for it.
            first.ended(Unavailable(session_closed()))

    def _answer_early(self, session: Session, exchange: Exchange, first: _FirstChild) -> None:
        """Answer `initialize` while the session's own child still starts; calls wait for it."""
        requested = session.client_profile.requested
        profile = self._eras.legacy.profile or self._profiles.get(requested)
        if profile is not None and session.state is SessionState.OPENING:
            revision, result = profile.answer(requested)
            first.answer_early(ServerProfile(result, revision))
            session.opened(self._own_child(session, first), revision)
            exchange.answered(Result(exchange.request.id, result))
            session.send_queue.seek()

    async def _serve_by_own(self, session: Session, exchange: Exchange, first: _FirstChild) -> None:
        is_over = functools.partial(_is_over, session)
        try:
            start = await self._starts.begin(
                session.client_profile.params, is_over, caller=session.owner.share_key
            )
        except PoolExhausted as error:
            await self._serve_without_own(session, exchange, first, error)
            return
        # Before the answer to `initialize`: the child may notify or ask right behind it.
        session.listener.take(start.lease)
        reply: Reply | None = None
        try:
            reply = await self._starts.finish(start, is_over)
        except Unavailable:
            if is_over() or first.told is not None or not await self._is_modern_only():
                raise
        profile = _profile_in(reply)
        if profile is not None:
            self._introduced(session, start.lease, profile)
            if first.told is None:
                session.opened(self._own_child(session, first), profile.revision)
                exchange.answered(Result(exchange.request.id, profile.result))
            elif differing := differences(first.told, profile):
                log.warning("session.profile_differs", extra={"members": differing})
            first.ended(start.lease)
        elif first.told is None and (reply is None or await self._is_modern_only()):
            await self._interpret_instead(session, exchange, start.lease)
        elif first.told is None and isinstance(reply, Failure):
            exchange.answered(Failure(exchange.request.id, reply.error))
            self._close(session)
        else:
            self._child_pool.release(start.lease)
            raise Unavailable(handshake_refused())

    async def _serve_without_own(
        self, session: Session, exchange: Exchange, first: _FirstChild, exhausted: PoolExhausted
    ) -> None:
        if first.told is not None:
            first.ended(await self._shared_again(session, exhausted))
        elif await self._is_modern_only():
            await self._interpret(session, exchange)
        else:
            self._share(session, exchange, await self._shared_instead(exhausted))

    def _introduced(self, session: Session, lease: Lease, profile: ServerProfile) -> None:
        """Let a child serve its session, from the turn in which its answer is read."""
        self._learned(session, lease, profile)
        if session.client.initialized:
            # The client's own may still wait in the queue: the child must get one, before all else.
            session.send_queue.forget_initialized()
            lease.mux.send(Notification(INITIALIZED))

    def _learned(self, session: Session, lease: Lease, profile: ServerProfile) -> None:
        # Nothing waits between the answer and this line, so the client's next message finds the
        # child usable.
        lease.introduced_as(profile)
        self._eras.found_legacy()
        requested = session.client_profile.requested
        # A client chooses this text: only names of revisions are kept.
        if known(requested) is not None:
            self._profiles[requested] = profile

    async def _is_modern_only(self) -> bool:
        return not (await self._eras.known_for_legacy()).legacy

    async def _interpret_instead(self, session: Session, exchange: Exchange, lease: Lease) -> None:
        """Serve a session by the modern child after its own one has refused `initialize`."""
        if not _is_over(session):
            session.listener.rest()
            self._child_pool.release(lease)
            await self._interpret(session, exchange)

    async def renew(self, session: Session) -> None:
        """Replace the own child of a session that has nothing in flight; see `Session.renew`."""
        before = session.renew()
        if before is not None:
            self._child_pool.release(before)
            await before.child.exited.wait()

    def has_own(self, session: Session) -> bool:
        """Return whether a session has an own child, which `reload` replaces."""
        return session.lease is not None and not session.lease.mux.shared

    async def reload(
        self, session: Session, finish_s: float | None, may_serve: anyio.Event
    ) -> bool:
        """Replace the own child of a session by one that starts now and takes over when ready.

        Args:
            session: The session.
            finish_s: Seconds that calls in flight have to finish on the child before; None: no
                limit.
            may_serve: Set once the program is known to start; before it no child takes over.

        Returns:
            Whether it was replaced. A session without an own child gets a new one next.

        Raises:
            Unavailable: Another child could not be started; the one before serves on.
        """
        before = session.lease
        if before is None or not self.has_own(session):
            return False
        # It may have read the program before it was changed, so its start is finished first.
        await self._starts.over(before)
        if session.lease is not before or session.link.usable is None:
            return False
        lease = await self._child_pool.successor(caller=session.owner.share_key)
        beside = session.listener.beside(lease)
        try:
            profile = await self._introduced_beside(session, lease, may_serve)
            # The session's child may have ended by itself or with its session. Then its next child
            # is a new one in any case.
            needed = session.lease is before and session.link.usable is not None
        except BaseException:
            self._child_pool.release(lease)
            raise
        if not needed:
            self._child_pool.release(lease)
            return False
        # No message comes between these steps: they are one turn of the event loop.
        session.listener.hand_over(lease)
        lease.mux.detach(beside)
        announce_lists(profile, [session.listener])
        settle = functools.partial(catch_up, lease, [session.listener])
        self._child_pool.retire(before, finish_s, settle)
        return True

    async def _introduced_beside(
        self, session: Session, lease: Lease, may_serve: anyio.Event
    ) -> ServerProfile:
        """Tell a child all that the session's present one was told, while that one serves.

        Raises:
            Unavailable: It does not answer, or has ended.
        """
        params = session.client_profile.params
        profile = _profile_in(await initialize(lease, params, self._settings.start_timeout_s))
        if profile is None:
            raise Unavailable(handshake_refused())
        self._learned(session, lease, profile)
        # Before the state is read: the client may change it while the shared child starts.
        await may_serve.wait()
        told = session.client.initialized
        if told:
            lease.mux.send(Notification(INITIALIZED))
        await catch_up(lease, [session.listener])
        if session.client.initialized and not told:
            lease.mux.send(Notification(INITIALIZED))
        if lease.mux.shut:
            raise Unavailable(child_exited(None, "no"))
        return profile

    def _own_child(self, session: Session, first: _FirstChild) -> OwnChild:
        return OwnChild(functools.partial(self._next_own_child, session, first))

    async def _next_own_child(self, session: Session, first: _FirstChild) -> Lease:
        """A child for this session alone that has been told everything the last one was."""
        lease = await first.lease()
        if lease is not None and not lease.mux.shut:
            return lease
        is_over = functools.partial(_is_over, session)
        try:
            start = await self._starts.begin(
                session.client_profile.params,
                is_over,
                lambda: not is_over(),
                session.owner.share_key,
            )
        except PoolExhausted as error:
            return await self._shared_again(session, error)
        session.listener.take(start.lease)
        profile = _profile_in(await self._starts.finish(start, is_over))
        if profile is None:
            self._child_pool.release(start.lease)
            raise Unavailable(handshake_refused())
        self._introduced(session, start.lease, profile)
        # Before the child serves: a call may depend on the subscriptions and the log level.
        await restore(start.lease, profile, [session.listener])
        if is_over():
            self._child_pool.release(start.lease)
            raise Unavailable(session_closed())
        return start.lease

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
        return await self._eras.legacy_lease()

    async def _shared_again(self, session: Session, exhausted: PoolExhausted) -> Lease:
        """Return what `_shared_instead` returns, for a session whose own child is gone."""
        lease = await self._shared_instead(exhausted)
        if session.client.level is not None or session.client.subscriptions:
            await catch_up(lease, [*self._subscribers(), session.listener])
        return lease

    def _fail(self, session: Session, exchange: Exchange, fault: Fault) -> None:
        exchange.refuse(fault)
        self._close(session)


def _profile_in(reply: Reply | None) -> ServerProfile | None:
    return read_profile(reply.result) if isinstance(reply, Result) else None


def _is_over(session: Session) -> bool:
    return session.state is SessionState.CLOSED
