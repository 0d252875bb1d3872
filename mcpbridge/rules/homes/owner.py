"""Judges from signs whether the replica that has a session is alive, dead or unknown.

Dead means that the session cannot be served there any more, so it may begin elsewhere. Silence
does not prove that: the owner may serve others across a cut network, so it is unknown until its
address has been gone from DNS for two TTLs, the time in which a name that is still valid returns.
An owner is one start of one process: address, port and boot. A container that was restarted keeps
its address, and knows nothing of the sessions that it had.

| sign | verdict |
|---|---|
| ANSWERED | ALIVE |
| REFUSED | DEAD |
| GONE | DEAD |
| OTHER_BOOT | DEAD |
| PROOF_FAILED | DEAD |
| CONNECT_TIMEOUT | UNKNOWN; DEAD if its address is gone |
| UNREACHABLE | UNKNOWN; DEAD if its address is gone |
| RESET | UNKNOWN; DEAD if its address is gone |
| STALLED | UNKNOWN; DEAD if its address is gone |
"""

from __future__ import annotations

import enum

GONE_AFTER_TTLS = 2
"""TTLs of the record without an address after which its replica counts as dead."""


class OwnerSign(enum.Enum):
    """What came of the last attempt to reach an owner."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """No process listens at its address."""
    GONE = "gone"
    """The process there says that it does not have the session and will not have it."""
    OTHER_BOOT = "other_boot"
    """Another process, or another start of the same program, answers there."""
    PROOF_FAILED = "proof_failed"
    """The process there does not know the replicas' common key: it is a stranger."""
    CONNECT_TIMEOUT = "connect_timeout"
    UNREACHABLE = "unreachable"
    """The network says that there is no way to its address at present."""
    RESET = "reset"
    """An open connection broke."""
    STALLED = "stalled"
    """An open connection brings nothing, not even answers of its kernel."""


class OwnerVerdict(enum.Enum):
    """Whether an owner lives."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


OWNER: dict[OwnerSign, OwnerVerdict] = {
    OwnerSign.ANSWERED: OwnerVerdict.ALIVE,
    OwnerSign.REFUSED: OwnerVerdict.DEAD,
    OwnerSign.GONE: OwnerVerdict.DEAD,
    OwnerSign.OTHER_BOOT: OwnerVerdict.DEAD,
    OwnerSign.PROOF_FAILED: OwnerVerdict.DEAD,
    OwnerSign.CONNECT_TIMEOUT: OwnerVerdict.UNKNOWN,
    OwnerSign.UNREACHABLE: OwnerVerdict.UNKNOWN,
    OwnerSign.RESET: OwnerVerdict.UNKNOWN,
    OwnerSign.STALLED: OwnerVerdict.UNKNOWN,
}


def judge_owner(sign: OwnerSign, absent_s: float | None, ttl_s: float) -> OwnerVerdict:
    """Return the verdict on an owner.

    Args:
        sign: What came of the last attempt to reach it.
        absent_s: Seconds since its address was last among those of the peers' name; None if it
            still is, or if the name could not be resolved, which says nothing.
        ttl_s: The TTL of those records, in seconds.
    """
    verdict = OWNER[sign]
    if verdict is not OwnerVerdict.UNKNOWN or absent_s is None:
        return verdict
    gone = absent_s >= GONE_AFTER_TTLS * ttl_s
    return OwnerVerdict.DEAD if gone else OwnerVerdict.UNKNOWN
