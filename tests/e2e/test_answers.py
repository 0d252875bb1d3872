"""The form of an answer and the life of a call: JSON or stream, progress, cancellation, departure.

The child holds calls until another call releases them, so that no test depends on how long
anything takes.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio

from tests.support.bridge_process import (
    ACCEPT,
    RunningBridge,
    bridge,
    child,
    eventually,
    initialize,
    messages,
    open_session,
    rpc,
)
from tests.support.proofs import proves
from tests.support.raw_http import post, recorded, streaming, wire

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKED: dict[str, Any] = {"elicitation": {}}
REQUEST_CANCELLED = -32800


class Served(NamedTuple):
    """A bridge over a recorder."""

    bridge: RunningBridge
    folder: Path
    client: httpx.AsyncClient

    async def asked(
        self, headers: dict[str, str], request_id: Any, method: str, **params: Any
    ) -> Any:
        """A call that is answered with JSON; its result."""
        message = rpc(request_id, method, params)
        answer = await self.client.post("/mcp", json=message, headers=headers)
        assert answer.headers["content-type"] == "application/json", answer.text
        assert answer.json()["id"] == request_id
        return answer.json()["result"]

    async def heard(self) -> list[bytes]:
        """Every line that the shared child has read."""
        pid = (await self.asked({}, "pid", "x/pid"))["pid"]
        return (self.folder / str(pid)).read_bytes().splitlines()

    async def release(self, name: str) -> int:
        """Let the shared child answer what it holds under a name; how many calls that were."""
        result = await self.asked({}, f"release {name}", "x/release", name=name)
        return int(result["released"])

    async def holds(self, name: str, count: int = 1) -> list[int]:
        """Wait until the child holds that many calls of this name; their ids on its pipe."""
        pattern = rb'"id":([0-9]+),"method":"x/hold","params":\{"name": ?"%b"' % name.encode()

        def numbers() -> list[bytes]:
            return re.findall(pattern, recorded(self.folder))

        await eventually(lambda: len(numbers()) >= count, f"{count} calls {name} are held")
        return [int(number) for number in numbers()]

    def cancelled(self) -> list[dict[str, Any]]:
        """The params of every cancellation that reached a child."""
        lines = [json.loads(line) for line in recorded(self.folder).splitlines()]
        return [line["params"] for line in lines if line.get("method") == "notifications/cancelled"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge that waits long for a first word: nothing becomes a stream by being slow."""
    folder = tmp_path_factory.mktemp("record")
    words = ("--json-window", "60s", "--", *child("recorder", str(folder)))
    async with bridge(*words) as running, running.client() as client:
        yield Served(running, folder, client)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A bridge that begins its response soon."""
    folder = tmp_path_factory.mktemp("record")
    words = ("--json-window", "50ms", "--", *child("recorder", str(folder)))
    async with bridge(*words) as running, running.client() as client:
        yield Served(running, folder, client)


def hold(request_id: Any, name: str, token: Any = None, progress: int = 0) -> dict[str, Any]:
    """A call that the child holds, after that much progress under a token."""
    params: dict[str, Any] = {"name": name, "progress": progress}
    if token is not None:
        params["_meta"] = {"progressToken": token}
    return rpc(request_id, "x/hold", params)


def held(request_id: Any, name: str) -> dict[str, Any]:
    """The answer to a held call."""
    return {"jsonrpc": "2.0", "id": request_id, "result": {"held": name}}


def progress(token: Any, step: int) -> dict[str, Any]:
    """Progress as the recorder reports it."""
    params = {"progressToken": token, "progress": step}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


@proves("C14", "C91")
async def test_progress_makes_an_answer_a_stream_with_the_progress_first(patient: Served) -> None:
    """It is delivered while the call still runs, and the head is what proxies need."""
    session = await open_session(patient.client)
    async with streaming(patient.client, session, hold(1, "p", 7, progress=2)) as events:
        headers = events.response.headers
        assert headers["x-accel-buffering"] == "no"
        assert {"no-cache", "no-transform"} <= set(headers["cache-control"].split(", "))
        assert "content-length" not in headers
        assert [await events.next(), await events.next()] == [progress(7, 0), progress(7, 1)]
        assert await patient.release("p") == 1
        assert await events.rest() == [held(1, "p")]


@proves("fault 46", "C14")
async def test_each_session_hears_of_its_own_progress_under_its_own_token(patient: Served) -> None:
    """Equal tokens and ids of two sessions on one child, number and text kept."""
    first, second = [await open_session(patient.client) for _ in range(2)]
    for token in (7, "7", 0, ""):
        mine, theirs = f"first {token!r}", f"second {token!r}"
        async with (
            streaming(patient.client, first, hold(1, mine, token, progress=1)) as one,
            streaming(patient.client, second, hold(1, theirs, token, progress=3)) as other,
        ):
            assert await one.next() == progress(token, 0)
            assert [await other.next() for _ in range(3)] == [progress(token, n) for n in range(3)]
            assert await patient.release(theirs) == 1
            assert await other.rest() == [held(1, theirs)]
            assert await patient.release(mine) == 1
            assert await one.rest() == [held(1, mine)]


@proves("O2")
async def test_a_slow_answer_begins_as_a_stream_when_the_window_is_over(hasty: Served) -> None:
    """The head is there while the child still holds the call, which may report progress."""
    session = await open_session(hasty.client)
    async with streaming(hasty.client, session, hold("s", "slow", 1)) as events:
        assert await hasty.release("slow") == 1
        assert await events.rest() == [held("s", "slow")]


@proves("C92", "O3")
async def test_a_slow_answer_stays_json_if_nothing_can_come_before_it(hasty: Served) -> None:
    """Python SDK 2.x refuses an event over 1 MiB, and reads JSON of any size."""
    for session in (await open_session(hasty.client), ACCEPT):
        quiet = rpc(1, "x/hold", {"name": "quiet", "bytes": 2_000_000})
        waiting = asyncio.create_task(hasty.client.post("/mcp", json=quiet, headers=session))
        await hasty.holds("quiet")
        # The window of a call that came later is over when its stream begins.
        async with streaming(hasty.client, session, hold(2, "later", 1)):
            assert await hasty.release("quiet") == 1
            answer = await waiting
            assert await hasty.release("later") == 1
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-length"] == str(len(answer.content))
        assert answer.json()["result"] == {"held": "quiet" + "x" * 2_000_000}


async def test_json_that_takes_long_begins_with_the_keep_alive(tmp_path: Path) -> None:
    """Its head goes out after that time, and then blanks, which mean nothing before JSON."""
    words = ("--json-window", "50ms", "--sse-keep-alive", "1s")
    async with (
        bridge(*words, "--", *child("recorder", str(tmp_path))) as running,
        running.client() as client,
    ):
        served = Served(running, tmp_path, client)
        session = await open_session(client)
        lines = [f"{name}: {value}" for name, value in {**ACCEPT, **session}.items()]
        async with wire(running.port) as connection:
            await connection.send(post(json.dumps(hold(1, "long")).encode(), *lines))
            head = await connection.head()
            assert (head.status, head.headers["content-type"]) == (200, "application/json")
            body = await connection.chunk()
            assert body == b" "
            assert await served.release("long") == 1
            while chunk := await connection.chunk():
                body += chunk
        assert json.loads(body) == held(1, "long")


@pytest.mark.parametrize("case", ["abilities", "level", "age", "no window"])
async def test_a_slow_answer_is_a_stream_if_something_may_come_before_it(
    tmp_path: Path, case: str
) -> None:
    """A question, log messages; or if its client may have to fetch the rest of it later."""
    words = ["--json-window", "0" if case == "no window" else "50ms"]
    if case == "age":
        words += ["--max-stream-age", "60s"]
    async with (
        bridge(*words, "--", *child("questioner", str(tmp_path))) as running,
        running.client() as client,
    ):
        capabilities = ASKED if case == "abilities" else {}
        session = await open_session(client, "2025-11-25", capabilities)
        if case == "level":
            level = rpc(1, "logging/setLevel", {"level": "info"})
            assert (await client.post("/mcp", json=level, headers=session)).status_code == 200
        async with streaming(client, session, hold(2, "some")) as events:
            release = rpc(3, "x/release", {"name": "some"})
            assert (await client.post("/mcp", json=release, headers=session)).status_code == 200
            assert held(2, "some") in await events.rest()


async def test_a_log_message_makes_a_stream_of_an_answer_that_was_to_be_json(
    tmp_path: Path,
) -> None:
    """Some servers log unasked: while the response has not begun, nothing is lost."""
    words = ("--json-window", "50ms", "--", *child("questioner", str(tmp_path)))
    async with bridge(*words) as running, running.client() as client:
        session = await open_session(client, "2025-11-25")
        log = {"level": "info", "data": "on it"}
        line = {"jsonrpc": "2.0", "method": "notifications/message", "params": log}
        say = {"jsonrpc": "2.0", "method": "notifications/x-say", "params": {}}
        say["params"] = {"lines": [json.dumps(line)]}

        async def say_when_held() -> None:
            await eventually(lambda: b"x/hold" in recorded(tmp_path), "the call is held")
            assert (await client.post("/mcp", json=say, headers=session)).status_code == 202

        saying = asyncio.create_task(say_when_held())
        async with streaming(client, session, hold(1, "some")) as events:
            assert (await events.next()) == line
            await saying
            release = rpc(2, "x/release", {"name": "some"})
            assert (await client.post("/mcp", json=release, headers=session)).status_code == 200
            assert await events.rest() == [held(1, "some")]


@proves("C94")
@pytest.mark.parametrize("accept", ["application/json", "*/*", None])
async def test_a_client_without_streams_gets_its_slow_answer_as_late_json(
    hasty: Served, accept: str | None
) -> None:
    """The head goes out at the window, the body when it is there; progress is left out."""
    name = f"late {accept}"
    headers = () if accept is None else (f"Accept: {accept}",)
    async with wire(hasty.bridge.port) as connection:
        await connection.send(post(json.dumps(hold(5, name, 1, progress=2)).encode(), *headers))
        head = await connection.head()
        assert (head.status, head.headers["content-type"]) == (200, "application/json")
        assert await hasty.release(name) == 1
        body = b""
        while chunk := await connection.chunk():
            body += chunk
    assert json.loads(body) == held(5, name)


@proves("C92", "O3")
@pytest.mark.slow
async def test_a_large_single_answer_is_json(patient: Served) -> None:
    """Deployed clients refuse events over 1 MiB, but read JSON of any size."""
    session = await open_session(patient.client)
    result = await patient.asked(session, 1, "x/big", bytes=5_000_000)
    assert result == {"text": "x" * 5_000_000}


@proves("fault 55", "C11")
@pytest.mark.parametrize("steps", [0, 1])
async def test_leaving_is_not_cancelling(patient: Served, steps: int) -> None:
    """Before and after the head the call goes on to its end."""
    session = await open_session(patient.client)
    name = f"left after {steps}"
    body = json.dumps(hold(1, name, "t", progress=steps)).encode()
    lines = [f"{key}: {value}" for key, value in session.items()]
    async with wire(patient.bridge.port) as connection:
        await connection.send(post(body, *lines))
        if steps:
            await connection.head()
        await patient.holds(name)
    for number in range(10):  # turns of the bridge's loop, in which it sees that the client left
        await patient.asked(session, 100 + number, "x/echo")
    busy = await patient.client.post("/mcp", json=rpc(1, "x/echo", {}), headers=session)
    assert busy.json()["error"]["code"] == -32600, "the call is still in flight"
    assert await patient.release(name) == 1
    assert await patient.asked(session, 1, "x/echo") == {}, "it has ended"
    assert patient.cancelled() == []


@proves("fault 41", "C13", "C76")
@pytest.mark.slow
async def test_a_cancellation_reaches_the_call_of_its_own_session_only(hasty: Served) -> None:
    """Two sessions run call 5: one cancels it, under the child's number."""
    mine, theirs = [await open_session(hasty.client) for _ in range(2)]
    async with (
        streaming(hasty.client, mine, hold(5, "mine", 1)) as one,
        streaming(hasty.client, theirs, hold(5, "theirs", 1)) as other,
    ):
        (number,) = await hasty.holds("mine")
        for request_id in (99, "5", 5):
            params = {"requestId": request_id, "reason": "enough"}
            told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
            answer = await hasty.client.post("/mcp", json=told, headers=mine)
            assert (answer.status_code, answer.content) == (202, b"")
        ended = await one.rest()
        assert [message["id"] for message in ended] == [5]
        assert ended[0]["error"]["code"] == REQUEST_CANCELLED
        assert await hasty.asked(mine, 5, "x/echo") == {}, "the id is free again"
        assert await hasty.release("mine") == 1
        assert await hasty.release("theirs") == 1
        assert await other.rest() == [held(5, "theirs")]
    assert hasty.cancelled() == [{"requestId": number, "reason": "enough"}]
    assert await hasty.asked(mine, 6, "x/echo") == {}, "the late answer went nowhere"


@proves("C76")
async def test_an_answer_that_crosses_its_cancellation_is_the_final_one(hasty: Served) -> None:
    """The child's own last word is preferred to the bridge's."""
    session = await open_session(hasty.client)
    async with streaming(hasty.client, session, hold(1, "crossing", 1)) as events:
        params = {"requestId": 1}
        told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
        answer = await hasty.client.post("/mcp", json=told, headers=session)
        assert answer.status_code == 202
        assert await hasty.release("crossing") == 1
        assert await events.rest() == [held(1, "crossing")]


@proves("fault 61")
async def test_an_id_in_flight_is_refused_to_a_second_call(hasty: Served) -> None:
    """With 200 and an error, and the first goes on; another spelling is another id."""
    session = await open_session(hasty.client)
    async with streaming(hasty.client, session, hold(1, "first", 1)) as events:
        for accept in (ACCEPT["accept"], "application/json"):
            headers = {**session, "accept": accept}
            answer = await hasty.client.post("/mcp", json=rpc(1, "x/echo", {}), headers=headers)
            assert (answer.status_code, answer.json()["id"]) == (200, 1)
            assert answer.json()["error"]["code"] == -32600
        assert await hasty.asked(session, "1", "x/echo") == {}
        assert await hasty.release("first") == 1
        assert await events.rest() == [held(1, "first")]


async def test_outside_of_sessions_equal_ids_do_not_meet(hasty: Served) -> None:
    """Many simple clients count from 1 at the same time."""
    async with (
        streaming(hasty.client, ACCEPT, hold(1, "curl one", 1)) as one,
        streaming(hasty.client, ACCEPT, hold(1, "curl two", 2)) as two,
    ):
        assert await hasty.release("curl two") == 1
        assert await two.rest() == [held(1, "curl two")]
        assert await hasty.release("curl one") == 1
        assert await one.rest() == [held(1, "curl one")]
        assert "mcp-session-id" not in one.response.headers


@proves("fault 38", "fault 39")
async def test_an_answer_given_twice_or_to_nobody_reaches_nobody(patient: Served) -> None:
    """The first counts, the others are dropped, and no client is harmed."""
    session = await open_session(patient.client)
    invented = '{"jsonrpc":"2.0","id":%s,"result":{"crossed":true}}'
    lines = [invented % number for number in ("1", "0", "-1", "99999", '"1"', '"x"', "null", "1.0")]
    for params in ("{}", '{"progressToken":99999,"progress":1}'):
        lines.append(f'{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}')
    async with streaming(patient.client, session, hold(1, "safe", 1, progress=1)) as events:
        assert await events.next() == progress(1, 0)
        assert await patient.asked(session, 2, "x/say", lines=lines) == {}
        assert await patient.release("safe") == 1
        assert await events.rest() == [held(1, "safe")]


@proves("C73")
async def test_a_child_may_ask_whether_its_client_lives(patient: Served) -> None:
    """The bridge answers ping itself, with the child's own id, stream or none."""
    session = await open_session(patient.client)
    ids = ["0", '"p"', "12345678901234567890"]
    pings = [f'{{"jsonrpc":"2.0","id":{ping},"method":"ping"}}' for ping in ids]
    before = len(await patient.heard())
    await patient.asked(session, 1, "x/say", lines=pings)
    answers = [line for line in (await patient.heard())[before:] if b'"method"' not in line]
    assert answers == [b'{"jsonrpc":"2.0","id":%b,"result":{}}' % ping.encode() for ping in ids]


@proves("fault 44")
async def test_a_shared_child_is_told_that_it_can_ask_nobody(patient: Served) -> None:
    """Its question could not be attributed, so it gets an error at once."""
    question = '{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"?"}}'
    session = await open_session(patient.client)
    before = len(await patient.heard())
    await patient.asked(session, 1, "x/say", lines=[question])
    lines = (await patient.heard())[before:]
    (answer,) = [json.loads(line) for line in lines if b'"method"' not in line]
    assert answer["id"] == "q"
    assert answer["error"]["code"] == -32601


@proves("C15", "C16")
async def test_a_question_of_the_child_is_answered_by_the_client_it_was_put_to(
    patient: Served,
) -> None:
    """On the only call's stream, once; no other client's answer reaches the child."""
    asking, other = [await open_session(patient.client, capabilities=ASKED) for _ in range(2)]
    pid = (await patient.asked(asking, 1, "x/pid"))["pid"]
    question = '{"jsonrpc":"2.0","id":0,"method":"elicitation/create","params":{"message":"?"}}'
    answers: list[dict[str, Any]] = []
    for number in (10, 11):
        said = rpc(number, "x/say", {"lines": [question]})
        answer = await patient.client.post("/mcp", json=said, headers=asking)
        asked, result = messages(answer.text)
        assert (asked["method"], asked["params"]) == ("elicitation/create", {"message": "?"})
        assert result == {"jsonrpc": "2.0", "id": number, "result": {}}
        for headers, request_id in ((other, asked["id"]), (asking, 99), (asking, asked["id"])):
            reply = {"jsonrpc": "2.0", "id": request_id, "result": {"from": number}}
            told = await patient.client.post("/mcp", json=reply, headers=headers)
            assert (told.status_code, told.content) == (202, b"")
    await patient.asked(asking, 4, "x/echo")
    for line in (patient.folder / str(pid)).read_bytes().splitlines():
        if b'"method"' not in line:
            answers.append(json.loads(line))
    assert answers == [{"jsonrpc": "2.0", "id": 0, "result": {"from": n}} for n in (10, 11)]
    for headers in (asking, other):
        assert (await patient.client.delete("/mcp", headers=headers)).status_code == 200


@proves("C57", "C46")
async def test_the_handshake_is_followed_by_what_follows_it(patient: Served) -> None:
    """A 202 for `initialized` means that the child reads it before a later call."""
    for number in range(3):
        session = await open_session(patient.client, capabilities=ASKED)
        pid = (await patient.asked(session, number, "x/pid"))["pid"]
        lines = [json.loads(line) for line in (patient.folder / str(pid)).read_bytes().splitlines()]
        methods = [line["method"] for line in lines]
        assert methods == ["initialize", "notifications/initialized", "x/pid"]
        assert (await patient.client.delete("/mcp", headers=session)).status_code == 200


async def test_an_opening_of_a_session_may_end_before_its_child_does_anything(
    patient: Served,
) -> None:
    """A client that vanishes right after `initialize` leaves a session and no error."""
    body = json.dumps(initialize(0, capabilities=ASKED)).encode()
    before = len(patient.bridge.events("child.started"))
    async with wire(patient.bridge.port) as connection:
        await connection.send(post(body))
    await patient.bridge.logged("child.started", count=before + 1)
    assert await patient.asked({}, 1, "x/echo") == {}


@proves("C03", "C06")
async def test_many_streams_and_calls_at_once_get_their_own(hasty: Served) -> None:
    """Held calls of many sessions are released in their own order."""
    sessions = [await open_session(hasty.client) for _ in range(6)]

    async def one(number: int, session: dict[str, str]) -> list[Any]:
        message = hold(1, f"many {number}", 1, progress=3)
        async with streaming(hasty.client, session, message) as events:
            return await events.rest()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(n, session)) for n, session in enumerate(sessions)]
        for number in reversed(range(len(sessions))):
            await hasty.holds(f"many {number}")
            assert await hasty.release(f"many {number}") == 1
    for number, task in enumerate(tasks):
        steps = [progress(1, step) for step in range(3)]
        assert task.result() == [*steps, held(1, f"many {number}")]
