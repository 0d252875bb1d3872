"""A task that fails for one owner closes that owner and no other."""

from __future__ import annotations

import logging

import anyio
import pytest

from mcpbridge.bridge.tasks import contain


class Owner:
    """Something that tasks work for."""

    async def work(self) -> None:
        """Fail."""
        raise ValueError("a bug")


async def broken(*_: object) -> None:
    """Fail, for any owner."""
    raise ValueError("a bug")


async def test_a_failed_task_fails_its_owners_and_ends_no_group(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its arguments and its own object are owners; others go on, and the log has the failure."""
    failed: list[Owner] = []
    first, second, finished = Owner(), Owner(), anyio.Event()

    async def fine(_: Owner) -> None:
        finished.set()

    async with anyio.create_task_group() as tasks:
        spawn = contain(tasks.start_soon, Owner, failed.append)
        spawn(broken, first, "text")
        spawn(second.work)
        spawn(fine, Owner())
    assert finished.is_set()
    assert failed == [first, second] or failed == [second, first]
    records = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in records] == ["task.failed"] * 2
    assert all(record.exc_info is not None for record in records)
