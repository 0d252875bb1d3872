"""Which client is charged with the end of a child, and how long it is paused."""

from __future__ import annotations

from mcpbridge.rules.supervision.crashes import (
    FIRST_PAUSE_S,
    MAX_PAUSE_S,
    WINDOW_S,
    CrashCharge,
    CrashCharges,
)

A, B = b"a", b"b"


def test_an_end_without_a_call_is_charged_to_no_client() -> None:
    """The bridge's own requests have no caller."""
    charges = CrashCharges()
    assert charges.charge([], 0.0) is None
    assert charges.charge([b"", b""], 0.0) is None
    assert not charges.paused


def test_the_pauses_of_a_client_double_from_the_second_end_on() -> None:
    """Up to a minute; the first end is forgiven."""
    charges = CrashCharges()
    pauses = []
    for number in range(10):
        charge = charges.charge([A], float(number))
        assert charge is not None
        assert (charge.caller, charge.crashes) == (A, number + 1)
        pauses.append(charge.pause_s)
    assert pauses == [0.0, *(min(FIRST_PAUSE_S * 2**n, MAX_PAUSE_S) for n in range(9))]


def test_a_pause_ends_by_itself_and_concerns_one_client() -> None:
    """Nothing of it is left then."""
    charges = CrashCharges()
    charges.charge([A], 10.0)
    charges.charge([A], 10.0)
    assert charges.pause_left_s(A, 10.25) == FIRST_PAUSE_S - 0.25
    assert charges.pause_left_s(B, 10.25) == 0.0
    assert charges.pause_left_s(A, 10.0 + FIRST_PAUSE_S) == 0.0
    assert not charges.paused


def test_of_several_clients_the_one_that_was_charged_most_is_charged() -> None:
    """Else the one whose call was sent last."""
    charges = CrashCharges()
    assert charges.charge([A, B, b""], 0.0) == CrashCharge(B, 1, 0.0)
    assert charges.charge([A], 1.0) == CrashCharge(A, 1, 0.0)
    assert charges.charge([A], 2.0) == CrashCharge(A, 2, FIRST_PAUSE_S)
    assert charges.charge([A, B], 3.0) == CrashCharge(A, 3, 2 * FIRST_PAUSE_S)


def test_an_end_is_forgotten_after_a_while() -> None:
    """Ten minutes later it is the first again."""
    charges = CrashCharges()
    charges.charge([A], 0.0)
    assert charges.charge([A], WINDOW_S) == CrashCharge(A, 1, 0.0)


def test_the_ends_of_many_clients_take_bounded_memory() -> None:
    """The client that was charged longest ago is forgotten first."""
    charges = CrashCharges()
    for number in range(3000):
        charges.charge([b"%d" % number], 0.0)
    assert charges.charge([b"0"], 1.0) == CrashCharge(b"0", 1, 0.0)
    assert charges.charge([b"2999"], 1.0) == CrashCharge(b"2999", 2, FIRST_PAUSE_S)


def test_a_client_that_is_charged_again_is_not_the_next_to_be_forgotten() -> None:
    """What counts is its last end, not its first."""
    charges = CrashCharges()
    charges.charge([A], 0.0)
    for number in range(1000):
        charges.charge([b"%d" % number], 0.0)
    charges.charge([A], 1.0)
    for number in range(1000, 1500):
        charges.charge([b"%d" % number], 1.0)
    assert charges.charge([A], 2.0) == CrashCharge(A, 3, 2 * FIRST_PAUSE_S)
