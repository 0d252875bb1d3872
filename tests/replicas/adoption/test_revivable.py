"""Which sessions a replica may revive."""

from __future__ import annotations

import pytest

from mcpbridge.replicas.adoption.revivable import RevivableSessions
from mcpbridge.replicas.session_id import SessionId
from mcpbridge.replicas.tombstones import Tombstones, digest_of
from mcpbridge.rules.access.principals import ANONYMOUS
from mcpbridge.rules.homes.adoption import REVIVABLE_S
from tests.support.replica_world import LOST, NOT_REVIVABLE, NOW_S, Host, World


class Revivable:
    """The sessions that one replica may revive, all by one id."""

    def __init__(self, read: SessionId | None) -> None:
        world = World(0)
        world.ids = {"m1": read} if read is not None else {}
        self.tombstones = Tombstones(lambda: 0.0)
        self.sessions = RevivableSessions(Host(world), self.tombstones, lambda: NOW_S, None)

    async def params(self) -> bytes | None:
        """The params of the session; None if it may not be revived."""
        try:
            return await self.sessions.params("m1", ANONYMOUS)
        except LookupError:
            return None


@pytest.mark.parametrize("age_s", [0.0, REVIVABLE_S])
async def test_an_id_with_params_is_revived_unless_its_client_has_deleted_it(age_s: float) -> None:
    """At any age up to the last."""
    made = Revivable(SessionId(LOST, int(NOW_S - age_s), params=b"{}"))
    assert await made.params() == b"{}"
    made.tombstones.add((digest_of("m2"),))
    assert await made.params() == b"{}"
    made.tombstones.add((digest_of("m1"),))
    assert await made.params() is None


@pytest.mark.parametrize("read", NOT_REVIVABLE, ids=repr)
async def test_other_ids_are_not(read: SessionId | None) -> None:
    """Without params only a store could tell them."""
    assert await Revivable(read).params() is None
