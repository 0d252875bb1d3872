"""Static tokens."""

from __future__ import annotations

import pytest

from mcpbridge.rules.access.static_tokens import (
    MAX_CHARACTERS,
    TokenTable,
    named,
    together,
    tokens_in,
)

ONE, TWO, THREE = "one-token-0123456789", "two-token-0123456789", "three/token+abc~def=="


def test_a_file_has_names_comments_and_tokens_alone() -> None:
    """Whatever is blank or after a number sign says nothing."""
    tokens = tokens_in(f"\ufeff# all\n\n alice : {ONE}  # hers\n{TWO}\nbob:{THREE}\r\n")
    found = {token: tokens.find(token) for token in (ONE, TWO, THREE)}
    assert [p.name if p else None for p in found.values()] == ["alice", "token", "bob"]
    assert len({p.key for p in found.values() if p}) == 3
    assert len({p.credential for p in found.values() if p}) == 3


@pytest.mark.parametrize("token", ["", ONE[:-1], ONE + "x", ONE.upper(), "é" * 20, "\udcff" * 20])
def test_no_other_token_is_known(token: str) -> None:
    """Not one that is nearly right, nor what cannot be a token."""
    assert tokens_in(ONE).find(token) is None


def test_two_tokens_of_one_name_are_one_client() -> None:
    """So that the next one can be handed out before the last is withdrawn."""
    tokens = tokens_in(f"alice: {ONE}\nalice: {TWO}")
    one, two = tokens.find(ONE), tokens.find(TWO)
    assert one is not None
    assert two is not None
    assert one.key == two.key
    assert one.credential != two.credential


def test_a_name_is_not_a_token_of_the_same_letters() -> None:
    """A client that is named like another's token is not that one."""
    named_so = tokens_in(f"{ONE}: {TWO}").find(TWO)
    alone = tokens_in(ONE).find(ONE)
    assert named_so is not None
    assert alone is not None
    assert named_so.key != alone.key


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no token"),
        ("# nothing\n\n", "no token"),
        ("alice:", "line 1: a token of 0 characters"),
        (f"{ONE}\nshort", "line 2: a token of 5 characters can be guessed"),
        (f"{ONE} {TWO}", "line 1: a token has letters"),
        (f"a:b: {ONE}", "line 1 is neither a token nor name: token"),
        (f": {ONE}", "line 1 is neither a token nor name: token"),
        ("x" * (MAX_CHARACTERS + 1), "at most"),
        (f"alice: {ONE}\nbob: {ONE}", "line 2 repeats a token of another line"),
        ("=" * 20, "line 1: a token has letters"),
    ],
)
def test_a_bad_line_is_named_and_not_shown(text: str, problem: str) -> None:
    """What is wrong with it may be one character of a secret."""
    with pytest.raises(ValueError, match=problem) as caught:
        tokens_in(text)
    assert not any(secret in str(caught.value) for secret in (ONE, TWO, "short"))


def test_the_same_line_twice_is_one() -> None:
    """It says nothing new."""
    assert len(tokens_in(f"a: {ONE}\na: {ONE}").by_digest) == 1


def test_tables_together_know_what_each_knows() -> None:
    """And none of them shows a token when it is printed."""
    both = together([tokens_in(ONE), TokenTable(dict([named("", TWO)]))])
    assert both.find(ONE) is not None
    assert both.find(TWO) is not None
    assert repr(both) == "TokenTable(2)"
    assert ONE not in repr(both.find(ONE))
