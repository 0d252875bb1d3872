"""The order in which the replicas are asked about a session: rendezvous hashing.

Each replica computes the same order from the same addresses, without a word between them, and a
replica that comes or goes changes the place of no other one. So two replicas with slightly
different views of their peers nearly always agree on the first.

Source: Thaler and Ravishankar, Using Name-Based Mappings to Increase Hit Rates, 1998.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def rendezvous_order(session_id: str, addresses: Iterable[str]) -> list[str]:
    """Return the addresses, each once, in the order in which they are preferred for a session.

    Args:
        session_id: The id that the client sends.
        addresses: Addresses of peer ports, `10.0.0.7:8001`, in any order; spelled alike by all.
    """
    # Hashed first, since a session's id may be longer than a key of BLAKE2.
    key = hashlib.sha256(session_id.encode()).digest()
    return sorted(set(addresses), key=lambda address: (_weight(key, address), address))


def precedes(session_id: str, one: str, other: str) -> bool:
    """Return whether `one` stands before `other` in the order of a session."""
    return rendezvous_order(session_id, (one, other))[0] == one and one != other


def _weight(key: bytes, address: str) -> bytes:
    return hashlib.blake2b(address.encode(), digest_size=8, key=key).digest()
