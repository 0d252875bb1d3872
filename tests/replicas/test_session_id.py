"""Session ids that name the replica that has the session."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.replicas.session_id import (
    MAX_AGE_S,
    MAX_ID_CHARACTERS,
    Replica,
    SessionId,
    SessionIds,
    Unreadable,
)
from mcpbridge.wire.headers import is_session_id

KEY, OTHER = b"k" * 32, b"o" * 32
OWN = Replica("10.1.2.3", 8001, 0xDEADBEEF)
NOW = 1_800_000_000.0
PLAIN = (
    b'{"protocolVersion":"2025-11-25","capabilities":{},'
    b'"clientInfo":{"name":"mcp","version":"0.1.0"}}'
)
FORGERIES = 100_000
LONG_PARAMS = random.Random(1).randbytes(500)
"""Cannot be compressed: the id is nearly as long as any is."""


def ids(*keys: bytes, own: Replica = OWN, clock: Callable[[], float] = lambda: NOW) -> SessionIds:
    """The ids of one replica, with these keys."""

    found = keys or (KEY,)
    return SessionIds(own, lambda: found, clock)


def test_the_longest_id_is_one_that_clients_may_send() -> None:
    """The header is refused only beyond what a replica issues."""
    text = ids().new(b"", LONG_PARAMS)
    assert 800 < len(text) <= MAX_ID_CHARACTERS
    assert is_session_id(text)
    assert is_session_id("m" * MAX_ID_CHARACTERS)


@given(
    host=st.ip_addresses().map(str),
    port=st.integers(1, 65535),
    boot=st.integers(0, 2**32 - 1),
    principal=st.binary(max_size=32),
    params=st.none() | st.binary(min_size=1, max_size=400),
    one_stream=st.booleans(),
)
def test_what_was_sealed_is_read_back(
    host: str, port: int, boot: int, principal: bytes, params: bytes | None, one_stream: bool
) -> None:
    """By another replica with the same key; every client and gateway can send it."""
    own = Replica(host, port, boot)
    text = ids(own=own).new(principal, params, one_stream=one_stream)
    assert set(text) <= set(string.ascii_lowercase + string.digits)
    assert is_session_id(text)
    assert len(text) <= MAX_ID_CHARACTERS
    found = ids().open(text, principal)
    assert isinstance(found, SessionId)
    assert (found.owner, found.issued_s, found.one_stream) == (own, int(NOW), one_stream)
    assert found.params in (params, None)
    if len(params or b"") <= 200:
        assert found.params == params


def test_the_id_of_a_plain_client_is_as_short_as_gateways_demand() -> None:
    """Up to 128 characters, whatever its address."""
    for host in ("10.1.2.3", "2001:db8:1:2:3:4:5:6"):
        text = ids(own=Replica(host, 8001, 1)).new(b"", PLAIN)
        assert len(text) <= 128


def test_params_too_long_for_a_header_are_left_out() -> None:
    """The session is found all the same."""
    params = json.dumps({"a": random.Random(1).randbytes(2000).hex()}).encode()
    found = ids().open(ids().new(b"", params), b"")
    assert isinstance(found, SessionId)
    assert (found.owner, found.params) == (OWN, None)


def test_an_id_opens_for_its_own_client_under_its_own_key() -> None:
    """A dropped key opens nothing more, not even what was opened before."""
    text = ids().new(b"me", PLAIN)
    keys = [[OTHER, KEY]]
    reader = SessionIds(OWN, lambda: keys[0], lambda: NOW)
    assert isinstance(reader.open(text, b"me"), SessionId)
    assert reader.open(text, b"you") is Unreadable.FORGED
    assert ids(OTHER).open(text, b"me") is Unreadable.FORGED
    keys[0] = [OTHER]
    assert reader.open(text, b"me") is Unreadable.FORGED


def test_an_old_id_has_expired() -> None:
    """Also one that was opened while it was young."""
    now = [NOW]
    reader = ids(clock=lambda: now[0])
    text = reader.new(b"")
    now[0] = NOW + MAX_AGE_S
    assert isinstance(reader.open(text, b""), SessionId)
    now[0] += 1
    assert reader.open(text, b"") is Unreadable.EXPIRED


def test_an_id_of_a_newer_release_is_told_from_a_forged_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its client is to come again and not to give its session up."""
    monkeypatch.setattr("mcpbridge.replicas.session_id.VERSION", 2)
    text = ids().new(b"", PLAIN)
    monkeypatch.undo()
    assert ids().open(text, b"") is Unreadable.NEWER


def test_no_other_text_opens() -> None:
    """Changed, cut, lengthened or spelled in another way."""
    reader, chance = ids(), random.Random(16)
    text = reader.new(b"", PLAIN)
    for changed in (
        text.upper(),
        text + "=",
        text + "a",
        text[:-1],
        text[1:],
        "",
        "m",
        text + "\n",
    ):
        assert reader.open(changed, b"") is Unreadable.FORGED, changed
    letters = string.ascii_lowercase + string.digits + "-_=A \u00e9"
    for _ in range(FORGERIES):
        found = list(text)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            match chance.randrange(3):
                case 0:
                    found[chance.randrange(len(found))] = chance.choice(letters)
                case 1:
                    del found[chance.randrange(len(found)) :]
                case _:
                    found.insert(chance.randint(0, len(found)), chance.choice(letters))
            found = found or ["m"]
        forged = "".join(found)
        assert forged == text or reader.open(forged, b"") is Unreadable.FORGED, forged
