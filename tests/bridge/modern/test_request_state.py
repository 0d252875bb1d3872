"""What a client keeps for the bridge, and may have changed."""

from __future__ import annotations

import string

import pytest

from mcpbridge.bridge.modern.request_state import RequestState, RequestStateCodec
from tests.support.proofs import proves

ALPHABET = string.ascii_letters + string.digits + "-_="


def content(parked_call: str = "") -> RequestState:
    """Content to encode; the name decides how much padding its text has."""
    return RequestState(
        parked_call=parked_call, round=1, method="tools/call", digest="d", expires_at=100.0, count=0
    )


@proves("C34", "C88")
def test_what_was_sealed_comes_back_until_it_expires() -> None:
    """A call waits so long and no longer."""
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
    key = bytes(range(32))
    assert RequestStateCodec(key).decode(RequestStateCodec(key).encode(content()), 0) == content()


@proves("C102")
def test_what_is_one_principals_opens_for_no_other() -> None:
    """With the same key, in this process or the next."""
    key = bytes(range(32))
    unclaimed = RequestStateCodec(key)
    mine, yours, mine_again = unclaimed.another(), unclaimed.another(), RequestStateCodec(key)
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
