"""The running bridge over children that misbehave: clients that are not concerned go on.

What one child does wrong becomes one error for the call it was about, at once, and nothing for
another client; what ends is started again, and no client loses its session by it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    started,
)
from tests.support.proofs import proves

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

ROOTS: dict[str, Any] = {"roots": {}}
"""A client that offers this gets its own child."""
TEXT = "\N{LINE SEPARATOR} \x85 \N{GRINNING FACE}"


@dataclass
class Caller:
    """One session of one client."""

    client: httpx.AsyncClient
    headers: dict[str, str]

    async def post(self, method: str, params: Any = None, request_id: Any = 1) -> list[Any]:
        """Every message that answers a call, its final answer last."""
        body = rpc(request_id, method, params or {})
        response = await self.client.post("/mcp", json=body, headers=self.headers)
        assert response.status_code == 200, response.text
        assert "canary" not in response.text
        assert "secret" not in response.text
        found = messages(response.text)
        assert found[-1]["id"] == request_id
        assert [message for message in found if "method" not in message] == [found[-1]]
        return found

    async def result(self, method: str, params: Any = None, request_id: Any = 1) -> Any:
        """The result of a call."""
        return (await self.post(method, params, request_id))[-1]["result"]

    async def fault(self, method: str, params: Any = None, request_id: Any = 1) -> Any:
        """What the bridge says of a call that it had to answer itself."""
        return fault_in((await self.post(method, params, request_id))[-1])

    async def echoes(self, nonce: str) -> None:
        """Several calls at once, each of which must be answered with its own words."""
        wanted = [{"nonce": f"{nonce} {number}"} for number in range(5)]
        calls = (self.result("x/echo", params, number) for number, params in enumerate(wanted))
        assert await asyncio.gather(*calls) == wanted


def fault_in(message: Any) -> Any:
    """The facts in an error of the bridge's own."""
    assert message["error"]["code"] == -32603
    return message["error"]["data"]["mcpbridge"]


@asynccontextmanager
async def callers(running: RunningBridge, *capabilities: Any) -> AsyncIterator[list[Caller]]:
    """One session for each of these capabilities; deleted at the end of the block."""
    async with running.client() as client:
        found = [Caller(client, await open_session(client, capabilities=c)) for c in capabilities]
        yield found
        for caller in found:
            gone = await client.delete("/mcp", headers=caller.headers)
            assert gone.status_code in (200, 404)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def troubled() -> AsyncIterator[RunningBridge]:
    """A bridge whose one child serves all clients and writes what no server should."""
    async with bridge("--isolation", "shared", "--", *child("invalid_output")) as running:
        yield running
        assert running.events("child.exited") == []


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def mortal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningBridge]:
    """A bridge with a child for each session, which ends as it is told to."""
    left = str(tmp_path_factory.mktemp("mortal") / "left")
    words = ("--isolation", "session", "--max-children", "64", "--max-message-bytes", "1MiB")
    async with bridge(*words, "--", *child("exiting", left)) as running:
        yield running


GOOD = {"good": True}
TROUBLES: list[tuple[str, Any]] = [
    # what the child does; the result, or the reason in the error
    ("banner", GOOD),
    ("mark", {"text": TEXT}),
    ("crlf", {"text": TEXT}),
    ("drip", {"text": TEXT}),
    ("utf8", "bad_child_message"),
    ("nan", "bad_child_message"),
    ("nul", "bad_child_message"),
    ("cut", "bad_child_message"),
    ("deep", "bad_child_message"),
    ("both", "bad_child_message"),
    ("neither", "bad_child_message"),
    ("ambiguous", GOOD),
    ("twice", GOOD),
    ("unknown", GOOD),
    ("spelled", GOOD),
    ("huge", "message_too_large"),
    ("last_id", "message_too_large"),
    ("huge_log", GOOD),
    ("flood", GOOD),
    ("stderr", GOOD),
    ("asked", GOOD),
]


@proves(
    "fault 17",
    "faults 19-23",
    "fault 25",
    "faults 27-30",
    "fault 32",
    "fault 33",
    "faults 38-40",
    "fault 42",
    "fault 44",
    "C46",
    "C47",
    "C48",
    "C50",
)
@pytest.mark.parametrize(("trouble", "wanted"), TROUBLES)
async def test_trouble_on_the_pipe_stays_with_its_call(
    troubled: RunningBridge, trouble: str, wanted: Any
) -> None:
    """The call gets its answer or one error at once; calls beside and after it get their own."""
    async with callers(troubled, None, None) as (victim, bystander):
        pid = (await bystander.result("x/look"))["pid"]
        beside = asyncio.create_task(bystander.echoes("beside"))
        if isinstance(wanted, str):
            facts = await victim.fault(f"x/{trouble}")
            assert facts == {"reason": wanted, "executed": "yes", "retryable": False}
        else:
            assert await victim.result(f"x/{trouble}") == wanted
        await beside
        await asyncio.gather(victim.echoes("victim"), bystander.echoes("bystander"))
        assert (await victim.result("x/look"))["pid"] == pid


async def test_what_reaches_nobody_is_counted_and_logged() -> None:
    """Noise is a warning with a sample; answers to no request and noise are in the last record."""
    async with bridge("--", *child("invalid_output")) as running:
        async with callers(running, None) as (caller,):
            for trouble in ("twice", "unknown", "banner", "nan"):
                await caller.post(f"x/{trouble}")
        (noise, *_) = await running.logged("child.stdout_noise")
        assert noise["level"] == "warning"
        assert len(noise["sample"]) <= 200
        assert await running.terminate() == 0
        counts = running.events("serve.ended")[0]["counts"]
        # Two doubles and eight inventions, of which three are not ids.
        assert counts["unknown_answer"] >= 2 + 5
        assert counts["stdout_noise"] >= 3
        assert counts["stdout_bad_json"] >= 1
        assert counts["stdout_bad_message"] >= 2


@proves("fault 49", "fault 50", "fault 98", "C97")
async def test_a_child_is_given_nothing_that_is_not_its_own() -> None:
    """Its own group, three descriptors, and an environment without the bridge's settings."""
    env = {"MCPBRIDGE_LOG_LEVEL": "debug", "MCP_TRANSPORT": "http", "LEFT_ALONE": "yes"}
    inherited, other = os.pipe()
    try:
        words = ("--env", "ADDED=a b", "--", *child("invalid_output"))
        async with (
            bridge(*words, env=env, pass_fds=(inherited,)) as running,
            callers(running, None, ROOTS) as (sharing, alone),
        ):
            for caller in (sharing, alone):
                seen = await caller.result("x/look")
                assert seen["fds"] == [0, 1, 2]
                assert seen["pid"] == seen["pgid"] == seen["sid"]
                assert not [name for name in seen["env"] if name.startswith("MCPBRIDGE_")]
                wanted = {"MCP_TRANSPORT": "stdio", "LEFT_ALONE": "yes", "ADDED": "a b"}
                assert wanted.items() <= seen["env"].items()
    finally:
        os.close(inherited)
        os.close(other)


@proves("fault 5", "fault 7", "fault 8", "fault 13", "fault 14", "fault 31", "fault 35")
@pytest.mark.parametrize(
    ("end", "params", "how"),
    [
        ("crash", {"code": 3}, {"code": 3}),
        ("crash", {"code": 0}, {"code": 0}),
        ("kill", {"signal": signal.SIGKILL}, {"signal": signal.SIGKILL}),
        ("kill", {"signal": signal.SIGSEGV}, {"signal": signal.SIGSEGV}),
        ("orphan", {}, {"code": 5}),
        ("mute", {}, None),
        ("endless", {}, None),
    ],
)
async def test_a_child_that_ends_in_a_call_is_replaced(
    mortal: RunningBridge, end: str, params: Any, how: Any
) -> None:
    """The call gets one error that says how it ended; the session's next call has a new child."""
    async with callers(mortal, None, None) as (victim, bystander):
        pid, other = await victim.result("x/pid"), await bystander.result("x/pid")
        facts = await victim.fault(f"x/{end}", params)
        if how is None and "exit" in facts:
            how = facts["exit"]  # it ended while its caller was told
        wanted = {"reason": "child_exited", "executed": "maybe", "retryable": False}
        assert facts == (wanted if how is None else {**wanted, "exit": how})
        assert await victim.result("x/pid") not in (pid, other)
        await victim.echoes("on the new child")
        assert await bystander.result("x/pid") == other
        if end == "crash":
            (record,) = await mortal.logged("child.exited", lambda r: r["pid"] == pid)
            assert record["how"] == f"exit code {params['code']}"
            assert record["last_words"] == ["first words", "secret last words"]


@proves("fault 29")
async def test_an_answer_without_a_line_end_counts(mortal: RunningBridge) -> None:
    """The end of the pipe ends the last line; the next call has a new child."""
    async with callers(mortal, None) as (caller,):
        pid = await caller.result("x/pid")
        assert await caller.result("x/unfinished") == GOOD
        assert await caller.result("x/pid") != pid


@proves("fault 36")
async def test_a_child_that_closes_its_stdin_is_replaced(mortal: RunningBridge) -> None:
    """What was answered counts; a call that cannot be written fails, or is served again."""
    async with callers(mortal, None) as (caller,):
        pid = await caller.result("x/pid")
        assert await caller.result("x/shut") == GOOD
        reply = (await caller.post("x/pid"))[-1]
        if "error" in reply:
            assert fault_in(reply)["reason"] == "child_exited"
            reply = (await caller.post("x/pid"))[-1]
        assert reply["result"] != pid


@proves("fault 37")
async def test_a_child_that_never_reads_holds_up_nobody_else(mortal: RunningBridge) -> None:
    """Its own callers wait, within bounds; the others go on; ending its session frees all."""
    async with callers(mortal, None, None) as (victim, bystander):
        assert await victim.result("x/deaf") == GOOD
        body = [rpc(number, "x/echo", {"text": "x" * 100_000}) for number in range(30)]
        calls = [
            asyncio.create_task(victim.client.post("/mcp", json=each, headers=victim.headers))
            for each in body
        ]
        for number in range(10):
            await bystander.echoes(f"beside {number}")
        assert not any(call.done() for call in calls)
        closed = await victim.client.delete("/mcp", headers=victim.headers)
        assert closed.status_code == 200
        responses = await asyncio.gather(*calls)
        # A call that came after the end of its session is told so by the status.
        told = [response for response in responses if response.status_code == 200]
        assert {fault_in(messages(each.text)[-1])["reason"] for each in told} == {"session_closed"}
        assert {response.status_code for response in responses} <= {200, 404}
        await bystander.echoes("after")


async def holding(record: Path, count: int) -> None:
    """Wait until that many calls are with a child that records what it reads."""
    await eventually(lambda: record.read_bytes().count(b'"x/hold"') == count, "calls are held")


@proves("faults 5-7")
async def test_a_shared_child_that_dies_takes_nobody_with_it(tmp_path: Path) -> None:
    """Every call in flight gets the one error; all sessions go on on the next child."""
    async with bridge("--isolation", "shared", "--", *child("recorder", str(tmp_path))) as running:
        async with callers(running, None, None) as (one, other):
            for way in ("exit", "kill"):
                pid = (await one.result("x/pid"))["pid"]
                record = tmp_path / str(pid)
                held = [
                    asyncio.create_task(caller.fault("x/hold", {"name": way}, request_id))
                    for caller, request_id in ((one, 7), (other, 7), (other, "7"))
                ]
                await holding(record, 3)
                if way == "exit":
                    held.append(asyncio.create_task(one.fault("x/exit", {"code": 3}, 8)))
                else:
                    os.kill(pid, signal.SIGKILL)
                how = {"code": 3} if way == "exit" else {"signal": 9}
                wanted = {"reason": "child_exited", "executed": "maybe", "retryable": False}
                assert await asyncio.gather(*held) == [{**wanted, "exit": how}] * len(held)
                await asyncio.gather(one.echoes(way), other.echoes(way))
                assert (await other.result("x/pid"))["pid"] != pid
        assert len(await running.logged("child.ready", count=3)) == 3


@proves("fault 5", "C54")
async def test_a_new_child_is_told_what_the_last_one_was(tmp_path: Path) -> None:
    """The session's own handshake is repeated word for word, then its next call comes."""
    async with bridge("--", *child("recorder", str(tmp_path))) as running:
        async with callers(running, ROOTS) as (caller,):
            first = (await caller.result("x/pid"))["pid"]
            facts = await caller.fault("x/exit", {"code": 4})
            assert (facts["reason"], facts["exit"]) == ("child_exited", {"code": 4})
            second = (await caller.result("x/pid"))["pid"]
            before = (tmp_path / str(first)).read_bytes().splitlines()
            after = (tmp_path / str(second)).read_bytes().splitlines()
        told = [json.loads(line) for line in after]
        assert [message["method"] for message in told] == [
            "initialize",
            "notifications/initialized",
            "x/pid",
        ]
        assert after[:2] == before[:2]
        assert told[0]["params"] == initialize(capabilities=ROOTS)["params"]
        assert len(await running.logged("child.ready")) == 1, "the shared child was not concerned"


async def refused(client: httpx.AsyncClient, message: Any) -> Any:
    """The facts of a 503, which echoes the id, names no session and says when to come again."""
    response = await client.post("/mcp", json=message, headers=ACCEPT)
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) > 0
    assert "mcp-session-id" not in response.headers
    assert "secret" not in response.text
    body = response.json()
    assert body["id"] == message["id"]
    return fault_in(body)


@proves("fault 2", "fault 3")
@pytest.mark.parametrize(
    ("words", "how", "shown", "last_words"),
    [
        (("exit", "3"), {"code": 3}, "exit code 3", ["first words", "secret last words"]),
        (("exit", "0"), {"code": 0}, "exit code 0", ["first words", "secret last words"]),
        (("kill",), {"signal": 9}, "signal 9", []),
    ],
)
async def test_a_child_that_dies_at_its_start_is_told_at_once(
    words: tuple[str, ...], how: Any, shown: str, last_words: list[str]
) -> None:
    """Each caller gets 503 with its end, shared or not; the log has its last words."""
    command = ("--give-up-after", "0", "--", *child("starting", *words))
    async with bridge(*command, ready=False) as running, running.client() as client:
        asked = [initialize(4), initialize("x", capabilities=ROOTS), rpc(0, "tools/list")]
        async with asyncio.timeout(50):  # the start may take 60
            facts = [await refused(client, message) for message in asked]
        wanted = {"reason": "child_exited", "executed": "no", "retryable": True, "exit": how}
        assert facts == [wanted] * 3
        (record, *_) = await running.logged("child.exited")
        assert (record["how"], record["last_words"]) == (shown, last_words)
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/startupz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200


@proves("fault 4")
async def test_a_child_that_never_answers_is_given_up_in_time() -> None:
    """After --start-timeout it is told to all, however long the child takes to end."""
    silent, stubborn = (
        ("--start-timeout", "1", "--json-window", "9", "--", *child("starting", kind))
        for kind in ("silent", "stubborn")
    )
    wanted = {"reason": "start_timeout", "executed": "no", "retryable": True}
    async with (
        bridge(*silent, ready=False) as one,
        bridge(*stubborn, ready=False) as other,
        one.client() as to_one,
        other.client() as to_other,
    ):
        asked = [refused(to_one, initialize(0)), refused(to_other, initialize(0))]
        own = [refused(to_one, initialize(0, capabilities=ROOTS))]
        async with asyncio.timeout(5.5):  # less than one rung of the ladder on top
            assert await asyncio.gather(*asked, *own) == [wanted] * 3
        assert (await to_one.get("/readyz")).status_code == 503
        again = (await one.logged("child.restarting"))[0]
        assert "(--start-timeout)" in again["problem"]


async def test_a_child_that_refuses_its_handshake() -> None:
    """To a shared child it is 503; its own session gets the child's own error, and no id."""
    command = ("--give-up-after", "0", "--", *child("starting", "refuse"))
    async with bridge(*command, ready=False) as running, running.client() as client:
        facts = await refused(client, initialize(1))
        assert facts == {"reason": "handshake_refused", "executed": "no", "retryable": False}
        message = initialize("mine", capabilities=ROOTS)
        response = await client.post("/mcp", json=message, headers=ACCEPT)
        assert "mcp-session-id" not in response.headers
        error = {"code": -32602, "message": "not today"}
        assert response.json() == {"jsonrpc": "2.0", "id": "mine", "error": error}


@proves("fault 4", "fault 48", "C99")
async def test_who_comes_while_the_child_starts_waits_for_it(tmp_path: Path) -> None:
    """A slow start is not an error: requests wait, readiness says no, liveness yes."""
    readiness = tmp_path / "gate"
    os.mkfifo(readiness)
    command = ("--isolation", "shared", "--", *child("starting", "late", str(readiness)))
    async with bridge(*command, ready=False) as running, running.client() as client:
        waiting = asyncio.create_task(open_session(client))
        bare = asyncio.create_task(
            client.post("/", json=rpc(5, "x/echo", {"a": 1}), headers={"accept": "*/*"})
        )
        statuses = [(await client.get(path)).status_code for path in ("/readyz", "/startupz")]
        assert statuses == [503, 503]
        assert (await client.get("/livez")).status_code == 200
        assert not waiting.done()
        assert not bare.done()
        opened = await asyncio.to_thread(readiness.open, "wb")
        await Caller(client, await waiting).echoes("late")
        assert (await bare).json()["result"] == {"a": 1}
        opened.close()
        statuses = [(await client.get(path)).status_code for path in ("/readyz", "/startupz")]
        assert statuses == [200, 200]


@proves("fault 18", "C10")
async def test_a_child_may_talk_before_and_after_its_handshake() -> None:
    """A banner is not an answer; what it says straight after its answer comes once."""
    async with (
        bridge("--", *child("starting", "chatty")) as running,
        running.client() as client,
        asyncio.timeout(20),
    ):
        opened = await client.post("/mcp", json=initialize(capabilities=ROOTS), headers=ACCEPT)
        # A log message that is read in one go with the answer may be on its stream already.
        methods = [m["method"] for m in messages(opened.text) if "method" in m]
        named = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
        async with client.stream("GET", "/mcp", headers=named) as response:
            async for line in response.aiter_lines():
                if line.startswith("data:") and line[5:].strip():
                    methods.append(json.loads(line[5:])["method"])
                if len(methods) == 2:
                    break
        told = ["notifications/message", "notifications/tools/list_changed"]
        assert sorted(methods) == told
        await Caller(client, named).echoes("alone")
        await Caller(client, await open_session(client)).echoes("sharing")


@proves("fault 2")
async def test_a_child_that_cannot_start_ends_the_bridge_or_not() -> None:
    """A first start that ends by itself ends the bridge with its status, unless told never to."""

    async def gives_up(words: tuple[str, ...], options: tuple[str, ...], status: int) -> None:
        async with started("--port", "0", *options, "--", *child("starting", *words)) as running:
            assert await running.ended() == status
            assert len(await running.logged("child.exited")) == 1
            (record,) = await running.logged("serve.gave_up")
            last_words = ["first words", "secret last words"] if words[0] == "exit" else []
            assert (record["status"], record["last_words"]) == (status, last_words)

    async def goes_on() -> None:
        command = ("--give-up-after", "0", "--", *child("starting", "exit", "3"))
        async with bridge(*command, ready=False) as running, running.client() as client:
            await running.logged("child.exited", count=5)
            assert (await client.get("/health")).status_code == 200
            assert (await refused(client, initialize(1)))["reason"] == "child_exited"
            assert running.events("serve.gave_up") == []

    await asyncio.gather(
        gives_up(("exit", "3"), (), 3),
        gives_up(("exit", "0"), ("--give-up-after", "1"), 1),
        gives_up(("kill",), ("--give-up-after", "1"), 128 + signal.SIGKILL),
        goes_on(),
    )


@proves("fault 2")
@pytest.mark.parametrize("form", ["json", "text"])
async def test_a_first_start_that_ends_by_itself_says_what_how_and_a_hint(form: str) -> None:
    """Asked as which era or not, its processes are started once, and the record names the cause."""
    words = ("--port", "0", "--child-era", "auto", "--log-format", form)
    command = (sys.executable, "nosuch.py")
    async with started(*words, "--", *command) as running:
        assert await running.ended() == 2
    if form == "text":
        (line,) = [each for each in running.noise if " serve.gave_up " in each]
        assert "the server ended before it answered" in line
        assert "exit code 2" in line
        return
    assert len(await running.logged("child.started")) == 1, "it had not read the probe"
    (record,) = await running.logged("serve.gave_up")
    assert record["problem"] == "the server ended before it answered"
    assert (record["status"], record["how"]) == (2, "exit code 2")
    assert record["command"].endswith("nosuch.py")
    assert "can't open file" in record["last_words"][0]
    (hint,) = record["hints"]
    assert hint.startswith("there is no file ")
    assert hint.endswith("nosuch.py: give the full path, or the folder with --cwd")
    first = running.events("drain.phase_changed")[0]
    assert first["because"] == "told_to_end", "there was no signal"


@proves("fault 139")
async def test_what_a_child_writes_cannot_change_the_terminal() -> None:
    """In the log as text: sequences of escape and characters that turn the text are escaped."""
    script = r"import sys; sys.stderr.write('\x1b[2Jgone\u202e\n'); sys.exit(1)"
    words = ("--port", "0", "--log-format", "text", "--", sys.executable, "-c", script)
    async with started(*words) as running:
        assert await running.ended() == 1
    (line,) = [each for each in running.noise if " child.stderr " in each]
    assert r"\u001b[2Jgone\u202e" in line
    assert all(each.isprintable() for each in running.noise)


async def test_a_traceback_of_a_child_keeps_its_indentation_and_letters() -> None:
    """As it stands on the child's stderr, in the log and among its last words."""
    script = "def größe():\n  raise ValueError('日本')\ngröße()"
    async with started("--port", "0", "--", sys.executable, "-c", script) as running:
        assert await running.ended() == 1
    lines = [str(record["line"]) for record in running.events("child.stderr")]
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith('  File "<string>", line 3')
    assert lines[-1] == "ValueError: 日本"
    (gave_up,) = await running.logged("serve.gave_up")
    assert gave_up["last_words"] == lines


@proves("fault 4")
async def test_starts_that_time_out_end_the_bridge_with_a_status_of_their_own() -> None:
    """The record names the flag; the signal that ended the process is not the cause."""
    words = ("--port", "0", "--start-timeout", "200ms", "--give-up-after", "2", "--")
    async with started(*words, *child("starting", "silent")) as running:
        assert await running.ended() == 4
    (record,) = await running.logged("serve.gave_up")
    assert "(--start-timeout)" in record["problem"]
    assert "how" not in record
    assert len(await running.logged("child.started", count=2)) == 2


async def test_two_processes_in_each_others_way_are_no_server_that_cannot_start(
    tmp_path: Path,
) -> None:
    """The one that serves ends by itself while the other holds a lock; then it is tried alone."""
    words = ("--child-era", "auto", "--", *child("starting", "lock", str(tmp_path / "lock")))
    async with bridge(*words) as running, running.client() as client:
        await Caller(client, await open_session(client)).echoes("alone")


@proves("fault 1")
async def test_a_command_that_cannot_run_is_told_before_anything_listens(tmp_path: Path) -> None:
    """127 for what is not there, 126 for what cannot be run; one record, which names it."""
    text = tmp_path / "text"
    text.write_text("echo hello\n")
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    text.chmod(0o755)
    plain.chmod(0o644)

    async def fails(command: str, status: int) -> None:
        async with started("--port", "0", "--", command) as running:
            assert await running.ended() == status
            await eventually(lambda: bool(running.log), "its words are read")
            (record,) = running.log
            assert (record["event"], record["level"]) == ("serve.failed", "error")
            assert repr(command) in record["problem"]
            assert running.noise == []

    await asyncio.gather(
        fails("no-such-command", 127),
        fails(str(tmp_path / "nothing"), 127),
        fails(str(text), 126),
        fails(str(plain), 126),
        fails(str(tmp_path), 126),
    )


async def test_a_server_that_ends_at_once_gives_the_bridge_its_status() -> None:
    """The end of its stdout is seen before that of its process, which is not asked to end."""
    async with started("--port", "0", "--", "sh", "-c", "exit 3") as running:
        assert await running.ended() == 3
