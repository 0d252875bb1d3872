"""The first process of a server: it is probed once, and what each kind of answer leads to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mcpbridge.bridge.children import handshake
from mcpbridge.bridge.children.handshake import (
    FirstHandshake,
    HarmedByProbeError,
    SpeaksModernError,
    discover,
    list_tools,
)
from mcpbridge.bridge.children.lease import Lease
from mcpbridge.channels.memory import MemoryChannel
from mcpbridge.rules.faults import Exit, Unavailable, child_exited
from mcpbridge.rules.mcp.initialize import read_profile
from mcpbridge.wire.messages import Notification, Request
from tests.bridge.legacy.parts import lease_on_memory
from tests.bridge.playbook import bounded, message

LEGACY = '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}}}'
MODERN = '{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}'
REFUSES = ',"error":{"code":-32601,"message":"no"}}'


class Server:
    """The far end: answers each method as the test says, or not at all."""

    def __init__(self, lease: Lease, far: MemoryChannel) -> None:
        self.lease = lease
        self.asked: list[str] = []
        self.answers: dict[str, str] = {}
        """By method: what follows the id in the answer, or `ends`."""
        self._far = far

    async def run(self) -> None:
        """Serve until the end."""
        while received := await self._far.receive():
            for item in received:
                if isinstance(item, Notification):
                    self.asked.append(item.method)
                elif isinstance(item, Request):
                    self.asked.append(item.method)
                    self.answer(item)

    def answer(self, request: Request) -> None:
        """Answer one request."""
        answer = self.answers.get(request.method)
        if answer == "ends":
            self.end()
        elif answer is not None:
            self._far.send(message(f'{{"id":{request.id.decode()}{answer}'))

    def end(self) -> None:
        """The process ends."""
        self._far.close()
        self.lease.mux.fail_all(child_exited(Exit(code=1), "maybe"))


@asynccontextmanager
async def server(**answers: str) -> AsyncIterator[Server]:
    """A server that runs until the block ends."""
    lease, far = lease_on_memory(shared=True)
    made = Server(lease, far)
    made.answers = {name.replace("_", "/"): answer for name, answer in answers.items()}
    tasks = [asyncio.create_task(each) for each in (lease.mux.run(), made.run())]
    yield made
    far.close()
    await asyncio.gather(*tasks)


def first_handshake(
    found: list[str], *, within_s: float = 5.0, asks: bool = True
) -> FirstHandshake:
    """The handshake of a server that is not known yet."""
    return FirstHandshake(b"{}", within_s, lambda: found.append("legacy"), asks=asks)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence shows at once."""
    monkeypatch.setattr(handshake, "_SILENCE_S", 0.01)


@bounded
async def test_a_server_that_refuses_the_probe_is_legacy_and_is_probed_once() -> None:
    """The next process gets `initialize` alone."""
    found: list[str] = []
    first = first_handshake(found)
    for asked in (["server/discover", "initialize"], ["initialize"]):
        async with server(server_discover=REFUSES, initialize=f',"result":{LEGACY}}}') as made:
            profile = await first.introduce(made.lease)
            assert profile.revision.date == "2025-11-25"
            await asyncio.sleep(0)  # one turn: `initialized` is read
            assert made.asked[: len(asked)] == asked
    assert found == ["legacy"]


@bounded
async def test_a_server_of_2026_is_found_by_its_answer_to_the_probe() -> None:
    """It gets no `initialize`, and goes on to serve."""
    found: list[str] = []
    async with server(server_discover=f',"result":{MODERN}}}') as made:
        with pytest.raises(SpeaksModernError) as caught:
            await first_handshake(found).introduce(made.lease)
        assert caught.value.lease is made.lease
        assert caught.value.profile is not None
        assert (made.asked, found) == (["server/discover"], [])


@pytest.mark.usefixtures("quick")
@bounded
async def test_a_server_that_swallows_the_probe_is_sent_initialize_all_the_same() -> None:
    """A `ping` shows that it reads."""
    async with server(ping=',"result":{}}', initialize=f',"result":{LEGACY}}}') as made:
        profile = await first_handshake([]).introduce(made.lease)
        assert profile.revision.date == "2025-11-25"
        assert made.asked[:3] == ["server/discover", "ping", "initialize"]


@pytest.mark.usefixtures("quick")
@bounded
async def test_a_process_that_the_probe_ends_is_replaced_and_the_next_is_not_probed() -> None:
    """If that one fails too, the probe was not to blame: the third is probed again."""
    first = first_handshake([])
    async with server(server_discover="ends") as made:
        with pytest.raises(HarmedByProbeError):
            await first.introduce(made.lease)
    async with server(initialize=REFUSES) as made:
        with pytest.raises(Unavailable):
            await first.introduce(made.lease)
        assert made.asked == ["initialize"]
    async with server(server_discover=REFUSES, initialize=f',"result":{LEGACY}}}') as made:
        await first.introduce(made.lease)
        assert made.asked[0] == "server/discover"


@bounded
async def test_a_process_that_is_gone_before_the_probe_is_sent_was_not_harmed_by_it() -> None:
    """No other process is started for it, and its end is told though its pipes say nothing."""
    async with server() as made:
        made.lease.mux.fail_all(child_exited(None, "no"))
        with pytest.raises(Unavailable) as caught:
            await first_handshake([]).introduce(made.lease)
    assert caught.value.fault.reason == "child_exited"


@pytest.mark.usefixtures("quick")
@bounded
async def test_a_process_that_answers_neither_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe has confused it."""
    monkeypatch.setattr(handshake, "_HARMED_S", 0.01)
    async with server(ping=',"result":{}}') as made:
        with pytest.raises(HarmedByProbeError):
            await first_handshake([]).introduce(made.lease)


@bounded
async def test_the_whole_start_has_one_limit() -> None:
    """Silence to the probe and to `initialize` together."""
    async with server() as made:
        with pytest.raises(Unavailable) as caught:
            await first_handshake([], within_s=0.05).introduce(made.lease)
        assert caught.value.fault.reason == "start_timeout"


@pytest.mark.parametrize("answer", [REFUSES, ',"result":{}}', ',"result":[]}', "ends", ""])
@bounded
async def test_a_known_legacy_server_is_asked_once(answer: str) -> None:
    """Any other answer than a profile is a refusal; `initialized` is not sent then."""
    async with server(**({"initialize": answer} if answer else {})) as made:
        within_s = 5.0 if answer else 0.05
        with pytest.raises(Unavailable) as caught:
            await first_handshake([], within_s=within_s, asks=False).introduce(made.lease)
        reasons = {"ends": "child_exited", "": "start_timeout"}
        assert caught.value.fault.reason == reasons.get(answer, "handshake_refused")
        assert (made.asked, made.lease.profile) == (["initialize"], None)


@pytest.mark.parametrize("answer", [REFUSES, ',"result":{}}', ""])
@bounded
async def test_discovery_takes_a_profile_and_nothing_else(answer: str) -> None:
    """With the same limit as a handshake."""
    async with server(server_discover=f',"result":{MODERN}}}') as made:
        assert (await discover(made.lease, 5.0)).revision.date == "2026-07-28"
    async with server(**({"server_discover": answer} if answer else {})) as made:
        with pytest.raises(Unavailable):
            await discover(made.lease, 5.0 if answer else 0.05)


@pytest.mark.parametrize(
    ("second", "pages"), [(',"result":{"tools":[2]}}', 2), (REFUSES, 1), ("ends", 1), ("", 1)]
)
@bounded
async def test_the_pages_of_tools_that_came_are_returned_whatever_follows(
    second: str, pages: int
) -> None:
    """Each with the cursor of the one before; nothing is raised."""
    lease, far = lease_on_memory(shared=True)
    profile = read_profile(LEGACY.encode())
    assert profile is not None
    lease.introduced_as(profile)
    made = Server(lease, far)
    tasks = [asyncio.create_task(lease.mux.run())]
    listing = asyncio.create_task(list_tools(lease, 5.0 if second else 0.5))
    (asked,) = await far.receive()
    assert isinstance(asked, Request)
    made.answers = {"tools/list": ',"result":{"tools":[1],"nextCursor":"c"}}'}
    made.answer(asked)
    (asked,) = await far.receive()
    assert isinstance(asked, Request)
    assert json.loads(asked.params or b"") == {"cursor": "c"}
    made.answers = {"tools/list": second} if second else {}
    made.answer(asked)
    assert len(await listing) == pages
    far.close()
    await asyncio.gather(*tasks)
