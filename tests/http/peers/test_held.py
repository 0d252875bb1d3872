"""Requests that wait until a replica may adopt their session."""

from __future__ import annotations

import asyncio

import pytest

from mcpbridge.http.disconnect import Disconnect
from mcpbridge.http.peers import held
from mcpbridge.http.peers.held import HELD_S, HeldRequests


def holding(
    requests: HeldRequests, disconnect: Disconnect, wait_s: float = 5.0, size: int = 10
) -> asyncio.Task[bool]:
    """Hold a request whose session may be adopted in some seconds."""
    now = asyncio.get_running_loop().time()
    return asyncio.ensure_future(requests.until(now + wait_s, now, size, disconnect))


async def test_a_request_is_tried_again_when_a_replica_may_adopt() -> None:
    """Also if that time has come already; nothing is kept of it."""
    requests = HeldRequests()
    assert await holding(requests, Disconnect(), wait_s=0.05)
    assert await holding(requests, Disconnect(), wait_s=-1.0)
    assert len(requests) == 0


async def test_a_request_is_not_held_in_vain() -> None:
    """No replica adopts in time, or its time is over."""
    requests, now = HeldRequests(), asyncio.get_running_loop().time()
    assert not await holding(requests, Disconnect(), wait_s=HELD_S + 0.5)
    assert not await requests.until(now, now - HELD_S, 10, Disconnect())


async def test_a_client_that_leaves_frees_its_request() -> None:
    """While it is held, or before; the listener is gone afterwards."""
    requests, disconnect = HeldRequests(), Disconnect()
    waiting = holding(requests, disconnect)
    await asyncio.sleep(0)  # a turn of the loop: it is held
    assert len(requests) == 1
    disconnect.happen()
    assert not await waiting
    assert not await holding(requests, disconnect), "it has left before"
    assert len(requests) == 0


async def test_the_end_of_the_process_lets_all_go() -> None:
    """Each is refused."""
    requests = HeldRequests()
    waiting = [holding(requests, Disconnect()) for _ in range(3)]
    await asyncio.sleep(0)  # a turn of the loop: they are held
    requests.end()
    assert await asyncio.gather(*waiting) == [False] * 3
    assert not await holding(requests, Disconnect()), "it has ended"


async def test_a_task_that_is_cancelled_frees_its_request() -> None:
    """The server cancels what is left at its end."""
    requests, disconnect = HeldRequests(), Disconnect()
    waiting = holding(requests, disconnect)
    await asyncio.sleep(0)  # a turn of the loop: it is held
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(requests) == 0
    disconnect.happen()


@pytest.mark.parametrize(("most", "most_bytes"), [(2, 1 << 20), (9, 25)])
async def test_requests_are_held_within_bounds(
    monkeypatch: pytest.MonkeyPatch, most: int, most_bytes: int
) -> None:
    """Of their number and of their bytes; a place that is free again is taken."""
    monkeypatch.setattr(held, "MOST_HELD", most)
    monkeypatch.setattr(held, "MOST_HELD_BYTES", most_bytes)
    requests, leaving = HeldRequests(), Disconnect()
    waiting = [holding(requests, leaving), holding(requests, Disconnect())]
    await asyncio.sleep(0)  # a turn of the loop: they are held
    assert not await holding(requests, Disconnect())
    leaving.happen()
    assert not await waiting[0]
    assert await holding(requests, Disconnect(), wait_s=0.0)
    requests.end()
    assert not await waiting[1]
