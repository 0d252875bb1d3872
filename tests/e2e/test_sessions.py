"""Sessions from outside: opened, told apart, listened to, ended, counted; and the probes.

The recorder tells its process id in `serverInfo.version`, so that a test sees which child serves a
session.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio

from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    assert_clean,
    bridge,
    child,
    eventually,
    initialize,
    messages,
    open_session,
    rpc,
    started,
)
from tests.support.proofs import proves
from tests.support.raw_http import recorded, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKED: dict[str, Any] = {"elicitation": {}}
"""The abilities of a client that gets its own child."""
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
CHANGED = '{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"n":%s}}'


class Served(NamedTuple):
    """A bridge over recorders."""

    bridge: RunningBridge
    folder: Path
    client: httpx.AsyncClient

    async def open(self, **capabilities: Any) -> dict[str, str]:
        """A session's headers."""
        return await open_session(self.client, capabilities=capabilities)

    async def ask(self, headers: dict[str, str], method: str, **params: Any) -> Any:
        """The result of a call."""
        answer = await self.client.post("/mcp", json=rpc(9, method, params), headers=headers)
        assert answer.status_code == 200, answer.text
        return messages(answer.text)[-1]["result"]

    async def pid(self, headers: dict[str, str]) -> int:
        """The process that serves a session."""
        return int((await self.ask(headers, "x/pid"))["pid"])

    async def delete(self, headers: dict[str, str]) -> int:
        """End a session; the status of the answer."""
        return (await self.client.delete("/mcp", headers=headers)).status_code

    async def probe(self, path: str) -> tuple[int, Any]:
        """Status and body of a health probe."""
        answer = await self.client.get(path)
        return answer.status_code, answer.json()

    async def turns(self) -> None:
        """Let the bridge's loop go round until it has seen what happened to its connections."""
        for _ in range(10):
            await self.ask({}, "ping")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge with the default isolation."""
    folder = tmp_path_factory.mktemp("record")
    words = ("--json-window", "60s", "--", *child("recorder", str(folder)))
    async with bridge(*words) as running, running.client() as client:
        yield Served(running, folder, client)


@proves("C01")
@pytest.mark.parametrize("capabilities", [{}, ASKED], ids=["shared", "own"])
@pytest.mark.parametrize("revision", [*REVISIONS, "2099-01-01"])
async def test_initialize_opens_a_session_at_a_revision_both_speak(
    served: Served, revision: str, capabilities: Any
) -> None:
    """200 with the server's result, under the client's id, and a session id in the head."""
    seen = set()
    for request_id, accept in (("a", ACCEPT["accept"]), (0, "text/event-stream")):
        body = initialize(request_id, revision, capabilities)
        answer = await served.client.post("/mcp", json=body, headers={"accept": accept})
        assert answer.status_code == 200
        session_id = answer.headers["mcp-session-id"]
        assert re.fullmatch(r"[0-9a-f]{64}", session_id)
        (message,) = messages(answer.text)
        assert message["id"] == request_id
        spoken = revision if revision in REVISIONS else REVISIONS[-1]
        assert message["result"]["protocolVersion"] == spoken
        assert message["result"]["serverInfo"]["name"] == "recorder"
        seen.add(session_id)
        assert await served.delete({"mcp-session-id": session_id}) == 200
    assert len(seen) == 2


@proves("fault 95", "C02", "C16")
async def test_notifications_and_answers_are_taken_with_an_empty_202(served: Served) -> None:
    """Also those that no client waits for."""
    session = await served.open(**ASKED)
    pid = await served.pid(session)
    before = (served.folder / str(pid)).read_bytes()
    for body in (
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
        {"jsonrpc": "2.0", "id": 1, "result": {"action": "accept"}},
        {"jsonrpc": "2.0", "id": "x", "error": {"code": 1, "message": "no"}},
    ):
        answer = await served.client.post("/mcp", json=body, headers=session)
        assert (answer.status_code, answer.content) == (202, b"")
        assert answer.headers["content-length"] == "0"
    await served.ask(session, "ping")
    new = (served.folder / str(pid)).read_bytes().removeprefix(before).splitlines()
    assert [json.loads(line)["method"] for line in new] == [
        "notifications/roots/list_changed",
        "ping",
    ]
    assert await served.delete(session) == 200


@proves("fault 79", "C04", "C78")
async def test_a_session_that_is_not_there_is_404_for_every_verb(served: Served) -> None:
    """Deleted or never opened, and the id of the request is echoed; `initialize` begins another."""
    deleted = await served.open()
    assert await served.delete(deleted) == 200
    for headers in (deleted, {**ACCEPT, "mcp-session-id": "0" * 64}):
        for verb, body in (("POST", rpc("e", "ping")), ("GET", None), ("DELETE", None)):
            answer = await served.client.request(verb, "/mcp", json=body, headers=headers)
            assert answer.status_code == 404
            assert answer.json()["id"] == ("e" if body else None)
            assert "mcp-session-id" not in answer.headers
        answer = await served.client.post("/mcp", json=initialize(3), headers=headers)
        assert (answer.status_code, answer.json()["id"]) == (200, 3)
        assert answer.headers["mcp-session-id"] != headers["mcp-session-id"]


@proves("fault 80", "C05", "C71")
async def test_without_a_session_the_shared_child_serves(served: Served) -> None:
    """Requests and notifications; to listen or to end takes a session."""
    shared = await served.open()
    assert await served.pid({}) == await served.pid(shared)
    answer = await served.client.post("/", json=rpc(1, "ping"))
    assert (answer.json()["result"], "mcp-session-id" in answer.headers) == ({}, False)
    told = {"jsonrpc": "2.0", "method": "notifications/x-outside"}
    answer = await served.client.post("/mcp/", json=told)
    assert (answer.status_code, answer.content) == (202, b"")
    await served.turns()
    assert b"notifications/x-outside" in recorded(served.folder)
    for verb in ("GET", "DELETE"):
        answer = await served.client.request(verb, "/mcp", headers=ACCEPT)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == -32600


async def test_a_client_that_can_be_asked_gets_a_child_of_its_own(served: Served) -> None:
    """The abilities decide, not their content; the others share."""
    shared = await served.pid({})
    own = []
    asked: list[dict[str, Any]] = [{"sampling": {}}, {"roots": {"listChanged": True}}, ASKED]
    for abilities in asked:
        session = await served.open(**abilities)
        own.append(await served.pid(session))
        assert await served.delete(session) == 200
    assert len({shared, *own}) == 4
    unasked: list[dict[str, Any]] = [{}, {"experimental": {"x": {}}}, {"sampling": None}]
    for abilities in unasked:
        assert await served.pid(await served.open(**abilities)) == shared


@proves("fault 62", "C06")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("isolation", "children"), [("auto", 1), ("shared", 1), ("session", 8)], ids=lambda v: str(v)
)
async def test_colliding_ids_of_many_sessions_never_cross(
    tmp_path: Path, isolation: str, children: int
) -> None:
    """8 sessions, each 25 calls at once with ids from 0: 200 right answers."""
    words = ("--isolation", isolation, "--", *child("recorder", str(tmp_path)))
    async with bridge(*words) as running, running.client() as client:
        some = Served(running, tmp_path, client)
        sessions = [await some.open() for _ in range(8)]

        async def one(session: dict[str, str], number: int) -> bool:
            nonce = {"session": session["mcp-session-id"], "number": number}
            message = rpc(number, "x/echo", nonce)
            answer = await client.post("/mcp", json=message, headers=session)
            return messages(answer.text) == [{"jsonrpc": "2.0", "id": number, "result": nonce}]

        right = await asyncio.gather(*(one(s, number) for number in range(25) for s in sessions))
        assert right == [True] * 200
        assert len({await some.pid(session) for session in sessions}) == children
        # One process more than the sessions' own: the shared one.
        assert len(running.processes()) == children + (isolation == "session")


@proves("C09", "C10")
async def test_a_listener_hears_what_belongs_to_no_request(served: Served) -> None:
    """From the first moment, each message on one stream, and never an answer."""
    session = await served.open(**ASKED)
    async with (
        streaming(served.client, session) as listening,
        streaming(
            served.client,
            session,
            rpc(1, "x/hold", {"name": "open", "progress": 1, "_meta": {"progressToken": 1}}),
        ) as calling,
    ):
        assert (await calling.next())["params"]["progress"] == 0
        assert listening.response.headers["x-accel-buffering"] == "no"
        for number in range(3):
            assert await served.ask(session, "x/say", lines=[CHANGED % number]) == {}
        assert [(await listening.next())["params"]["n"] for _ in range(3)] == [0, 1, 2]
        assert await served.ask(session, "x/release", name="open") == {"released": 1}
        assert [message["id"] for message in await calling.rest()] == [1]
        assert await served.delete(session) == 200
        assert await listening.rest() == []


@proves("C47")
async def test_a_line_of_the_child_with_any_character_is_one_event(served: Served) -> None:
    """Separators that some readers cut at pass as escapes, all else as it came."""
    session = await served.open(**ASKED)
    value = '"\u2028\u2029\u0085é😀\\ud800 12345678901234567890"'
    async with streaming(served.client, session) as listening:
        assert await served.ask(session, "x/say", lines=[CHANGED % value]) == {}
        assert (await listening.next())["params"]["n"] == json.loads(value)
        assert await served.delete(session) == 200


@proves("fault 45", "C10")
async def test_every_session_of_a_shared_child_hears_that_a_list_changed_once(
    served: Served,
) -> None:
    """A message that could be for several clients reaches none."""
    first, second = await served.open(), await served.open()
    secret = '{"jsonrpc":"2.0","method":"notifications/x-private","params":{"data":"secret"}}'
    async with (
        streaming(served.client, first) as one,
        streaming(served.client, second) as other,
    ):
        assert await served.ask(first, "x/say", lines=[secret, CHANGED % 1]) == {}
        assert await served.ask(second, "x/say", lines=[CHANGED % 2]) == {}
        for listening in (one, other):
            assert [(await listening.next())["params"]["n"] for _ in range(2)] == [1, 2]


@proves("fault 60", "C69")
async def test_the_newest_of_two_listeners_hears_and_the_older_takes_over(served: Served) -> None:
    """Neither is refused or closed by the other (B3b)."""
    session = await served.open(**ASKED)
    async with streaming(served.client, session) as older:
        await served.ask(session, "x/say", lines=[CHANGED % 1])
        assert (await older.next())["params"]["n"] == 1
        async with streaming(served.client, session) as newer:
            await served.ask(session, "x/say", lines=[CHANGED % 2])
            assert (await newer.next())["params"]["n"] == 2
        await served.turns()
        await served.ask(session, "x/say", lines=[CHANGED % 3])
        assert (await older.next())["params"]["n"] == 3, "and 2 was not said twice"
        assert await served.delete(session) == 200
        assert await older.next() is None


@proves("C10", "C75")
async def test_what_belongs_to_no_request_goes_to_a_listener_first(served: Served) -> None:
    """Else a log message to the only call, before its answer; all else waits."""
    session = await served.open(**ASKED)
    updated = '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"u:%d"}}'
    logged = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}'
    message = rpc(1, "x/say", {"lines": [logged]})
    answer = await served.client.post("/mcp", json=message, headers=session)
    said, result = messages(answer.text)
    assert (said, result["id"]) == (json.loads(logged), 1)
    for number in range(5):
        assert await served.ask(session, "x/say", lines=[updated % number]) == {}
    async with streaming(served.client, session) as listening:
        uris = [(await listening.next())["params"]["uri"] for _ in range(5)]
        assert uris == [f"u:{number}" for number in range(5)]
        answer = await served.client.post("/mcp", json=message, headers=session)
        assert [message["id"] for message in messages(answer.text)] == [1]
        assert await listening.next() == json.loads(logged)
        assert await served.delete(session) == 200
        assert await listening.rest() == []


@proves("fault 92")
async def test_a_listener_must_take_an_event_stream(served: Served) -> None:
    """406 for one that says otherwise."""
    session = await served.open()
    for accept, status in (("application/json", 406), ("text/event-stream;q=0, */*", 406)):
        answer = await served.client.get("/mcp", headers={**session, "accept": accept})
        assert answer.status_code == status
        assert "mcp-session-id" not in answer.headers
    for accept in ("*/*", "text/event-stream", "text/*"):
        async with streaming(served.client, {**session, "accept": accept}):
            pass


@proves("fault 82", "C71")
@pytest.mark.slow
async def test_delete_ends_the_streams_the_calls_and_the_child_of_a_session(
    served: Served,
) -> None:
    """And no other session's."""
    other = await served.open(**ASKED)
    session = await served.open(**ASKED)
    pid, untouched = await served.pid(session), await served.pid(other)
    message = rpc(1, "x/hold", {"name": "x", "progress": 1, "_meta": {"progressToken": 1}})
    async with (
        streaming(served.client, session) as listening,
        streaming(served.client, session, message) as calling,
    ):
        await calling.next()
        assert await served.delete(session) == 200
        assert await listening.rest() == []
        (failure,) = await calling.rest()
        assert failure["id"] == 1
        assert failure["error"]["data"]["mcpbridge"]["reason"] == "session_closed"
    await served.bridge.logged("child.stopped", lambda record: record["pid"] == pid)
    assert await served.delete(session) == 404
    assert await served.pid(other) == untouched
    assert await served.delete(other) == 200
    assert await served.ask({}, "ping") == {}, "the shared child goes on"


@proves("fault 3", "C58", "C70")
async def test_a_child_that_refuses_a_client_leaves_no_session(served: Served) -> None:
    """Its own error passes; its end is told as such; neither opens anything."""
    refused = initialize("r", capabilities=ASKED)
    refused["params"]["clientInfo"]["name"] = "refused"
    answer = await served.client.post("/mcp", json=refused, headers=ACCEPT)
    assert "mcp-session-id" not in answer.headers
    assert answer.json() == {
        "jsonrpc": "2.0",
        "id": "r",
        "error": {"code": -32001, "message": "not you", "data": {"name": "refused"}},
    }
    refused["params"]["clientInfo"]["name"] = "vanish"
    answer = await served.client.post("/mcp", json=refused, headers=ACCEPT)
    assert (answer.status_code, answer.json()["id"]) == (503, "r")
    assert answer.headers["retry-after"].isdigit()
    assert "mcp-session-id" not in answer.headers
    facts = answer.json()["error"]["data"]["mcpbridge"]
    assert (facts["reason"], facts["exit"]) == ("child_exited", {"code": 3})
    for record in served.bridge.events("child.started")[-2:]:
        await ended(served.bridge, record["pid"])


async def ended(running: RunningBridge, pid: int) -> None:
    """Wait until a child is gone, by itself or because it was told to end."""
    await eventually(
        lambda: any(
            record["event"] in ("child.exited", "child.stopped") and record["pid"] == pid
            for record in running.log
        ),
        f"child {pid} has ended",
    )


@proves("fault 83", "O9")
@pytest.mark.slow
async def test_unused_and_idle_sessions_end_by_themselves(tmp_path: Path) -> None:
    """Unused ones early, used ones late, those with a stream or a call not at all."""
    timeouts = ("--unused-session-timeout", "500ms", "--session-idle-timeout", "2s")
    words = (*timeouts, "--", *child("recorder", str(tmp_path)))
    held = rpc(1, "x/hold", {"name": "x", "progress": 1, "_meta": {"progressToken": 1}})
    async with bridge(*words) as running, running.client() as client:
        some = Served(running, tmp_path, client)
        async with (
            streaming(client, await some.open()) as listening,
            streaming(client, await some.open(), held) as calling,
        ):
            await calling.next()
            used, vanished = await some.open(**ASKED), await some.open(**ASKED)
            await some.ask(used, "ping")
            await running.logged("session.expired", lambda record: not record["used"])
            await some.ask(used, "ping")
            await running.logged("session.expired", lambda record: record["used"])
            for headers in (used, vanished):
                answer = await client.post("/mcp", json=rpc(1, "ping"), headers=headers)
                assert answer.status_code == 404
            await running.logged("child.stopped", count=2)
            assert len(running.processes()) == 1, "the shared child"
            await some.ask({}, "x/say", lines=[CHANGED % 1])
            assert (await listening.next())["params"]["n"] == 1
            await some.ask({}, "x/release", name="x")
            assert (await calling.rest())[-1]["id"] == 1
        assert len(await running.logged("session.expired", count=2)) == 2
        await running.logged("session.expired", count=3)


@pytest.mark.slow
async def test_an_idle_timeout_of_0_means_never(tmp_path: Path) -> None:
    """A session that was used stays, however many others end in the meantime."""
    timeouts = ("--session-idle-timeout", "0", "--unused-session-timeout", "3s")
    words = (*timeouts, "--", *child("recorder", str(tmp_path)))
    async with bridge(*words) as running, running.client() as client:
        some = Served(running, tmp_path, client)
        used = await some.open()
        assert await some.ask(used, "ping") == {}
        for number in (1, 2, 3):
            unused = await client.post("/mcp", json=initialize(number), headers=ACCEPT)
            assert unused.status_code == 200
        await running.logged("session.expired", count=3)
        assert [record["used"] for record in running.events("session.expired")] == [False] * 3
        assert await some.ask(used, "ping") == {}


@proves("fault 83")
@pytest.mark.slow
async def test_at_the_limit_the_session_most_likely_abandoned_makes_room(tmp_path: Path) -> None:
    """Longest idle, without an open stream first, never one with a call in flight.

    The bridge stays ready, and a metric says that it is full.
    """
    words = ("--max-sessions", "3", "--", *child("recorder", str(tmp_path)))
    hold = rpc(1, "x/hold", {"name": "x", "progress": 1, "_meta": {"progressToken": 1}})
    async with bridge(*words) as running, running.client() as client:
        some = Served(running, tmp_path, client)
        first, second, third = [await some.open() for _ in range(3)]
        async with streaming(client, first, hold) as calling, streaming(client, second):
            await calling.next()
            assert (await some.probe("/readyz"))[0] == 200
            metrics = (await client.get("/metrics")).text
            assert "mcpbridge_sessions_open 3" in metrics
            assert "mcpbridge_sessions_max 3" in metrics
            fourth = await some.open()
            assert await some.delete(third) == 404
            async with streaming(client, fourth):
                fifth = await some.open()
                assert await some.delete(second) == 404
                assert [await some.ask(each, "ping") for each in (fourth, fifth)] == [{}, {}]
            await some.ask({}, "x/release", name="x")
            assert (await calling.rest())[-1]["id"] == 1
        reasons = (await client.get("/metrics")).text
        assert 'mcpbridge_sessions_ended_total{reason="evicted"} 2' in reasons
        assert [record["listening"] for record in running.events("session.evicted")] == [
            False,
            True,
        ]


@proves("fault 83")
@pytest.mark.slow
async def test_if_every_session_has_a_call_in_flight_a_client_is_told_which_limit(
    tmp_path: Path,
) -> None:
    """503, Retry-After, the flag; ready all the same; room again after a DELETE."""
    words = ("--max-sessions", "2", "--require-session", "--", *child("recorder", str(tmp_path)))
    async with bridge(*words) as running, running.client() as client:
        some = Served(running, tmp_path, client)
        sessions = [await some.open(), await some.open()]
        holds = [
            rpc(1, "x/hold", {"name": name, "progress": 1, "_meta": {"progressToken": 1}})
            for name in "ab"
        ]
        async with (
            streaming(client, sessions[0], holds[0]) as one,
            streaming(client, sessions[1], holds[1]) as two,
        ):
            await one.next()
            await two.next()
            assert [(await some.probe(path))[0] for path in ("/health", "/readyz")] == [200, 200]
            for _ in range(2):
                answer = await client.post("/mcp", json=initialize("full"), headers=ACCEPT)
                assert_over_capacity(answer, "--max-sessions 2")
            assert await some.ask(sessions[0], "ping") == {}
            assert await some.delete(sessions[1]) == 200
            await some.open()
            await some.ask(sessions[0], "x/release", name="a")
        for body in (rpc("s", "ping"), {"jsonrpc": "2.0", "method": "notifications/x"}):
            answer = await client.post("/mcp", json=body, headers=ACCEPT)
            assert (answer.status_code, answer.json()["id"]) == (400, body.get("id"))
            assert answer.json()["error"]["code"] == -32600
    assert b"notifications/x" not in recorded(tmp_path)


@pytest.mark.slow
async def test_over_max_children_a_client_is_told_which_limit_and_when_to_try(
    tmp_path: Path,
) -> None:
    """The shared child keeps its place; an ended session makes room."""
    words = ("--max-children", "3", "--isolation", "session")
    async with (
        bridge(*words, "--", *child("recorder", str(tmp_path))) as running,
        running.client() as client,
    ):
        some = Served(running, tmp_path, client)
        sessions = [await some.open(), await some.open()]
        for _ in range(2):
            answer = await client.post("/mcp", json=initialize("full"), headers=ACCEPT)
            assert_over_capacity(answer, "--max-children 3")
        assert len(running.processes()) == 3
        assert await some.ask({}, "ping") == {}
        pid = await some.pid(sessions[0])
        assert await some.delete(sessions[0]) == 200
        await running.logged("child.stopped", lambda record: record["pid"] == pid)
        assert await some.pid(await some.open()) != pid


def assert_over_capacity(answer: httpx.Response, flag: str) -> None:
    """The refusal of an `initialize` with the id `full`."""
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "mcp-session-id" not in answer.headers
    assert answer.json()["id"] == "full"
    error = answer.json()["error"]
    assert error["code"] == -32603
    assert flag in error["message"]
    facts = error["data"]["mcpbridge"]
    assert facts == {"reason": "capacity", "executed": "no", "retryable": True}


@pytest.mark.slow
async def test_a_spare_is_ready_for_the_next_session_and_is_replaced(tmp_path: Path) -> None:
    """It is started when the shared child is up, has had no handshake, and is used once."""
    words = ("--isolation", "session", "--spares", "1", "--", *child("recorder", str(tmp_path)))
    async with bridge(*words) as running, running.client() as client:
        some = Served(running, tmp_path, client)
        taken = {await some.pid({})}
        for _ in range(2):
            await eventually(lambda: len(running.processes() - taken) == 1, "a spare is there")
            (spare,) = running.processes() - taken
            session = await some.open()
            assert await some.pid(session) == spare
            lines = (tmp_path / str(spare)).read_bytes().splitlines()
            assert json.loads(lines[0])["method"] == "initialize"
            taken.add(spare)
        await eventually(lambda: len(running.processes() - taken) == 1, "the spare is replaced")


PROBES = ("/livez", "/readyz", "/startupz", "/health", "/healthz")


async def probes(some: Served) -> list[int]:
    """The statuses of every probe; a HEAD says the same without a body."""
    statuses = []
    for path in PROBES:
        answer, head = await some.client.get(path), await some.client.head(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["status"] == ("ok" if answer.status_code == 200 else "unavailable")
        assert (head.status_code, head.content) == (answer.status_code, b"")
        statuses.append(answer.status_code)
    return statuses


@pytest.mark.slow
async def test_the_probes_tell_the_phases_of_a_start_and_a_restart(tmp_path: Path) -> None:
    """A gate holds each child before its handshake, so that the phase lasts."""
    folder, readiness = tmp_path / "record", tmp_path / "gate"
    folder.mkdir()
    os.mkfifo(readiness)
    command = child("recorder", str(folder), "--gate", str(readiness))
    async with bridge("--", *command, ready=False) as running, running.client() as client:
        some = Served(running, folder, client)
        assert await probes(some) == [200, 503, 503, 200, 200]
        assert (await some.probe("/readyz"))[1]["missing"] == {"child": "starting"}
        early = asyncio.create_task(some.open())
        await running.logged("child.started")
        assert await probes(some) == [200, 503, 503, 200, 200]
        await gate_passed(running, readiness, 1)
        assert await probes(some) == [200, 200, 200, 200, 200]
        session = await early
        answer = await client.post("/mcp", json=rpc(1, "x/exit", {"code": 1}), headers=session)
        assert messages(answer.text)[-1]["error"]["data"]["mcpbridge"]["exit"] == {"code": 1}
        await running.logged("child.exited")
        assert await probes(some) == [200, 503, 200, 200, 200]
        assert "child" in (await some.probe("/readyz"))[1]["missing"]
        await gate_passed(running, readiness, 2)
        assert await probes(some) == [200, 200, 200, 200, 200]
        assert await some.ask(session, "ping") == {}


async def gate_passed(running: RunningBridge, readiness: Path, count: int) -> None:
    """Let the child behind the gate serve, and wait until it is ready."""
    # Opened for both: a fifo opened for writing alone would block until the child opens it.
    opened = os.open(readiness, os.O_RDWR)
    try:
        await running.logged("child.ready", count=count)
    finally:
        os.close(opened)


@proves("fault 96", "O11")
@pytest.mark.slow
async def test_while_draining_no_session_is_opened_and_calls_are_finished(tmp_path: Path) -> None:
    """Not ready and not healthy, yet alive; the last answer ends the process."""
    words = ("--json-window", "60s", "--", *child("recorder", str(tmp_path)))
    async with bridge(*words) as running, running.client() as client:
        some = Served(running, tmp_path, client)
        session, listener = await some.open(), await some.open()
        held = rpc(1, "x/hold", {"name": "x", "progress": 1, "_meta": {"progressToken": 1}})
        async with (
            streaming(client, session, held) as calling,
            streaming(client, listener) as listening,
        ):
            await calling.next()
            running.signal(signal.SIGTERM)
            await running.logged(
                "drain.phase_changed", lambda record: record["phase"] == "draining"
            )
            assert await listening.rest() == []
            assert await probes(some) == [200, 503, 200, 503, 503]
            assert "draining" in (await some.probe("/health"))[1]["missing"]
            for body in (initialize("late"), rpc("late", "ping")):
                answer = await client.post("/mcp", json=body, headers=ACCEPT)
                assert (answer.status_code, answer.json()["id"]) == (503, "late")
                assert answer.headers["retry-after"] == "1"
                assert answer.headers["connection"] == "close"
                facts = answer.json()["error"]["data"]["mcpbridge"]
                assert (facts["reason"], facts["executed"]) == ("draining", "no")
            assert await some.ask(session, "x/release", name="x") == {"released": 1}
            assert [message["result"] for message in await calling.rest()] == [{"held": "x"}]
        assert await running.ended() == 0


@proves("fault 2", "O11")
@pytest.mark.slow
async def test_a_bridge_that_has_given_up_says_so_to_the_probes() -> None:
    """While it takes its time to end it is alive, not ready and not healthy."""
    words = ("--port", "0", "--give-up-after", "1", "--lame-duck", "15s", "--")
    async with started(*words, sys.executable, "-c", "raise SystemExit(7)") as running:
        (record,) = await running.logged("serve.started")
        running.url = str(record["url"]).rpartition("/")[0]
        await running.logged("serve.gave_up")
        async with running.client() as client:
            some = Served(running, Path(), client)
            assert await probes(some) == [200, 503, 503, 503, 503]
            assert "given_up" in (await some.probe("/readyz"))[1]["missing"]
            answer = await client.post("/mcp", json=initialize("g"), headers=ACCEPT)
            assert (answer.status_code, answer.json()["id"]) == (503, "g")
            facts = answer.json()["error"]["data"]["mcpbridge"]
            assert (facts["reason"], facts["exit"]) == ("child_exited", {"code": 7})
        running.signal(signal.SIGTERM)
        await running.logged("serve.signal")
        await running.next_order(signal.SIGTERM)
        assert await running.ended() == 3
        assert_clean(running)
