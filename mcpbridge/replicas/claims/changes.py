"""Writes to the store what changed in sessions, so that their next home knows it.

A session that has changed nothing since its client initialized is not written: its next home
assumes as much. Of one session only the last state counts, so a session that changes faster than
the store answers is written once for several changes. While the store is away they wait.
"""

from __future__ import annotations

import logging
from typing import Protocol

import anyio

from mcpbridge.rules.homes.record import SessionRecord
from mcpbridge.stores.store import Store, StoreAway

log = logging.getLogger("mcpbridge.replicas")


class ChangedSessions(Protocol):
    """The sessions of this replica."""

    def record(self, session_id: str) -> SessionRecord | None:
        """Return what a client has asked for; None if there is no such session."""

    def params(self, session_id: str) -> bytes | None:
        """Return what a client said in `initialize`; None if there is no such session."""


class SessionChanges:
    """The sessions of one replica whose state is not in the store yet, and those that it is of."""

    def __init__(self, store: Store, keep_s: float) -> None:
        """Begin with none; `run` writes.

        Args:
            store: Takes what changed.
            keep_s: Seconds for which it is kept, unless it is written again.
        """
        self._store = store
        self._keep_s = keep_s
        self._waiting: dict[str, None] = {}
        self._wake = anyio.Event()
        self._with_params: set[str] = set()
        """Sessions whose ids do not carry the params of `initialize`."""
        self._written: set[str] = set()
        """Sessions of which the store has something else than the params."""

    def changed(self, session_id: str) -> None:
        """Write a session soon."""
        self._waiting[session_id] = None
        self._wake.set()

    def needs_params(self, session_id: str) -> None:
        """Write the params of a session, too: its id does not carry them."""
        self._with_params.add(session_id)
        self.changed(session_id)

    def adopted(self, session_id: str, *, record: bool, params: bool) -> None:
        """Keep what the store has of a session that was adopted here.

        Args:
            session_id: The session.
            record: Whether the store had what changed in it.
            params: Whether its id does not carry the params.
        """
        if record:
            self._written.add(session_id)
        if params:
            self._with_params.add(session_id)

    def renew(self) -> None:
        """Write all again that the store has, so that it keeps it for longer."""
        for session_id in (*self._written, *self._with_params):
            self._waiting[session_id] = None
        self._wake.set()

    def go_on(self) -> None:
        """Write what waits: the store answers."""
        if self._waiting:
            self._wake.set()

    async def run(self, sessions: ChangedSessions) -> None:
        """Write what changed, until cancelled; `sessions` are those of this replica."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            await self.write(sessions)

    async def write(self, sessions: ChangedSessions) -> None:
        """Write what waits; stop if the store is away."""
        while self._waiting:
            session_id = next(iter(self._waiting))
            # Before it is read: what changes while it is written is written afterwards.
            del self._waiting[session_id]
            try:
                await self._write(session_id, sessions)
            except StoreAway:
                self._waiting[session_id] = None
                return

    async def _write(self, session_id: str, sessions: ChangedSessions) -> None:
        record, params = sessions.record(session_id), sessions.params(session_id)
        if record is None or params is None:
            self._written.discard(session_id)
            self._with_params.discard(session_id)
            return
        fits = True
        if session_id in self._with_params:
            fits = await self._store.keep_params(session_id, params, self._keep_s)
        if record.changes and (record.initialized or session_id in self._written):
            self._written.add(session_id)
        if session_id in self._written:
            fits = await self._store.save(session_id, record, self._keep_s) and fits
        if not fits:
            log.warning("store.too_long")
