"""The operator's keys, parsed and derived."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mcpbridge.rules.access.state_keys import (
    FOR_ID,
    FOR_PEER,
    FOR_STATE,
    MAX_KEYS,
    StateKeys,
    state_keys,
)

ONE, TWO = "a" * 32, "b" * 40


@pytest.mark.parametrize("label", [FOR_STATE, FOR_ID, FOR_PEER])
def test_keys_are_derived_as_rfc_5869_has_it(label: bytes) -> None:
    """As another implementation derives them, in the order of the text."""
    expected = [
        HKDF(SHA256(), 32, b"mcpbridge", label).derive(word.encode()) for word in (ONE, TWO)
    ]
    assert state_keys(f" {ONE}\n{TWO} ").derived(label) == expected


def test_no_key_serves_two_uses_or_two_servers() -> None:
    """What is sealed for one of them opens for no other."""
    keys = state_keys(ONE)
    servers = [keys, keys.of_server("a"), keys.of_server("b")]
    derived = {bytes(each.derived(u)[0]) for each in servers for u in (FOR_STATE, FOR_ID, FOR_PEER)}
    assert len(derived) == 9


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (" ", "holds no key"),
        ("x" * 31, "a key of 31 characters can be guessed; use at least 32"),
        (f"{ONE} short", "a key of 5 characters can be guessed"),
        (" ".join([ONE] * (MAX_KEYS + 1)), "holds 5 keys; at most 4 are read"),
    ],
)
def test_unusable_keys_are_refused(text: str, problem: str) -> None:
    """The message says what is wrong, and shows no key."""
    with pytest.raises(ValueError, match=problem) as caught:
        state_keys(text)
    assert not any(word in str(caught.value).split() for word in text.split())


def test_no_key_is_shown() -> None:
    """Neither in a log nor in a traceback."""
    assert repr(StateKeys((b"secret",))) == "StateKeys(1 keys)"
