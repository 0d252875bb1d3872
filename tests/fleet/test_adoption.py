"""How a changed entry comes into force: which makers make the next child, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import anyio
from anyio.lowlevel import checkpoint

from mcpbridge.bridge.reloader import Reload
from mcpbridge.bridge.tenant import ChildMakers
from mcpbridge.fleet.adoption import Beside, ChildSwitch, ServedEntry
from tests.bridge.playbook import bounded


def makers_of(entry: str) -> ChildMakers:
    """Makers whose children are the name of their entry."""
    return ChildMakers(cast(Any, lambda: entry), None)


class Parts:
    """Entries that are texts; sessions never stay with one called `other`."""

    def keeps_sessions(self, before: str, after: str) -> bool:
        """See `EntryParts`."""
        return after != "other"

    def makers(self, before: str, after: str) -> ChildMakers | None:
        """See `EntryParts`."""
        return None if before == after else makers_of(after)

    def beside(self, entry: str) -> Beside | None:
        """See `EntryParts`."""
        return None


class Reloader:
    """A reloader whose outcomes the test decides."""

    def __init__(self) -> None:
        self.outcomes: list[asyncio.Future[Reload]] = []

    async def reload(self, because: str) -> Reload:
        """Wait for the test."""
        outcome: asyncio.Future[Reload] = asyncio.get_running_loop().create_future()
        self.outcomes.append(outcome)
        return await outcome

    def end(self, number: int, problem: str | None = None) -> None:
        """Give one reload its outcome."""
        self.outcomes[number].set_result(Reload("", 0.0, 0.0, problem=problem))


class Running:
    """A server of the entry `a`."""

    def __init__(self) -> None:
        self.switch = ChildSwitch()
        self.made = cast(Callable[[], str], self.switch.through(makers_of("a")).plain)
        self.reloader = Reloader()
        bridge = cast(Any, SimpleNamespace(reloader=self.reloader))
        self.served = ServedEntry("a", Parts(), bridge, self.switch, "its entry")

    def adopt(self, entry: str) -> asyncio.Task[bool]:
        """Begin to adopt an entry."""
        adopt = self.served.adopting(entry)
        assert adopt is not None
        return asyncio.create_task(adopt())

    async def asked(self, count: int) -> None:
        """Wait until `count` reloads were asked for."""
        while len(self.reloader.outcomes) < count:
            await checkpoint()


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    """A server that runs."""
    on = Running()
    assert on.served.adopting("b") is None, "it does not run yet"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(on.served.run)
        while on.served.adopting("b") is None:
            await checkpoint()
        yield on
        tasks.cancel_scope.cancel()


@bounded
async def test_a_reload_that_fails_is_undone() -> None:
    """The next child is one of the entry that serves; when it comes back it is reloaded."""
    async with running() as on:
        assert on.served.adopting("other") is None
        adopting = on.adopt("b")
        await on.asked(1)
        assert on.made() == "b"
        on.reloader.end(0, "it ends at once")
        assert await adopting is False
        assert (on.made(), on.served.entry) == ("a", "a")
        again = on.adopt("a")
        await on.asked(2)
        on.reloader.end(1)
        assert await again is True
        assert (on.made(), on.served.entry) == ("a", "a")


@bounded
async def test_the_last_entry_counts() -> None:
    """The reload for the one before is that of the last: it decides nothing."""
    async with running() as on:
        first = on.adopt("b")
        await on.asked(1)
        second = on.adopt("c")
        await on.asked(2)
        on.reloader.end(0)
        on.reloader.end(1)
        assert (await first, await second) == (False, True)
        assert (on.made(), on.served.entry) == ("c", "c")
        third = on.adopt("d")
        await on.asked(3)
        on.reloader.end(2, "it ends at once")
        assert await third is False
        assert on.made() == "c"


@bounded
async def test_a_failure_is_undone_though_nothing_waits_for_it() -> None:
    """As when the entry is removed, or wrong, before its server has started."""
    async with running() as on:
        adopting = on.adopt("b")
        await on.asked(1)
        adopting.cancel()
        on.reloader.end(0, "it ends at once")
        while on.made() != "a":
            await checkpoint()


@bounded
async def test_what_needs_no_other_process_is_served_at_once() -> None:
    """An entry of which only what runs beside its server differs."""
    async with running() as on:
        assert await on.adopt("a") is True
        assert on.reloader.outcomes == []
