"""The header with which one replica proves itself to another, and names its client.

    Mcpbridge-Peer: 1.<sender boot>.<target boot>.<bucket>.<caller>.<HMAC-SHA256>

It is the same for 30 s, so that the fast path of the replica that is asked knows the head. It is
valid at one start of one replica, for one caller, and within 90 s, which bears clocks that differ.
The caller is known by its credentials at the replica that the client has asked; the header takes
their place. A reader of the network between replicas could use it as long as it is valid: there
encryption is needed, as for everything else that clients send.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hmac
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mcpbridge.replicas.session_id import Replica
from mcpbridge.rules.access.principals import Principal

HEADER = b"mcpbridge-peer"
VERSION = 1
BUCKET_S = 30
SKEW_S = 90

_FORM = re.compile(
    r"(?P<version>[0-9]{1,4})\.(?P<sender>[0-9a-f]{8})\.(?P<target>[0-9a-f]{8})"
    r"\.(?P<bucket>[0-9]{1,12})\.(?P<caller>[A-Za-z0-9_-]*)\.(?P<mac>[A-Za-z0-9_-]{43})\Z"
)
_MOST_KEPT = 4096


class _Sent(msgspec.Struct, frozen=True, array_like=True):
    """A principal, as it is written."""

    key: bytes
    name: str
    scopes: list[str]
    expires_at: float | None
    credential: bytes
    account: bytes | None
    peer_key: bytes


_decoder = msgspec.json.Decoder(_Sent)


class Unproven(enum.StrEnum):
    """Why a header proves nothing."""

    MISSING = "missing"
    FORGED = "forged"
    """It has another form, or was made with another key."""
    STALE = "stale"
    """It is too old, or the clocks differ by more than `SKEW_S`."""
    OTHER_BOOT = "other_boot"
    """It was made for another replica, or for an earlier start of this one."""


class PeerProofs:
    """A maker and reader of proofs; one for each process."""

    def __init__(
        self, own: Replica, keys: Callable[[], Sequence[bytes]], clock: Callable[[], float]
    ) -> None:
        """Make a maker and reader.

        Args:
            own: This replica.
            keys: Returns the keys of 32 bytes: the first signs, all are accepted. It returns
                another sequence when they have changed.
            clock: Returns seconds since the epoch.
        """
        self._own = own
        self._keys = keys
        self._clock = clock
        self._known: Sequence[bytes] = ()
        self._made: dict[tuple[int, Principal], tuple[int, bytes]] = {}
        self._read: dict[str, tuple[int, Principal]] = {}

    @property
    def boot(self) -> int:
        """Which start of this replica others must name."""
        return self._own.boot

    def header_for(self, target: Replica, principal: Principal) -> bytes:
        """Return the value of the header for a request of this client to another replica."""
        self._follow_keys()
        bucket = int(self._clock()) // BUCKET_S
        found = self._made.get((target.boot, principal))
        if found is None or found[0] != bucket:
            text = (
                f"{VERSION}.{self._own.boot:08x}.{target.boot:08x}.{bucket}.{_written(principal)}"
            )
            value = f"{text}.{_mac(self._keys()[0], text)}".encode()
            _make_room(self._made)
            found = self._made[target.boot, principal] = (bucket, value)
        return found[1]

    def read(self, text: str | None) -> Principal | Unproven:
        """Return the client for which a replica asks with this header, or why it proves nothing."""
        if text is None:
            return Unproven.MISSING
        self._follow_keys()
        found = self._read.get(text)
        if found is None:
            checked = self._checked(text)
            if isinstance(checked, Unproven):
                return checked
            # Only what is proven is kept: others could fill the table.
            _make_room(self._read)
            found = self._read[text] = checked
        bucket, principal = found
        return principal if self._is_fresh(bucket) else Unproven.STALE

    def _checked(self, text: str) -> tuple[int, Principal] | Unproven:
        form = _FORM.match(text)
        if form is None or int(form["version"]) != VERSION:
            return Unproven.FORGED
        signed = text[: form.start("mac") - 1]
        if not any(hmac.compare_digest(_mac(key, signed), form["mac"]) for key in self._keys()):
            return Unproven.FORGED
        bucket = int(form["bucket"])
        if not self._is_fresh(bucket):
            return Unproven.STALE
        if int(form["target"], 16) != self._own.boot:
            return Unproven.OTHER_BOOT
        principal = _principal_in(form["caller"])
        return Unproven.FORGED if principal is None else (bucket, principal)

    def _is_fresh(self, bucket: int) -> bool:
        now = self._clock()
        return now - SKEW_S < (bucket + 1) * BUCKET_S and bucket * BUCKET_S <= now + SKEW_S

    def _follow_keys(self) -> None:
        keys = self._keys()
        if keys is not self._known:
            self._known = keys
            self._made.clear()
            self._read.clear()


def _mac(key: bytes, text: str) -> str:
    return _unpadded(hmac.digest(key, text.encode(), "sha256"))


def _written(principal: Principal) -> str:
    """Return a principal as text, without values for the environment of children.

    These are read from the live request.
    """
    sent = _Sent(
        principal.key,
        principal.name,
        sorted(principal.scopes),
        principal.expires_at,
        principal.credential,
        principal.account,
        principal.peer_key,
    )
    return _unpadded(msgspec.json.encode(sent))


def _principal_in(text: str) -> Principal | None:
    try:
        sent = _decoder.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        return None
    return Principal(
        sent.key,
        sent.name,
        frozenset(sent.scopes),
        sent.expires_at,
        sent.credential,
        account=sent.account,
        peer_key=sent.peer_key,
    )


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _make_room(table: dict[Any, Any]) -> None:
    if len(table) >= _MOST_KEPT:
        del table[next(iter(table))]
