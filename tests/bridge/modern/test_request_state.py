"""What a client keeps for the bridge, and may have changed."""

from __future__ import annotations

import string

import pytest

from mcpbridge.bridge.modern.request_state import Seal, Sealed

ALPHABET = string.ascii_letters + string.digits + "-_="


def content(errand: str = "") -> Sealed:
    """Something to seal; the name decides how much padding its text has."""
    return Sealed(
        errand=errand, round=1, method="tools/call", digest="d", expires_at=100.0, count=0
    )


def test_what_was_sealed_comes_back_until_it_expires() -> None:
    """A call waits so long and no longer (C34, C88)."""
    seal = Seal(None)
    text = seal.seal(content("e"))
    assert seal.open(text, 99.9) == content("e")
    assert seal.open(text, 100.0) is None


def test_another_seal_opens_nothing() -> None:
    """The key of one process is not that of the next (C34)."""
    assert Seal(None).open(Seal(None).seal(content()), 0) is None


def test_the_same_key_opens_what_another_process_sealed() -> None:
    """Where the operator gave one (C34)."""
    key = bytes(range(32))
    assert Seal(key).open(Seal(key).seal(content()), 0) == content()


def test_what_is_one_principals_opens_for_no_other() -> None:
    """With the same key, in this process or the next (C102)."""
    seal = Seal(bytes(range(32)))
    mine, yours, mine_again = seal.another(), seal.another(), Seal(bytes(range(32)))
    mine.owner, yours.owner, mine_again.owner = b"me", b"you", b"me"
    text = mine.seal(content("e"))
    assert yours.open(text, 0) is None
    assert seal.open(text, 0) is None
    assert mine_again.open(text, 0) == content("e")


@pytest.mark.parametrize("errand", ["", "e", "ee"])
def test_no_other_text_opens(errand: str) -> None:
    """Not with anything behind or before it, and with no character changed (C34)."""
    seal = Seal(None)
    text = seal.seal(content(errand))
    for changed in (text + "-TAMPERED", text + "=", text + "\n", " " + text, text[:-1], ""):
        assert seal.open(changed, 0) is None, changed
    for place in (0, len(text) // 2, *range(len(text) - 4, len(text))):
        for letter in set(ALPHABET) - {text[place]}:
            assert seal.open(text[:place] + letter + text[place + 1 :], 0) is None
