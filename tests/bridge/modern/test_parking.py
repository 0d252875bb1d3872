"""Places of parked calls: the client with most of them gives way."""

from __future__ import annotations

from typing import cast

import pytest

from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.modern.parked_call import ParkedCall
from mcpbridge.bridge.modern.parking import Parking
from mcpbridge.rules.faults import Fault, Unavailable

MOST = 2


class Call:
    """As much of a parked call as its place looks at."""

    def __init__(self, caller: bytes, parked_at: float | None) -> None:
        self.caller, self.parked_at, self.lease = caller, parked_at, object()


class Lot:
    """A parking, and what has ended for others."""

    def __init__(self, most: int = MOST) -> None:
        self.counted = 0
        self.parking = Parking(most, self._count)
        self.ended: list[tuple[ParkedCall, Fault]] = []

    def _count(self) -> None:
        self.counted += 1

    def park(self, caller: bytes, parked_at: float | None = 0.0) -> ParkedCall:
        """A call of a client, parked at this time; None: its child works on it."""
        call = cast(ParkedCall, Call(caller, parked_at))
        with self.parking.coming(caller):
            pass
        self.parking.enter(call, lambda fault: self.ended.append((call, fault)))
        return call


def refused(lot: Lot, caller: bytes) -> str:
    """The text with which a further call of a client is refused."""
    with pytest.raises(Unavailable) as raised, lot.parking.coming(caller):
        pass
    return raised.value.fault.message


def test_the_call_parked_for_longest_of_the_heaviest_client_gives_way() -> None:
    """Its retry learns the cause and the setting, and that it may have had an effect."""
    lot = Lot(3)
    lot.park(b"light", 1.0)
    _, longest = lot.park(b"heavy", 9.0), lot.park(b"heavy", 5.0)
    lot.park(b"new", 10.0)
    ((ended, fault),) = lot.ended
    assert ended is longest
    assert (fault.reason, fault.executed) == ("capacity", "maybe")
    assert "--max-parked 3" in fault.message
    assert (lot.parking.taken, lot.counted) == (3, 1)


def test_no_call_gives_way_to_a_client_with_as_many() -> None:
    """Nor to its own client, which is refused; the refusal names the setting."""
    lot = Lot()
    for caller in (b"a", b"b"):
        lot.park(caller)
    assert "--max-parked 2" in refused(lot, b"a")
    assert "--max-parked 2" in refused(lot, b"c"), "it would have as many as each of them"
    assert (lot.ended, lot.parking.taken) == ([], MOST)


def test_a_call_that_its_child_works_on_is_not_ended() -> None:
    """It has no client that could be slow; as soon as one is parked it may give way."""
    lot = Lot()
    for _ in range(MOST):
        lot.park(b"heavy", None)
    refused(lot, b"new")
    lot = Lot()
    working, parked = lot.park(b"heavy", None), lot.park(b"heavy", 3.0)
    lot.park(b"new")
    assert [call for call, _ in lot.ended] == [parked]
    assert working is not parked


def test_calls_that_begin_at_once_count_each_other() -> None:
    """Before any of them has a child; a place is free again if its call needs none."""
    lot = Lot()
    with lot.parking.coming(b"a"), lot.parking.coming(b"b"):
        refused(lot, b"c")
        assert lot.parking.taken == MOST
    assert lot.parking.taken == 0


def test_a_call_that_is_over_frees_its_place_once() -> None:
    """The next call has it."""
    lot = Lot()
    first = lot.park(b"a")
    lot.park(b"a")
    lot.parking.leave(first)
    lot.parking.leave(first)
    lot.park(b"a")
    assert (lot.parking.taken, lot.ended) == (MOST, [])


def test_a_child_is_taken_from_the_client_that_the_order_names_first() -> None:
    """Of its calls the one parked for longest; the fault names the limit on processes."""
    lot = Lot(9)
    lot.park(b"light", 0.0)
    lot.park(b"heavy", None)
    lot.park(b"heavy", 7.0)
    longest = lot.park(b"heavy", 6.0)
    lot.park(b"next", 5.0)
    ranks = {b"next": 1, b"heavy": 0}
    by_lease = {id(call.lease): call.caller for call in lot.parking.calls}

    def order(lease: Lease) -> int | None:
        return ranks.get(by_lease[id(lease)])

    assert lot.parking.evict(order) == (longest.lease,)
    ((ended, fault),) = lot.ended
    assert ended is longest
    assert "--max-children" in fault.message
    assert lot.parking.evict(lambda lease: None) == ()
    assert lot.counted == 1
