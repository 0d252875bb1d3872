"""Who a client is."""

from __future__ import annotations

from mcpbridge.rules.access.principals import ANONYMOUS, Principal, Secrets, key_of


def test_no_two_lists_of_parts_have_the_same_key() -> None:
    """However they are cut; and nothing can be read from a key."""
    keys = [
        key_of(),
        key_of(""),
        key_of("ab"),
        key_of("a", "b"),
        key_of("a", "b", ""),
        key_of(b"1:a"),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of("a", b"b") == key_of(b"a", "b")
    assert b"secret" not in key_of("secret")


def test_quotas_count_by_key_unless_told_otherwise() -> None:
    """An account is what several keys have in common."""
    assert Principal(b"k", "n").quota_key == b"k"
    assert Principal(b"k", "n", account=b"a").quota_key == b"a"
    assert ANONYMOUS.quota_key == b""


def test_hidden_values_are_not_shown() -> None:
    """Neither printed nor in a text that is covered, where one is the beginning of another too."""
    hidden = Secrets((("A", "sk-1"), ("B", "sk-12")))
    assert "sk" not in repr(hidden)
    assert "sk" not in repr(Principal(b"", "n", env=hidden))
    assert hidden.redact("keys sk-1, sk-12 and sk-123") == "keys ***, *** and ***3"
