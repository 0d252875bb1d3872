"""The table of revisions and the choice between two of them."""

from __future__ import annotations

import pytest

from mcpbridge.rules.mcp.revisions import (
    NEWEST_LEGACY,
    REVISIONS,
    SERVED,
    Era,
    known,
    negotiated,
    served_dates,
)


@pytest.mark.parametrize(
    ("date", "era", "batches", "primes_streams", "elicitation"),
    [
        ("2024-11-05", Era.LEGACY, False, False, False),
        ("2025-03-26", Era.LEGACY, True, False, False),
        ("2025-06-18", Era.LEGACY, False, False, True),
        ("2025-11-25", Era.LEGACY, False, True, True),
        ("2026-07-28", Era.MODERN, False, False, False),
    ],
)
def test_each_revision_has_its_features(
    date: str, era: Era, batches: bool, primes_streams: bool, elicitation: bool
) -> None:
    """Each dated revision can do what its specification says."""
    revision = known(date)
    assert revision is not None
    assert (revision.date, revision.era, revision.batches) == (date, era, batches)
    assert (revision.primes_streams, revision.elicitation) == (primes_streams, elicitation)


@pytest.mark.parametrize("date", [None, "", "2025-06-19", "2025-06-18 ", "2025-6-18", "latest"])
def test_other_dates_are_unknown(date: str | None) -> None:
    """A date is known as it is written in the specification, or not at all."""
    assert known(date) is None


def test_revisions_stand_in_order() -> None:
    """The table is in the order of dates, and what is served is its legacy era."""
    dates = [revision.date for revision in REVISIONS]
    assert dates == sorted(set(dates))
    assert [revision for revision in REVISIONS if revision.era is Era.LEGACY] == list(SERVED)
    assert SERVED[-1] is NEWEST_LEGACY
    assert served_dates() == "2025-11-25, 2025-06-18, 2025-03-26, 2024-11-05"


@pytest.mark.parametrize("asked", range(len(SERVED)))
@pytest.mark.parametrize("child", range(len(SERVED)))
def test_the_older_of_two_revisions_is_spoken(asked: int, child: int) -> None:
    """A client is never answered with a revision newer than its own or than the child's."""
    assert negotiated(SERVED[asked].date, SERVED[child]) is SERVED[min(asked, child)]


@pytest.mark.parametrize("requested", [None, "", "1999-01-01", "2026-07-28"])
def test_an_unknown_wish_gets_the_childs_revision(requested: str | None) -> None:
    """What is unknown, or of another era, cannot be spoken; the child's revision can."""
    for child in SERVED:
        assert negotiated(requested, child) is child
