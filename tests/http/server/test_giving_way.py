"""Which connection gives way to a new one."""

from __future__ import annotations

import pytest

from mcpbridge.http.server.giving_way import Standing, giving_way

BUSY, IDLE, BODY, LISTENS = Standing.BUSY, Standing.IDLE, Standing.BODY, Standing.LISTENS
HEAD, FRESH = Standing.HEAD, Standing.FRESH_HEAD


class Held:
    """A connection of a peer."""

    def __init__(self, peer: str, standing: Standing = FRESH) -> None:
        self.peer = peer
        self.standing = standing

    def __repr__(self) -> str:
        return f"{self.peer} {self.standing.name}"

    def give_way(self) -> None:
        """Nothing: the choice is what is tested."""


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ([], None),
        ([("a", BUSY)], None),
        ([("a", FRESH)], ("a", FRESH)),
        ([("a", LISTENS)], ("a", LISTENS)),
        ([("a", BODY), ("a", HEAD), ("a", IDLE), ("a", BUSY)], ("a", IDLE)),
        ([("a", LISTENS), ("a", BODY), ("a", FRESH)], ("a", FRESH)),
        ([("a", BODY), ("a", BODY), ("b", IDLE)], ("a", BODY)),
        ([("a", BUSY), ("a", BUSY), ("a", BUSY), ("b", IDLE)], ("b", IDLE)),
        ([("a", HEAD), ("a", HEAD), ("me", IDLE)], ("a", HEAD)),
        ([("a", IDLE), ("me", IDLE)], ("me", IDLE)),
        ([("a", IDLE), ("me", HEAD)], ("me", HEAD)),
        ([("a", IDLE), ("me", FRESH)], None),
        ([("a", IDLE), ("me", BODY)], None),
        ([("me", BODY), ("me", LISTENS), ("me", FRESH)], None),
        ([("me", BODY), ("me", IDLE)], ("me", IDLE)),
    ],
)
def test_the_peer_that_holds_most_without_a_request_gives_way(
    others: list[tuple[str, Standing]], wanted: tuple[str, Standing] | None
) -> None:
    """A lighter peer keeps what it has, and a request in service is never cut."""
    found = giving_way(Held("me"), [Held(*each) for each in others])
    assert (None if found is None else (found.peer, found.standing)) == wanted


def test_the_newcomer_itself_does_not_give_way() -> None:
    """It is among the connections already."""
    newcomer = Held("me", Standing.IDLE)
    assert giving_way(newcomer, [newcomer]) is None
