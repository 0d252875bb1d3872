"""The header with which one replica proves itself to another."""

from __future__ import annotations

import pytest

from mcpbridge.replicas.peer_proof import BUCKET_S, SKEW_S, PeerProofs, Unproven
from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.access.principals import ANONYMOUS, Principal, Secrets, anonymous_at

A, B = Replica("10.0.0.1", 8001, 0xA), Replica("10.0.0.2", 8001, 0xB)
CALLER = Principal(b"k" * 32, "a\u00e9/b", frozenset(("x", "y")), 2e9, b"c" * 32, account=b"q")
START = 1_800_000_000.0


class Clock:
    """Seconds since the epoch, as a test sets them."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        """The time."""
        return self.now


def proofs(own: Replica, clock: Clock | None = None, *keys: bytes) -> PeerProofs:
    """The proofs of one replica."""
    given = keys or (b"k" * 32,)
    return PeerProofs(own, lambda: given, clock or Clock())


def text(value: bytes) -> str:
    """The header as it is read."""
    return value.decode("ascii")


@pytest.mark.parametrize("caller", [CALLER, ANONYMOUS, anonymous_at("::/64")])
def test_the_other_replica_learns_for_whom_it_is_asked(caller: Principal) -> None:
    """With all that its rules need of the client."""
    assert proofs(B).read(text(proofs(A).header_for(B, caller))) == caller


def test_values_of_a_client_for_its_processes_do_not_travel() -> None:
    """They are read from the live request."""
    principal = Principal(b"key", "name", env=Secrets((("API_KEY", "hidden"),)))
    found = proofs(B).read(text(proofs(A).header_for(B, principal)))
    assert isinstance(found, Principal)
    assert found.env == Secrets()


def test_the_header_stays_the_same_for_a_while() -> None:
    """So that the fast path of the other replica knows the head."""
    clock = Clock()
    maker = proofs(A, clock)
    first = maker.header_for(B, CALLER)
    clock.now = START + BUCKET_S - 1
    assert maker.header_for(B, CALLER) == first
    clock.now = START + BUCKET_S
    assert maker.header_for(B, CALLER) != first


@pytest.mark.parametrize("differs_s", [-SKEW_S, 0.0, SKEW_S + BUCKET_S - 1])
def test_clocks_may_differ(differs_s: float) -> None:
    """By as much as is promised, in both directions."""
    clock = Clock()
    clock.now = START + differs_s
    assert proofs(B, clock).read(text(proofs(A).header_for(B, CALLER))) == CALLER


@pytest.mark.parametrize("differs_s", [-SKEW_S - 1, SKEW_S + BUCKET_S])
def test_a_proof_is_not_valid_for_longer(differs_s: float) -> None:
    """Neither one that is read first then, nor one that was read before."""
    header = text(proofs(A).header_for(B, CALLER))
    clock = Clock()
    reader = proofs(B, clock)
    assert reader.read(header) == CALLER
    clock.now = START + differs_s
    assert reader.read(header) is Unproven.STALE
    assert proofs(B, clock).read(header) is Unproven.STALE


def test_a_proof_for_another_start_or_replica_is_refused() -> None:
    """A container that restarts keeps its address, and has none of the sessions."""
    header = text(proofs(A).header_for(B, CALLER))
    assert proofs(Replica(B.host, B.port, 0xBB)).read(header) is Unproven.OTHER_BOOT
    assert proofs(A).read(header) is Unproven.OTHER_BOOT


def test_keys_are_rotated() -> None:
    """All that are known are accepted, until one is dropped."""
    old, new = b"o" * 32, b"n" * 32
    header = text(proofs(A, None, old).header_for(B, CALLER))
    keys = [[new, old]]
    reader = PeerProofs(B, lambda: keys[0], Clock())
    assert reader.read(header) == CALLER
    keys[0] = [new]
    assert reader.read(header) is Unproven.FORGED


def test_no_other_text_proves_anything() -> None:
    """Changed anywhere, cut, or missing."""
    header, reader = text(proofs(A).header_for(B, CALLER)), proofs(B)
    for place, letter in enumerate(header):
        other = "b" if letter == "a" else "a"
        assert reader.read(header[:place] + other + header[place + 1 :]) is Unproven.FORGED, place
        assert reader.read(header[:place]) is Unproven.FORGED, place
    assert reader.read(header + "a") is Unproven.FORGED
    assert reader.read("\u00e9" * 10) is Unproven.FORGED
    assert reader.read(None) is Unproven.MISSING
