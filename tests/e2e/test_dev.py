"""`mcpbridge dev`: a save takes effect in the sessions that are open, and a mistake does not."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcpbridge import DISTRIBUTION
from tests.e2e.test_listen import ACK, TOOLS, listen, told
from tests.e2e.test_recycling import CHANGED, message
from tests.support.bridge_process import (
    ACCEPT,
    CHILDREN,
    DEMO,
    eventually,
    initialize,
    ran,
    rpc,
    started,
)
from tests.support.developing import Developing, developing, said, save, source
from tests.support.failing_child import ROOTS, new_fifo, open_fifo
from tests.support.modern_client import FORM, Stateless
from tests.support.questioner_bridge import Blocks, reading
from tests.support.raw_http import Events

pytestmark = pytest.mark.slow
LISTS = [f"notifications/{name}/list_changed" for name in ("tools", "prompts", "resources")]
CAPABILITIES: dict[str, Any] = {"shared": None, "own": ROOTS}


async def next_methods(listening: Blocks, count: int) -> list[str]:
    """The methods of the next messages of a stream."""
    return [(await message(listening))["method"] for _ in range(count)]


@pytest.mark.parametrize("who", CAPABILITIES)
@pytest.mark.parametrize("kind", ["plain", "framework"])
async def test_a_save_takes_effect_in_the_same_session(tmp_path: Path, kind: str, who: str) -> None:
    """The call in flight is answered by the old process, which ends; each list changes once."""
    fifo = new_fifo(tmp_path, "fifo")
    async with developing(tmp_path, source(kind=kind)) as on:
        session = await on.open(CAPABILITIES[who])
        old = (await on.call(session))["pid"]
        async with reading(on.client, session) as listening:
            waiting = asyncio.create_task(on.call(session, "wait", fifo=fifo))
            assert await on.tools(session) == ["one"]
            for number in (1, 2):
                tools = ["one", *map(str, range(number))]
                await on.saved(source(tools, kind))
                lists = LISTS if kind == "framework" else LISTS[:1]
                assert await next_methods(listening, len(lists)) == lists
                assert await on.tools(session) == tools
            new = (await on.call(session))["pid"]
            assert new != old
            assert not waiting.done()
            passed = open_fifo(fifo)
            assert (await waiting)["pid"] == old
            os.close(passed)
            await on.bridge.logged("child.stopped", lambda found: found["pid"] == old)
            save(on.server.with_name("notes.txt"), "of no language")
            await on.ask(session, "ping")
        assert on.bridge.events("child.exited") == []
        assert len(on.bridge.events("server.reloaded")) == 2
        kept = 2 if who == "own" else 1
        await eventually(lambda: len(on.bridge.processes()) == kept, "the old ones have ended")


GATE = """\
import os
import pathlib

pathlib.Path({folder!r}, str(os.getpid())).touch()
open({fifo!r}, "rb").close()
"""
"""What a server does first that notes its start, and then goes on only when a fifo is opened."""


async def test_processes_of_sessions_start_beside_the_shared_one(tmp_path: Path) -> None:
    """Neither start waits for the other: both have begun before one of them can go on."""
    folder, fifo = tmp_path / "started", new_fifo(tmp_path, "fifo")
    folder.mkdir()
    gate = GATE.format(folder=str(folder), fifo=fifo)
    async with developing(tmp_path, source()) as on:
        shared, own = await on.open(), await on.open(ROOTS)
        before = [await on.call(each) for each in (shared, own)]
        save(on.server, gate + source(["two"]))
        await eventually(lambda: len(list(folder.iterdir())) == 2, "both have begun to start")
        # Until then the old ones serve.
        assert [await on.call(each) for each in (shared, own)] == before
        passed = open_fifo(fifo)
        (done,) = await on.bridge.logged("server.reloaded")
        os.close(passed)
        assert done["sessions"] == 1
        pids = [(await on.call(each, "two"))["pid"] for each in (shared, own)]
        assert sorted(map(str, pids)) == sorted(each.name for each in folder.iterdir())


async def test_without_a_free_place_a_session_waits_for_the_shared_process(tmp_path: Path) -> None:
    """No more processes start at once than `--max-children` allows, but the one that takes over."""
    async with developing(tmp_path, source(), "--max-children", "2") as on:
        session = await on.open(ROOTS)
        await on.call(session)
        done = await on.saved(source(["two"]))
        assert (done["sessions"], await on.tools(session)) == (1, ["two"])
        steps = [each["event"] for each in on.bridge.log]
        _, ready = (number for number, step in enumerate(steps) if step == "child.ready")
        assert steps[:ready].count("child.started") == 3
        assert steps.count("child.started") == 4


@pytest.mark.parametrize("who", CAPABILITIES)
async def test_a_mistake_is_not_served(tmp_path: Path, who: str) -> None:
    """The old process serves on, the log says what is wrong, and the repair is served."""
    async with developing(tmp_path, source()) as on:
        session = await on.open(CAPABILITIES[who])
        before = await on.call(session)
        async with reading(on.client, session) as listening:
            for _ in range(2):
                failed = await on.saved("def broken(:\n", "server.reload_failed")
                assert failed["last_words"][-1] == "SyntaxError: invalid syntax"
                assert failed["because"] == "server.py"
                assert await on.call(session) == before
            done = await on.saved(source(["one", "two"]))
            assert done["because"] == "server.py"
            # Of the failed attempts nothing was heard.
            assert await next_methods(listening, 1) == [CHANGED]
            assert await on.tools(session) == ["one", "two"]
            await on.saved(source(["one"]))
            assert await next_methods(listening, 1) == [CHANGED]


async def test_a_server_of_one_session_asks_its_client_after_another_has_taken_over(
    tmp_path: Path,
) -> None:
    """For a call that it had begun; the answer comes to it and to no other."""
    fifo = new_fifo(tmp_path, "fifo")
    async with developing(tmp_path, source()) as on:
        session = await on.open(ROOTS)
        old = (await on.call(session))["pid"]
        async with reading(on.client, session) as listening:
            body = rpc("ask", "tools/call", {"name": "ask", "arguments": {"fifo": fifo}})
            asking = asyncio.create_task(asked(on, session, body))
            assert await on.tools(session) == ["one"]
            await on.saved(source(["two"]))
            assert await next_methods(listening, 1) == [CHANGED]
            new = await on.call(session)
            passed = open_fifo(fifo)
            assert await asking == {"pid": old, "roots": [MINE]}
            assert (new["pid"] != old, new["roots"]) == (True, [])
            os.close(passed)


MINE = {"roots": [{"uri": "file:///a"}]}


async def asked(on: Developing, session: dict[str, str], body: Any) -> Any:
    """Make a call and answer the question that comes before its answer; what the tool says."""
    async with on.client.stream("POST", "/mcp", json=body, headers=session) as response:
        events = Events(response)
        question = await events.next()
        assert question["method"] == "roots/list"
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": MINE}
        sent = await on.client.post("/mcp", json=answer, headers=session)
        assert sent.status_code == 202
        return said((await events.next())["result"])


@pytest.mark.parametrize("kind", ["plain", "modern"])
async def test_a_modern_client_sees_a_save(tmp_path: Path, kind: str) -> None:
    """By translation or by a server of the client's era; its listen gets the notification."""
    fifo = new_fifo(tmp_path, "fifo")
    era = ("--child-era", "modern" if kind == "modern" else "legacy")
    async with developing(tmp_path, source(kind=kind), *era) as on:
        client = Stateless(on.bridge, tmp_path, on.client)
        wanted = {"name": "wait", "arguments": {"fifo": fifo}}
        async with client.stream(listen(client, TOOLS, 7)) as events:
            assert (await events.next())["method"] == ACK
            before = said(await client.result("tools/call", {"name": "one"}))["pid"]
            waiting = asyncio.create_task(client.result("tools/call", wanted))
            await client.result("tools/list")
            await on.saved(source(["one", "two"], kind))
            assert told(await events.next()) == (CHANGED, None, 7)
            names = [each["name"] for each in (await client.result("tools/list"))["tools"]]
            assert names == ["one", "two"]
            assert said(await client.result("tools/call", {"name": "one"}))["pid"] != before
            passed = open_fifo(fifo)
            assert said(await waiting)["pid"] == before
            os.close(passed)


async def test_a_listen_that_the_server_does_not_know_stays_open(tmp_path: Path) -> None:
    """It is acknowledged, each reload is told on it once, and it has its result at the end."""
    wanted = {**TOOLS, "resourceSubscriptions": ["a:b"]}
    async with developing(tmp_path, source(kind="unlistening"), "--child-era", "modern") as on:
        client = Stateless(on.bridge, tmp_path, on.client)
        offered = (await client.result("server/discover"))["capabilities"]
        changing = {"listChanged": True}
        assert offered == {"tools": changing, "resources": {"subscribe": False, **changing}}
        async with client.stream(listen(client, wanted, 7)) as events:
            acknowledged = await events.next()
            assert told(acknowledged) == (ACK, None, 7)
            assert acknowledged["params"]["notifications"] == TOOLS
            await on.saved("def broken(:\n", "server.reload_failed")
            for tools in (["two"], ["two", "three"]):
                await on.saved(source(tools, "unlistening"))
                assert told(await events.next()) == (CHANGED, None, 7)
                listed = (await client.result("tools/list"))["tools"]
                assert [each["name"] for each in listed] == tools
            assert await on.bridge.terminate() == 0
            (ended,) = await events.rest()
            assert (ended["id"], ended["result"]["resultType"]) == (7, "complete")


async def test_a_session_on_a_server_that_knows_no_listen_is_told_of_a_save(
    tmp_path: Path,
) -> None:
    """Though mcpbridge can listen to that server no more than its client can."""
    async with developing(tmp_path, source(kind="unlistening"), "--child-era", "modern") as on:
        session = await on.open()
        async with reading(on.client, session) as listening:
            for tools in (["two"], ["two", "three"]):
                await on.saved(source(tools, "unlistening"))
                assert await next_methods(listening, 2) == [LISTS[0], LISTS[2]]
                assert await on.tools(session) == tools


async def test_a_modern_call_that_may_be_asked_comes_to_the_changed_server(tmp_path: Path) -> None:
    """The process that waits for further calls of its client is from before the change."""
    async with developing(tmp_path, source()) as on:
        client = Stateless(on.bridge, tmp_path, on.client)
        first = said(await client.result("tools/call", {"name": "one"}, FORM))["pid"]
        assert said(await client.result("tools/call", {"name": "one"}, FORM))["pid"] == first
        await on.saved(source(["two"]))
        assert said(await client.result("tools/call", {"name": "one"}, FORM))["pid"] != first
        await on.bridge.logged("child.stopped", lambda found: found["pid"] == first)


async def test_twenty_saves_start_the_server_at_most_twice(tmp_path: Path) -> None:
    """The last one is what is served."""
    async with developing(tmp_path, source()) as on:
        session = await on.open()
        for number in range(20):
            save(on.server, source([f"tool{number}"]))
            await on.ask(session, "ping")
        await on.bridge.logged("server.reloaded")
        save(on.server.with_name("beside.py"), "last = True\n")
        await on.bridge.logged("server.reloaded", lambda found: "beside.py" in found["because"])
        assert await on.tools(session) == ["tool19"]
        assert len(on.bridge.events("child.started")) <= 1 + 2 + 1


async def test_a_server_that_cannot_start_at_first_is_served_after_its_repair(
    tmp_path: Path,
) -> None:
    """It is started once for each save, and not in between; new folders are watched too."""
    async with developing(tmp_path, "import missing.parts\n", ready=False) as on:
        await on.bridge.logged("child.start_held")
        folder = on.server.with_name("missing")
        folder.mkdir()
        save(folder / "parts.py", "")
        await on.bridge.logged("server.reload_failed", lambda found: found["serves"] == "none")
        save(on.server, source())
        await on.bridge.logged("child.ready")
        session = await on.open()
        assert await on.tools(session) == ["one"]
        assert len(on.bridge.events("child.started")) == 3
        mistake = "No module named 'missing'"
        lines = [each["line"] for each in on.bridge.events("child.stderr")]
        assert sum(mistake in line for line in lines) == 1


async def test_a_client_asks_for_another_start_of_a_server_that_could_not_start(
    tmp_path: Path,
) -> None:
    """Its request has the outcome of that start: the cause, or the answer."""
    given = tmp_path / "given"
    text = f"import pathlib\npathlib.Path({str(given)!r}).read_text()\n" + source()
    async with developing(tmp_path, text, ready=False) as on:
        await on.bridge.logged("child.start_held")
        refused = await on.client.post("/mcp", json=initialize(1), headers=ACCEPT)
        assert refused.status_code == 503
        assert "exit code 1" in refused.json()["error"]["message"]
        await on.bridge.logged("child.start_held", count=2)
        assert len(on.bridge.events("child.started")) == 2
        # The file that it lacked is not watched.
        given.write_text("", "utf-8")
        assert await on.tools(await on.open()) == ["one"]
        assert len(on.bridge.events("child.started")) == 3


async def test_changed_capabilities_are_said(tmp_path: Path) -> None:
    """A client may have remembered the answer to its `initialize`."""
    async with developing(tmp_path, source()) as on:
        await on.saved(source(kind="framework"))
        (changed,) = await on.bridge.logged("server.capabilities_changed")
        assert changed["capabilities"] == "logging, prompts, resources"


async def test_what_a_person_pastes_next_is_printed(tmp_path: Path) -> None:
    """The address, a client's entry and the Inspector's command; then a line for each call."""
    server = tmp_path / "server.py"
    save(server, source(kind="framework"))
    words = ("--port", "0", "--log-format", "text", "--", sys.executable, str(server))
    async with started("dev", *words, env={"PYTHONPATH": str(CHILDREN)}) as running:

        def line_of(sign: str) -> str:
            return next((line for line in running.noise if sign in line), "")

        await eventually(lambda: bool(line_of("ready:")), "it serves")
        url = line_of("address").split()[-1]
        entry = {"mcpServers": {"server": {"type": "http", "url": url}}}
        assert json.loads(line_of("client ").partition("client")[2]) == entry
        assert line_of("page ").split()[-1].startswith(url.replace("/mcp", "/ui#token="))
        assert line_of("inspector").endswith(f"--server-url {url}")
        assert line_of("watching").endswith(f"*.py in {tmp_path}")
        assert line_of("stderr │ a banner")
        assert line_of("ready: framework 1, 1 tool")
        async with httpx.AsyncClient() as client:
            for name in ("one", "secret"):
                body = rpc(1, "tools/call", {"name": name})
                assert (await client.post(url, json=body, headers=ACCEPT)).status_code == 200
        # A name that the server does not list is the client's own text, which no log shows.
        for name in ("one", "other"):
            call = re.compile(rf"\S+ {name} +(<1|\d+) ms  ok")
            told = functools.partial(lambda call: any(map(call.fullmatch, running.noise)), call)
            await eventually(told, f"the call of {name} is logged")
        assert not line_of("secret")
        save(server, "1 +\n")
        await eventually(lambda: bool(line_of("not reloaded: server.py")), "the mistake is told")
        assert "SyntaxError: invalid syntax" in line_of("not reloaded")
        assert await running.terminate() == 0


async def test_without_the_extra_the_error_names_it(tmp_path: Path) -> None:
    """And watching nothing needs none."""
    (tmp_path / "watchfiles.py").write_text("raise ImportError\n", "utf-8")
    env = {"PYTHONPATH": str(tmp_path)}
    status, told = await ran("dev", "--port", "0", "--", sys.executable, __file__, env=env)
    assert (status, f"pip install '{DISTRIBUTION}[dev-proxy]'" in told) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--watch", "nowhere/x"), "no such file or folder"),
        (("--watch", "nowhere/*.py"), "no such file or folder"),
        (("--watch", ".", "--no-watch"), "either --watch or --no-watch"),
    ],
)
async def test_a_wrong_word_is_explained(words: tuple[str, ...], says: str) -> None:
    """Before anything is started."""
    status, told = await ran("dev", *words, "--", *DEMO)
    assert (status, says in told) == (2, True), told


async def test_what_has_no_files_here_needs_to_be_said() -> None:
    """A package from a registry has none that could change."""
    status, told = await ran("dev", "--", "npx", "-y", "some-server")
    assert (status, "--no-watch" in told) == (2, True), told


def test_nothing_of_it_is_imported_without_it() -> None:
    """Who only serves pays nothing for it. Where watchfiles is installed uvicorn imports it."""
    look = (
        "import sys, mcpbridge.cli.main, mcpbridge.cli.serve, mcpbridge.app.lifecycle;"
        "import mcpbridge.app.servers_lifecycle;"
        "print([name for name in sys.modules if name.startswith(("
        "'mcpbridge.dev', 'mcpbridge.cli.dev', 'mcpbridge.bridge.reloader',"
        "'mcpbridge.bridge.calls.lists_announced', 'mcpbridge.bridge.modern.kept_listen'))])"
    )
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
