"""The page of `mcpbridge dev` in a real browser: what a developer sees, and what nothing can do."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts import image_sums
from tests.e2e.test_replay import REPLAY
from tests.support.bridge_process import (
    DEMO,
    RunningBridge,
    bridge,
    messages,
    open_session,
    rpc,
)
from tests.support.browser import Tab, tab
from tests.support.developing import developing, said, save, source
from tests.support.failing_child import ROOTS, new_fifo, open_fifo
from tests.support.page import frames, page_address
from tests.support.raw_http import WITHIN_S
from tests.support.servers_file import entry, own, write_servers

pytestmark = [pytest.mark.interop, pytest.mark.slow]

DEV: Any = {"program": ["dev"]}
ROW = "#rows .row"
ANSWERED = f"{ROW}:has(.good)"
CALLS = 20_000
CONNECTIONS = 4
MOST_GROWTH = 40 << 20
"""Bytes by which the process may grow with 20,000 calls and the page open."""
MOST_FILTER_MS = 200.0
LARGE_CALLS, LARGE_BYTES = 400, 100_000
"""Calls whose frames are more than the ring and all buffers on the way to the page hold."""
PICTURE_BYTES = 150_000


@asynccontextmanager
async def watching(
    folder: Path, *words: str, server: Sequence[str] = DEMO
) -> AsyncIterator[tuple[RunningBridge, httpx.AsyncClient, Tab]]:
    """A bridge over the demo, a client of it, and the page in a browser."""
    async with (
        bridge("--no-watch", *words, "--", *server, **DEV) as running,
        running.client() as client,
        tab(folder / "browser") as page,
    ):
        await page.do("open", url=page_address(running))
        yield running, client, page
        assert complaints(await page.do("said")) == []


def complaints(lines: list[str]) -> list[str]:
    """What the browser complains of, as a policy that was violated, and what a script has shown."""
    return [each for each in lines if each.startswith(("error:", "warning:", "dialog:"))]


async def call(
    client: httpx.AsyncClient, session: dict[str, str], tool: str, **arguments: Any
) -> Any:
    """Call a tool with a progress token; the last message of the response."""
    params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": "p"}}
    body = rpc(f"my-{tool}", "tools/call", params)
    response = await client.post("/mcp", json=body, headers=session)
    assert response.status_code == 200, response.text
    return messages(response.text)[-1]


async def test_a_call_has_its_client_both_ids_its_time_and_its_answer(tmp_path: Path) -> None:
    """Progress and log messages, which came before the answer, are under the call."""
    async with watching(tmp_path) as (_, client, page):
        session = await open_session(client)
        level = rpc("level", "logging/setLevel", {"level": "debug"})
        assert (await client.post("/mcp", json=level, headers=session)).status_code == 200
        who = f"test 1#{session['mcp-session-id'][:4]}"
        await call(client, session, "countdown", seconds=0.1)
        await call(client, session, "nope")
        await page.shows(ROW, "Unknown tool: nope")
        _, server, client_name, shown, ms, status = await page.row("tools/call countdown")
        assert (server, client_name, status) == ("mcpbridge", who, "ok")
        assert shown == "tools/call countdown(seconds:0.1)  (6 before the answer)"
        assert re.fullmatch(r"\d+\.\d", ms)
        _, server, client_name, _, _, status = await page.row("initialize")
        assert (server, client_name, status) == ("mcpbridge", who, "2025-06-18")
        row = await page.row("tools/call nope")
        assert row[5] == "error -32602: Unknown tool: nope"
        await page.click(ROW, "countdown")
        await page.shows("#detail", "liftoff")
        (text,) = await page.do("texts", selector="#detail")
        assert re.search(r'ids\s+"my-countdown" → \d+', text)
        assert who in text
        _, _, before = text.partition("before the answer")
        before, _, _ = before.partition("\nanswer\n")
        passed = re.findall(r"^\+\d+ ms +(.*)$", before, re.MULTILINE)
        log, *progress = map(json.loads, passed)
        assert log["method"] == "notifications/message"
        assert log["params"] == {"level": "debug", "logger": "demo", "data": "tools/call countdown"}
        assert [each["method"] for each in progress] == ["notifications/progress"] * 5
        assert [each["params"]["progress"] for each in progress] == [1, 2, 3, 4, 5]
        rows = [each[3] for each in await page.rows()]
        assert not [each for each in rows if "notifications/progress" in each]
        assert not [each for each in rows if "notifications/message debug" in each]
        assert "token" not in await page.do("address")


async def test_a_question_without_an_answer_shows_as_such(tmp_path: Path) -> None:
    """Until its client answers."""
    fifo = new_fifo(tmp_path, "fifo")
    async with developing(tmp_path, source()) as on, tab(tmp_path / "browser") as page:
        await page.do("open", url=page_address(on.bridge))
        session = await on.open(ROOTS)
        body = rpc("ask", "tools/call", {"name": "ask", "arguments": {"fifo": fifo}})
        async with on.client.stream("POST", "/mcp", json=body, headers=session) as response:
            passed = open_fifo(fifo)
            lines = response.aiter_lines()
            question = json.loads([each[5:] async for each in _until(lines, "roots/list")][-1])
            await page.shows(ROW, "← roots/list")
            assert (await page.row("← roots/list"))[5] == "unanswered"
            assert (await page.row("tools/call ask"))[5] == "in flight"
            answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}}
            sent = await on.client.post("/mcp", json=answer, headers=session)
            assert sent.status_code == 202
            await page.hides(ROW, "unanswered")
            assert (await page.row("← roots/list"))[5] == "ok"
            os.close(passed)


async def _until(lines: AsyncIterator[str], word: str) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith("data:") and word in line:
            yield line
            return


async def test_what_is_refused_and_what_is_no_message_names_its_cause(tmp_path: Path) -> None:
    """Foreign Host and Origin, a large body, a line on stdout, and stderr."""
    noisy = (
        "import sys; print('plain noise', flush=True); print('words', file=sys.stderr, flush=True);"
        "import mcpbridge.demo as demo; demo.main()"
    )
    words = ("--max-request-bytes", "1KiB")
    server = (sys.executable, "-c", noisy)
    async with watching(tmp_path, *words, server=server) as (_, client, page):
        for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
            await client.post("/mcp", content=b"{}", headers=headers)
        await client.post("/mcp", content=b"x" * 2000)
        for shown, cause in (
            ("POST /mcp 421", "refused: Host 'evil.example' is not served here (--allowed-host)"),
            ("POST /mcp 403", "refused: Origin is not allowed (--allow-origin)"),
            ("POST /mcp 413", "refused: the body exceeds --max-request-bytes 1024"),
            ("stdout: plain noise", "on stdout, and not a message: a server prints to stderr"),
            ("stderr: words", ""),
        ):
            await page.shows(ROW, shown)
            assert (await page.row(shown))[5] == cause


async def test_a_long_message_shows_its_beginning_and_its_size(tmp_path: Path) -> None:
    """Of a request and of its answer, which belong together all the same."""
    async with watching(tmp_path) as (_, client, page):
        session = await open_session(client)
        await call(client, session, "echo", text="y" * 300_000)
        await page.shows(ROW, "tools/call")
        _, _, who, shown, _, status = await page.row("tools/call")
        assert (who.startswith("test 1#"), shown) == (True, "tools/call")
        assert re.fullmatch(r"30\d{4} bytes", status)
        await page.click(ROW, "tools/call")
        await page.shows("#detail", "yyy… (")
        (text,) = await page.do("texts", selector="#detail")
        assert len(text) < 20_000


async def test_what_a_server_says_is_text(tmp_path: Path) -> None:
    """It executes nothing, and no policy has to prevent it."""
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    async with watching(tmp_path) as (_, client, page):
        session = await open_session(client)
        await call(client, session, "echo", text=evil)
        await page.shows(ROW, "<img src=x")
        await page.click(ROW, "<img src=x")
        await page.shows("#detail", evil)
        found = "document.querySelectorAll('img, #rows script, #detail script').length"
        assert await page.do("evaluate", text=found) == 0
        # The policy holds even against a mistake in the page itself.
        tries = (
            "(() => { try { document.body.insertAdjacentHTML('beforeend', '<b>x</b>') }"
            " catch (error) { return error.name } })()"
        )
        assert await page.do("evaluate", text=tries) == "TypeError"
        assert len(complaints(await page.do("said"))) == 1
        await page.do("forget")


async def test_rows_are_filtered_held_and_saved(tmp_path: Path) -> None:
    """By name, outcome, server, time and text; the file is a recording without secrets."""
    secret = "sesame-1-open"
    async with watching(tmp_path, "--env", f"MY_KEY={secret}") as (_, client, page):
        session = await open_session(client)
        await call(client, session, "echo", text=f"it is {secret}")
        await call(client, session, "countdown", seconds=0.2)
        await call(client, session, "nope")
        await page.shows(ROW, "Unknown tool: nope")

        async def filtered(text: str) -> list[str]:
            await page.do("fill", selector="#filter", text=text)
            return [each[3].split("(")[0] for each in await page.rows()]

        tool = "tools/call"
        assert await filtered("tool:echo") == [f"{tool} echo"]
        assert await filtered("tool:e status:error") == [f"{tool} nope"]
        assert await filtered("slower:200 tool:") == [f"{tool} countdown"]
        assert await filtered("server:other") == []
        assert await filtered("Liftoff server:mcpbridge") == [f"{tool} countdown"]
        assert len(await filtered("")) > 4
        await page.click("#pause")
        await call(client, session, "echo", text="held")
        await page.shows("footer", "paused: 2 more")
        assert [each for each in await page.rows() if "held" in each[3]] == []
        await page.click("#pause")
        await page.shows(ROW, "held")
        path = tmp_path / "saved.jsonl"
        await page.do("save", selector="#save", path=str(path))
    lines = [json.loads(each) for each in path.read_text("utf-8").splitlines()]
    assert (lines[0]["text"], lines[0]["mcpbridge"]["format"]) == ("recording", 1)
    text = path.read_text("utf-8")
    assert secret not in text
    assert "it is ***" in text
    async with bridge("--", *REPLAY, str(path)) as running, running.client() as client:
        session = await open_session(client)
        found = await call(client, session, "countdown", seconds=0.2)
        assert found["result"]["content"][0]["text"] == "liftoff"


async def test_a_call_is_made_again_changed_and_copied(tmp_path: Path) -> None:
    """As any client would; a command for a shell never has the token in it."""
    token = "a-client-of-many-0123456789abcdef"
    env = {"MCPBRIDGE_AUTH_TOKEN": token}
    async with (
        bridge("--no-watch", "--", *DEMO, env=env, **DEV) as running,
        running.client(headers={"authorization": f"Bearer {token}"}) as client,
        tab(tmp_path / "browser") as page,
    ):
        await page.do("open", url=page_address(running))
        session = await open_session(client)
        await call(client, session, "echo", text="it's me")
        await page.shows("#servers", "mcpbridge")
        await page.click(ROW, "it's me")
        await page.click("#detail button", "curl")
        (command,) = await page.do("texts", selector="#detail pre.curl")
        assert token not in command
        process = await asyncio.create_subprocess_shell(
            command,
            env={**os.environ, "MCPBRIDGE_TOKEN": token},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await process.communicate()
        assert json.loads(out)["result"]["content"][0]["text"] == "it's me"
        # Without credentials it is refused like any other client.
        await page.click(ROW, "it's me")
        await page.click("#detail button", "again")
        await page.shows("#told", "initialize: 401")
        await page.do("fill", selector="#credentials", text=token)
        await page.click("#detail button", "again")
        await page.shows(ROW, "mcpbridge page")
        await page.click("#detail button", "edit")
        edited = {"method": "tools/call", "params": {"name": "echo", "arguments": {"text": "new"}}}
        await page.do("fill", selector="#detail textarea", text=json.dumps(edited))
        await page.click("#detail button", "send")
        await page.shows(ROW, 'echo(text:"new")')
        row = await page.row('tools/call echo(text:"new")')
        assert row[2].startswith("mcpbridge page")


async def test_a_client_that_ignores_the_reload_is_named(tmp_path: Path) -> None:
    """Until it asks for the tools; the page's own button reloads too."""
    async with developing(tmp_path, source()) as on, tab(tmp_path / "browser") as page:
        await page.do("open", url=page_address(on.bridge))
        session, other = await on.open(), await on.open()
        names = [f"test 1#{each['mcp-session-id'][:4]}" for each in (session, other)]
        await on.tools(session)
        await on.tools(other)
        await on.saved(source(["one", "two"]))
        await page.shows(ROW, "reloaded: server.py")
        lines = [f"! {name} has not asked for tools/list since the reload" for name in names]
        for line in lines:
            await page.shows("#told", line)
        await on.tools(session)
        await page.hides("#told", lines[0])
        await page.shows("#told", lines[1])
        await on.client.delete("/mcp", headers=other)
        await page.hides("#told", lines[1])
        await page.click("#servers button", "reload")
        await page.shows(ROW, "reloaded: asked for on the page")
        await page.shows("#told", lines[0])
        save(on.server, "def broken(:\n")
        await page.shows("#servers", "SyntaxError: invalid syntax")
        await page.shows(ROW, "not reloaded: server.py")


async def test_servers_that_break_say_why_and_disturb_no_other(tmp_path: Path) -> None:
    """In the list of servers and in rows; calls of the good one go on."""
    dying = (sys.executable, "-c", "import sys; print('no bread', file=sys.stderr); sys.exit(3)")
    servers = {
        "good": entry(),
        "dying": entry(dying, **own(give_up_after=2)),
        "missing": {"command": "no-such-program"},
    }
    write_servers(tmp_path / ".mcp.json", servers)
    async with (
        bridge("--no-watch", ready=False, cwd=tmp_path, **DEV) as running,
        tab(tmp_path / "browser") as page,
        httpx.AsyncClient(base_url=f"{running.url}/servers/good", timeout=WITHIN_S) as client,
    ):
        await running.logged("dev.page_served")
        await page.do("open", url=page_address(running))
        await page.shows("#servers .server", "● good  reload")
        await page.shows("#servers .server", "✖ dying failed: ")
        await page.shows("#servers .server", "(exit code 3): no bread")
        await page.shows("#servers .server", "✖ missing failed: ")
        shown = await page.do("texts", selector="#servers .server")
        assert [each.split()[:2] for each in shown] == [
            ["●", "good"],
            ["✖", "dying"],
            ["✖", "missing"],
        ]
        assert "cannot start 'no-such-program'" in shown[2]
        await page.shows(ROW, "server.gave_up")
        assert (await page.row("stderr: no bread"))[1] == "dying"
        session = await open_session(client)
        for text in ("still", "here"):
            await call(client, session, "echo", text=text)
            await page.shows(ANSWERED, f'echo(text:"{text}")')
            _, server, _, _, _, status = await page.row(f'tools/call echo(text:"{text}")')
            assert (server, status) == ("good", "ok")
        assert await page.do("texts", selector="#servers .server") == shown
        assert complaints(await page.do("said")) == []


async def flood(port: int, session: dict[str, str], count: int) -> None:
    """Make calls one after another on one connection, by literal bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(rpc(1, "tools/call", {"name": "echo", "arguments": {"text": "x"}})).encode()
    named = "".join(f"{name}: {value}\r\n" for name, value in session.items())
    head = (
        f"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"{named}content-length: {len(body)}\r\n\r\n"
    ).encode()
    for _ in range(count):
        writer.write(head + body)
        async with asyncio.timeout(WITHIN_S):
            answer = await reader.readuntil(b"\r\n\r\n")
            (length,) = re.findall(rb"content-length: (\d+)", answer)
            await reader.readexactly(int(length))
    writer.close()
    await writer.wait_closed()


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) << 10


async def test_twenty_thousand_calls_with_the_page_open(tmp_path: Path) -> None:
    """Memory stays bounded, what a slow reader lost is counted, and the filter is quick."""
    async with watching(tmp_path) as (running, client, page):
        sessions = [await open_session(client) for _ in range(CONNECTIONS)]
        await page.shows("footer", "lines")
        before = resident(running.pid)
        async with frames(running) as slow:
            share = CALLS // CONNECTIONS
            async with asyncio.TaskGroup() as tasks:
                for session in sessions:
                    tasks.create_task(flood(running.port, session, share))
            # It has read nothing since; its last event is of the last call.
            last = rpc(2, "tools/call", {"name": "echo", "arguments": {"text": "the last"}})
            await client.post("/mcp", json=last, headers=sessions[0])
            events = await slow.until(lambda each: "the last" in json.dumps(each.data))
        lost = sum(each.data["frames"] for each in events if each.kind == "lost")
        assert lost > 0
        ids = [int(str(each.id).rpartition("-")[2]) for each in events if each.kind == "frame"]
        assert lost + len(ids) == ids[-1] > 2 * CALLS
        assert resident(running.pid) - before <= MOST_GROWTH
        await page.shows(ROW, "the last")
        await page.shows("footer", "5000 lines")
        assert len(await page.rows()) <= 500
        took: dict[str, float] = {}
        for text in 3 * ("last", "tool:echo", "status:error", "slower:1000", "x server:mcp"):
            await page.do("fill", selector="#filter", text=text)
            ms = float(await page.do("attribute", selector="#filter", name="data-ms"))
            # The least of each: the machine may do something else.
            took[text] = min(ms, took.get(text, ms))
        assert max(took.values()) < MOST_FILTER_MS, took


async def total(running: RunningBridge) -> int:
    """The number of frames that have passed so far."""
    last = 0
    async with frames(running, "?follow=0") as reader:
        while (event := await reader.next()) is not None:
            last = int(str(event.id).rpartition("-")[2])
    return last


async def test_the_footer_counts_what_the_page_could_not_read(tmp_path: Path) -> None:
    """Exactly: each frame is either in a row or counted."""
    async with watching(tmp_path) as (running, client, page):
        session = await open_session(client)
        await call(client, session, "echo", text="the first")
        await page.shows(ANSWERED, "the first")
        await page.shows("footer", " 0 lines dropped")
        before, rows_before = await total(running), len(await page.rows())
        await page.do("hold")
        for _ in range(LARGE_CALLS):
            await call(client, session, "echo", text="x" * LARGE_BYTES)
        await call(client, session, "echo", text="the last")
        await page.do("release")
        await page.shows(ANSWERED, "the last")
        passed = await total(running) - before
        (footer,) = await page.do("texts", selector="footer")
        (lost,) = map(int, re.findall(r"· (\d+) lines dropped", footer))
        rows = (await page.rows())[rows_before:]
        # An answer whose request is lost has its own row; a request whose answer is lost stays.
        read = sum(2 if status == "ok" else 1 for *_, status in rows)
        assert {each[3].split("(")[0] for each in rows} <= {
            "tools/call echo",
            "← answer to no request",
        }
        assert lost > 0
        assert lost + read == passed >= 2 * (LARGE_CALLS + 1)


async def test_the_page_has_a_picture(tmp_path: Path) -> None:
    """That of the documentation: `PICTURE=docs/images/dev-page.png make browser` writes it.

    With its checksums, so that a house test notices a page that changed afterwards.
    """
    async with developing(tmp_path, source()) as on, tab(tmp_path / "browser") as page:
        await page.do("open", url=page_address(on.bridge))
        session = await open_session(on.client)
        assert said(await on.ask(session, "tools/call", name="one", arguments={"city": "Bern"}))
        await on.tools(session)
        await on.client.post("/mcp", json={}, headers={"origin": "http://evil.example"})
        await on.saved(source(["one", "forecast"]))
        await on.ask(session, "tools/call", name="forecast", arguments={"city": "Bern", "days": 3})
        await page.shows(ROW, "forecast(")
        await page.click(ROW, "forecast(")
        await page.shows("#told", "has not asked for tools/list")
        path = tmp_path / "page.png"
        await page.do("picture", path=str(path))
    picture = path.read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < PICTURE_BYTES
    if "PICTURE" in os.environ:
        Path(os.environ["PICTURE"]).write_bytes(picture)
        if os.environ["PICTURE"] == image_sums.PAGE:
            image_sums.write_sums(image_sums.PAGE)
