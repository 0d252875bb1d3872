"""One principal's view of the pool: its children count for it and end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import cast

import pytest

from mcpbridge.bridge.children.child_pool import Order
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.tenant_pool import TenantPool
from mcpbridge.process.child import Child
from mcpbridge.rules.faults import PoolExhausted, Unavailable
from tests.bridge.children.test_child_pool import FakeChild, fake, world
from tests.bridge.playbook import bounded, turns


@bounded
async def test_its_shared_child_takes_a_place_like_any_other() -> None:
    """Only that of the first principal has one reserved."""
    async with world(3) as made:
        pool = TenantPool(made.pool, None, b"a")
        shared = await pool.shared()
        own = await pool.own()
        with pytest.raises(PoolExhausted):
            await pool.own()
        assert (set(pool.leases), shared.mux.shared, own.mux.shared) == ({shared, own}, True, False)


@bounded
async def test_a_child_that_has_ended_is_not_its_child_any_more() -> None:
    """Its successor is, which takes no place while the one before runs."""
    async with world(2) as made:
        pool = TenantPool(made.pool, None, b"a")
        first = await pool.own()
        second = await pool.successor()
        assert set(pool.leases) == {first, second}
        fake(first).end()
        assert pool.leases == [second]


@bounded
async def test_children_with_variables_of_a_client_are_never_spares() -> None:
    """A spare has been started without them, and could serve any client."""
    async with world(5) as made:
        made.pool.keep_spares(1)
        await turns()
        (spare,) = made.children
        own: list[FakeChild] = []

        def make() -> Child:
            own.append(FakeChild(made))
            return cast(Child, own[-1])

        lease = await TenantPool(made.pool, make, b"a").own()
        assert (fake(lease), spare.asked) == (own[0], False)
        plain = await TenantPool(made.pool, None, b"b").own()
        assert fake(plain) is spare


@bounded
async def test_a_child_counts_for_the_principal_unless_a_client_is_named() -> None:
    """Clients without authentication are one principal and are told apart by their addresses."""
    ranks: list[list[int | None]] = []
    async with world(4) as made:
        pool = TenantPool(made.pool, None, b"a")
        leases = [await pool.own(), await pool.own(), await pool.own(caller=b"peer")]

        def looks(order: Order) -> Collection[Lease]:
            ranks.append([order(lease) for lease in leases])
            return ()

        async with made.pool.running([looks]):
            with pytest.raises(PoolExhausted):
                await made.pool.own(caller=b"new")
            pool.pass_on(leases[1], b"peer")
            pool.pass_on(leases[2], b"")
            pool.pass_on(leases[2], b"peer")
            with pytest.raises(PoolExhausted):
                await made.pool.own(caller=b"new")
    assert ranks == [[0, 0, 1], [1, 0, 0]]


@bounded
async def test_closing_it_waits_until_its_places_are_free() -> None:
    """The children of others stay."""
    async with world(4) as made:
        pool = TenantPool(made.pool, None, b"a")
        other = await made.pool.own()
        mine = [await pool.own(), await pool.own()]
        made.obeys = False
        closing = asyncio.create_task(pool.close())
        await turns()
        assert [fake(each).asked for each in (*mine, other)] == [True, True, False]
        fake(mine[0]).end()
        await turns()
        assert not closing.done()
        fake(mine[1]).end()
        await closing
        assert (pool.leases, made.pool.children) == ([], 1)


@bounded
async def test_a_start_that_fails_leaves_nothing_behind() -> None:
    """Its place is free for the next."""
    async with world(2) as made:
        pool = TenantPool(made.pool, None, b"a")
        made.broken = True
        with pytest.raises(Unavailable):
            await pool.own()
        made.broken = False
        lease = await pool.own()
        assert pool.leases == [lease]
