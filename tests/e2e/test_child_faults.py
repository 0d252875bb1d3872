"""Each fault of a child while it is idle, with calls in flight, and while other sessions call.

The call that asks for a fault gets one answer or one error; each other client gets its own
answers, all of them; and the next call is served, by the same process where it goes on.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio

from tests.support.bridge_process import (
    RunningBridge,
    bridge,
    child,
    messages,
    open_session,
    rpc,
    run_without_posix,
)
from tests.support.modern_client import headers_of, meta
from tests.support.proofs import functions_in, named, proves
from tests.support.raw_http import Events, streaming

pytestmark = pytest.mark.slow
in_module = pytest.mark.asyncio(loop_scope="module")

GOOD = b'{"good":true}'
UNREADABLE = {"reason": "bad_child_message", "executed": "yes", "retryable": False}
TOO_LARGE = {"reason": "message_too_large", "executed": "yes", "retryable": False}
ENDED = {"reason": "child_exited", "executed": "maybe", "retryable": False}
OTHERS = 3
CALLS = 15
"""What each of the others calls at least, while a fault is done."""


@pytest.fixture(scope="module", autouse=True, params=[False, True], ids=["posix", "without_posix"])
def pipes(request: pytest.FixtureRequest) -> Iterator[None]:
    """The bridges of this module read pipes by the event loop, and by threads as on Windows."""
    with run_without_posix(request.param):
        yield


class Fault(NamedTuple):
    """One fault of the program `faulty`."""

    name: str
    rows: tuple[int, ...]
    """Of the catalogue."""
    wanted: bytes | dict[str, Any] = GOOD
    """The call's result, to the byte; or the facts in its error."""


LASTING = [
    Fault("noise", (17,)),
    Fault("cut", (19,), UNREADABLE),
    Fault("cut_before_the_id", (19,)),
    Fault("marks", (20,)),
    Fault("crlf", (21,)),
    Fault("utf8", (22,), UNREADABLE),
    Fault("utf8_for_nobody", (22,)),
    Fault("nul", (23,), UNREADABLE),
    Fault("surrogate", (24,), rb'{"text":"\ud800 \uDFFF \u00e9"}'),
    Fault("nan", (25,), UNREADABLE),
    Fault(
        "numbers", (26,), b'{"n":[12345678901234567890,%b,1.0,1,1e400,-0,0.1000]}' % (b"9" * 5000)
    ),
    Fault("two_ids", (27,)),
    Fault("twice_below", (27,), b'{"a":1,"a":2,"content":[]}'),
    Fault("deep", (28,), UNREADABLE),
    Fault("drip", (29,)),
    Fault("huge", (30,), TOO_LARGE),
    Fault("huge_last_id", (30,), TOO_LARGE),
    Fault("huge_for_nobody", (30,)),
    Fault("flood", (32,)),
    Fault("stderr", (33,)),
    Fault("double", (38,)),
    Fault("strangers", (39,)),
    Fault("spelled", (40,)),
    Fault("both", (42,), UNREADABLE),
    Fault("neither", (42,), UNREADABLE),
    Fault("questions", (44,)),
    Fault("told_to_all", (45,)),
    Fault("strange_tokens", (46,)),
]
"""The process goes on."""

ENDING = [
    Fault("leave", (5, 6), {**ENDED, "exit": {"code": 3}}),
    Fault("kill", (7,), {**ENDED, "exit": {"signal": signal.SIGKILL}}),
    Fault("abort", (8,), {**ENDED, "exit": {"signal": signal.SIGABRT}}),
    Fault("endless", (31,), ENDED),
    Fault("close_stdout", (35,), ENDED),
    Fault("close_stdin", (36,)),
]
"""The process is replaced."""


class Session:
    """One session of one client; its ids begin at 1, like those of all."""

    def __init__(self, client: httpx.AsyncClient, headers: dict[str, str]) -> None:
        self.client = client
        self.headers = headers
        self._ids = itertools.count(1)

    async def answer(self, method: str, params: Any) -> bytes:
        """The only answer on the stream of a call, without its envelope.

        Returns:
            What stands after the id: `"result":…` or `"error":…`.
        """
        number = next(self._ids)
        headers = {**self.headers, "accept": "text/event-stream"}
        body = rpc(number, method, params)
        response = await self.client.post("/mcp", json=body, headers=headers)
        assert response.status_code == 200, response.text
        assert b"canary" not in response.content
        events = [
            e.removeprefix(b"data: ") for e in response.content.splitlines() if b"data: " in e
        ]
        answers = [event for event in events if b'"method":' not in event]
        assert len(answers) == 1, answers
        assert answers[0] == events[-1], "nothing comes after the answer"
        head = b'{"jsonrpc":"2.0","id":%d,' % number
        assert answers[0].startswith(head), answers[0][:200]
        return answers[0].removeprefix(head).removesuffix(b"}")

    async def fault(self, fault: Fault, **more: Any) -> None:
        """Ask for a fault; the answer must be what it leaves of one."""
        params = {"name": "fault", "arguments": {"fault": fault.name, **more}}
        wanted = GOOD if more else fault.wanted
        answer = await self.answer("tools/call", params)
        if isinstance(wanted, bytes):
            assert answer == b'"result":' + wanted
            return
        error = json.loads(answer.removeprefix(b'"error":'))
        assert error["code"] == -32603
        facts = error["data"]["mcpbridge"]
        if "exit" not in wanted:
            facts.pop("exit", None)  # it may have ended while its caller was told
        assert facts == wanted

    async def echoes(self, word: str) -> None:
        """A call that must be answered with its own words."""
        assert await self.answer("x/echo", {"word": word}) == b'"result":{"word": "%b"}' % (
            word.encode()
        )

    async def may_be_too_soon(self) -> None:
        """A call that was written before the end of its process was seen may fail, and once."""
        answer = await self.answer("x/pid", {})
        assert answer.startswith(b'"result":') or b'"reason":"child_exited"' in answer, answer

    async def pid(self) -> int:
        """The process that serves it."""
        answer = await self.answer("x/pid", {})
        return int(json.loads(answer.removeprefix(b'"result":'))["pid"])


class ClientGroup(NamedTuple):
    """A bridge, the session that asks for faults, and the others."""

    bridge: RunningBridge
    victim: Session
    others: list[Session]

    async def all_served(self, word: str) -> None:
        """The next call of each client is served."""
        sessions = [self.victim, *self.others]
        await asyncio.gather(*(each.echoes(f"{word} {n}") for n, each in enumerate(sessions)))


@asynccontextmanager
async def client_group(*words: str) -> AsyncIterator[ClientGroup]:
    """Some sessions of a bridge over the program `faulty`."""
    limits = httpx.Limits(max_connections=None)
    words = ("--max-message-bytes", "4MiB", *words, "--", *child("faulty"))
    async with bridge(*words) as running, running.client(limits=limits) as client:
        opened = [Session(client, await open_session(client)) for _ in range(1 + OTHERS)]
        yield ClientGroup(running, opened[0], opened[1:])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared() -> AsyncIterator[ClientGroup]:
    """All share one process, which outlives every fault of the module."""
    async with client_group("--isolation", "shared") as some:
        await some.bridge.logged("child.stdout_noise")
        yield some
        assert some.bridge.events("child.exited") == []
        assert len(await some.bridge.logged("child.started")) == 1


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def isolated() -> AsyncIterator[ClientGroup]:
    """Each session has its own process."""
    async with client_group("--isolation", "session") as some:
        yield some


async def idle(client_group: ClientGroup, fault: Fault) -> None:
    """The fault is done after the call was answered, and no client waits for anything."""
    await client_group.victim.fault(fault, idle=True)
    if fault in ENDING:
        await client_group.victim.may_be_too_soon()
    await client_group.all_served("after")


async def in_flight(client_group: ClientGroup, fault: Fault) -> None:
    """Calls with equal ids and tokens are held during it: each gets its own answer afterwards."""
    async with AsyncExitStack() as stack:
        held: list[Events] = []
        for number, each in enumerate([client_group.victim, *client_group.others]):
            arguments = {"held": number}
            params = {"name": "hold", "arguments": arguments, "_meta": {"progressToken": "t"}}
            headers = {**each.headers, "accept": "text/event-stream"}
            call = streaming(each.client, headers, rpc("held", "tools/call", params))
            events = await stack.enter_async_context(call)
            assert (await events.next())["params"] == {"progressToken": "t", "progress": 1}
            held.append(events)
        await client_group.victim.fault(fault)
        for each in [client_group.victim, *client_group.others]:
            # Whose process has ended since its answer gets an error here.
            await each.answer("tools/call", {"name": "release"})
        for number, events in enumerate(held):
            *said, answer = await events.rest()
            if number == 0 and fault in ENDING:
                facts = answer["error"]["data"]["mcpbridge"]
                assert (facts["reason"], facts["executed"]) == ("child_exited", "maybe")
            else:
                assert answer == {"jsonrpc": "2.0", "id": "held", "result": {"held": number}}
            assert said == [], "nothing that names no call is on a call's stream"
    await client_group.all_served("after")


async def under_load(client_group: ClientGroup, fault: Fault) -> None:
    """The others call without a pause; none of their calls fails."""
    asked = asyncio.create_task(client_group.victim.fault(fault))

    async def calling(session: Session) -> None:
        for number in itertools.count():
            await session.echoes(f"load {number}")
            if asked.done() and number >= CALLS:
                return

    await asyncio.gather(asked, *(calling(each) for each in client_group.others))
    if fault in ENDING and isinstance(fault.wanted, bytes):
        await client_group.victim.may_be_too_soon()  # its process gave an answer before it ended
    await client_group.all_served("after")


CIRCUMSTANCES = [idle, in_flight, under_load]


@proves("faults 17-30", "fault 32", "fault 33", "faults 38-40", "fault 42", "faults 44-46")
@in_module
@pytest.mark.parametrize("circumstance", CIRCUMSTANCES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("fault", LASTING, ids=lambda each: each.name)
async def test_a_fault_of_a_child_is_its_callers_alone(
    shared: ClientGroup, fault: Fault, circumstance: Any
) -> None:
    """One answer or error for the call, its own answer for all others, and the process goes on."""
    pid = await shared.victim.pid()
    await circumstance(shared, fault)
    assert {await each.pid() for each in (shared.victim, *shared.others)} == {pid}


@proves("faults 5-8", "fault 31", "fault 35", "fault 36")
@in_module
@pytest.mark.parametrize("circumstance", CIRCUMSTANCES, ids=lambda each: each.__name__)
@pytest.mark.parametrize("fault", ENDING, ids=lambda each: each.name)
async def test_a_child_that_ends_is_replaced_and_no_other_session_notices(
    isolated: ClientGroup, fault: Fault, circumstance: Any
) -> None:
    """Its calls get one error each; the session's next call has a new process."""
    pids = [await each.pid() for each in (isolated.victim, *isolated.others)]
    await circumstance(isolated, fault)
    assert await isolated.victim.pid() not in pids
    assert [await each.pid() for each in isolated.others] == pids[1:]


@proves("fault 34")
@in_module
async def test_a_child_may_close_its_stderr(isolated: ClientGroup) -> None:
    """It lives on and is served as before, idle or not."""
    for circumstance in CIRCUMSTANCES:
        await circumstance(isolated, Fault("close_stderr", (34,)))


@proves(
    "fault 17", "faults 19-30", "fault 32", "fault 33", "faults 38-40", "fault 42", "faults 44-46"
)
@in_module
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_client_without_a_session_gets_the_same(shared: ClientGroup, accept: str) -> None:
    """One of 2026-07-28, whose results are made whole: what is in them stays as it was."""
    for fault in LASTING:
        params = {"name": "fault", "arguments": {"fault": fault.name}, "_meta": meta()}
        body = rpc(fault.name, "tools/call", params)
        headers = {**headers_of(body), "accept": accept}
        response = await shared.victim.client.post("/mcp", json=body, headers=headers)
        assert response.status_code == 200, response.text
        assert response.content.count(b'"jsonrpc":') == 1
        if isinstance(fault.wanted, bytes):
            wanted = b'"id":"%b","result":%b' % (fault.name.encode(), fault.wanted[:-1])
            assert wanted in response.content
        else:
            (answer,) = messages(response.text)
            assert answer["id"] == fault.name
            assert answer["error"]["data"]["mcpbridge"] == fault.wanted


def test_the_markers_name_the_rows_of_the_tables() -> None:
    """The tests above claim what their tables hold, and row 18 by the child's banner."""
    with open(__file__, encoding="utf-8") as own:
        marked = [set(named(test)) for test in functions_in(own.read())]
    in_tables = [
        {f"fault {row}" for fault in table for row in fault.rows} for table in (LASTING, ENDING)
    ]
    assert marked[:2] == [in_tables[0] | {"fault 18"}, in_tables[1]]
    assert marked[3] == in_tables[0]
