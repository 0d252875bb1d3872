"""How many server processes fit into the memory."""

from __future__ import annotations

import pytest

from mcpbridge.rules.supervision.memory_budget import children_that_fit, memory_for_clients

MIB = 1 << 20


@pytest.mark.parametrize(
    ("limit", "bridge", "child", "most", "fitting"),
    [
        (1024 * MIB, 64 * MIB, 80 * MIB, 64, 10),
        (256 * MIB, 60 * MIB, 76 * MIB, 64, 2),
        (256 * MIB, 37 * MIB, 72 * MIB, 64, 2),
        (256 * MIB, 37 * MIB, 58 * MIB, 64, 3),
        (256 * MIB, 60 * MIB, 200 * MIB, 64, 2),
        (32 * MIB, 60 * MIB, 20 * MIB, 64, 2),
        (64 << 30, 60 * MIB, 20 * MIB, 64, 64),
        (64 << 30, 60 * MIB, 20 * MIB, 3, 3),
        (64 << 30, 60 * MIB, 20 * MIB, 1, 1),
        (64 << 30, 60 * MIB, 0, 64, 64),
    ],
)
def test_what_fits(limit: int, bridge: int, child: int, most: int, fitting: int) -> None:
    """Seven eighths less the bridge, by a process; 2 to 64, or what open files allow."""
    assert children_that_fit(limit, bridge, child, most) == fitting


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(8192, 4096), (512, 256), (256, 128), (200, 72), (144, 16), (64, 16)],
)
def test_a_reserve_is_left_of_what_the_container_allows(limit: int, kept: int) -> None:
    """Half, at least 128 MiB; and some requests must be possible in the smallest container."""
    assert memory_for_clients(limit * MIB) == kept * MIB
    assert memory_for_clients(None) is None
