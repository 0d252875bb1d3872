"""What a client keeps for the bridge, and may have changed."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

import pytest

from mcpbridge.bridge.modern.request_state import RequestState, RequestStateCodec
from tests.support.proofs import proves

ALPHABET = string.ascii_letters + string.digits + "-_="


def content(parked_call: str = "") -> RequestState:
    """Content to encode; the name decides how much padding its text has."""
    return RequestState(
        parked_call=parked_call, round=1, method="tools/call", digest="d", expires_at=100.0, count=0
    )


def keys_of(*keys: bytes) -> Callable[[], Sequence[bytes]]:
    """The keys of a codec, the one that writes first."""
    return lambda: keys


@proves("C34", "C88")
def test_what_was_sealed_comes_back_until_it_expires() -> None:
    """A call waits that long and no longer."""
    codec = RequestStateCodec(None)
    text = codec.encode(content("e"))
    assert codec.decode(text, 99.9) == content("e")
    assert codec.decode(text, 100.0) is None


@proves("C34")
def test_another_key_decodes_nothing() -> None:
    """The key of one process is not that of the next."""
    assert RequestStateCodec(None).decode(RequestStateCodec(None).encode(content()), 0) is None


@proves("C34")
def test_the_same_key_decodes_what_another_process_encoded() -> None:
    """Where the operator gave one."""
    keys = keys_of(bytes(range(32)))
    assert RequestStateCodec(keys).decode(RequestStateCodec(keys).encode(content()), 0) == content()


@proves("C102")
def test_what_is_one_principals_opens_for_no_other() -> None:
    """With the same key, in this process or the next."""
    keys = keys_of(bytes(range(32)))
    unclaimed = RequestStateCodec(keys)
    mine, yours, mine_again = unclaimed.another(), unclaimed.another(), RequestStateCodec(keys)
    for codec, owner in ((mine, b"me"), (yours, b"you"), (mine_again, b"me")):
        codec.claim(owner)
    text = mine.encode(content("e"))
    assert yours.decode(text, 0) is None
    assert unclaimed.decode(text, 0) is None
    assert mine_again.decode(text, 0) == content("e")


@proves("C34")
@pytest.mark.parametrize("parked_call", ["", "e", "ee"])
def test_no_other_text_opens(parked_call: str) -> None:
    """Not with anything behind or before it, and with no character changed."""
    codec = RequestStateCodec(None)
    text = codec.encode(content(parked_call))
    for changed in (text + "-TAMPERED", text + "=", text + "\n", " " + text, text[:-1], ""):
        assert codec.decode(changed, 0) is None, changed
    for place in (0, len(text) // 2, *range(len(text) - 4, len(text))):
        for letter in set(ALPHABET) - {text[place]}:
            assert codec.decode(text[:place] + letter + text[place + 1 :], 0) is None


def test_keys_are_rotated_without_losing_a_parked_call() -> None:
    """The first key writes and all read; what a dropped key has written opens no more."""
    old, new = b"o" * 32, b"n" * 32
    before, during = RequestStateCodec(keys_of(old)), RequestStateCodec(keys_of(new, old))
    after = RequestStateCodec(keys_of(new))
    assert during.decode(before.encode(content("e")), 0) == content("e")
    assert after.decode(during.encode(content("e")), 0) == content("e")
    assert after.decode(before.encode(content("e")), 0) is None


def test_a_state_names_the_replica_that_has_the_call() -> None:
    """But not if the retry starts the call again, which any replica can do."""
    codec = RequestStateCodec(keys_of(b"k" * 32), home="10.0.0.1:8001/00000001")
    found = codec.another(b"me").encode(content("e"))
    decoded = codec.another(b"me").decode(found, 0)
    assert decoded is not None
    assert decoded.home == "10.0.0.1:8001/00000001"
    assert codec.decode(codec.encode(content()), 0) == content()
