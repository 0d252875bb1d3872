"""Open files are shared out between connections and server processes, or found too few."""

from __future__ import annotations

import pytest

from mcpbridge.rules.supervision.fd_budget import OWN, PER_CHILD, Share, least_needed, share
from tests.support.proofs import proves

BAND = 8


@proves("fault 104")
@pytest.mark.parametrize(
    ("limit", "children", "connections", "expected"),
    [
        (1024, 16, None, Share(16, 1024 - OWN - BAND - 16 * PER_CHILD)),
        (1024, 16, 100, Share(16, 100)),
        (256, 16, None, Share(16, 152)),
        (256, 16, 1000, Share(16, 152)),
        (128, 16, None, Share(11, 44)),
        (128, 4, None, Share(4, 72)),
        (64, 16, None, Share(3, 12)),
        (64, 1, None, Share(1, 20)),
        (52, 16, None, Share(1, 8)),
        (51, 1, None, None),
        (0, 1, 1, None),
    ],
)
def test_files_are_shared_out(
    limit: int, children: int, connections: int | None, expected: Share | None
) -> None:
    """All that was asked for where it fits, half each where it does not."""
    assert share(limit, BAND, children, connections) == expected


@proves("fault 104", "fault 112")
@pytest.mark.parametrize("limit", range(52, 400))
def test_what_is_shared_out_is_never_more_than_there_is(limit: int) -> None:
    """Connections, the band over them, processes and our own files fit."""
    assert least_needed(BAND) == 52
    found = share(limit, BAND, 16, None)
    assert found is not None
    assert found.children >= 1
    assert found.connections >= 8
    assert found.connections + BAND + PER_CHILD * found.children + OWN <= limit
