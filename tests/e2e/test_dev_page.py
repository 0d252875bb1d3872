"""The page of `mcpbridge dev` shows what passes to a browser that has its token alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import (
    ACCEPT,
    DEMO,
    asked_until,
    bridge,
    eventually,
    initialize,
    open_session,
    ran,
    rpc,
)
from tests.support.failing_child import new_fifo
from tests.support.page import FRAMES, Event, bearing, frames, page_address, token_of
from tests.support.servers_file import entry, write_servers

pytestmark = pytest.mark.slow

DEV: Any = {"program": ["dev"]}
SECRET = "sesame-1-open"
ECHOING = (
    "import os, sys; print('key', os.environ['MY_KEY'], file=sys.stderr, flush=True);"
    "import mcpbridge.demo; mcpbridge.demo.main()"
)


def answers(event: Event) -> bool:
    """Whether this is the answer of a tool."""
    return "content" in event.data.get("raw", {}).get("result", {})


async def echo(client: Any, headers: dict[str, str], text: str) -> None:
    """Call a tool of the demo."""
    body = rpc(7, "tools/call", {"name": "echo", "arguments": {"text": text}})
    assert (await client.post("/mcp", json=body, headers=headers)).status_code == 200


async def test_what_passes_is_streamed_without_secrets() -> None:
    """First what is kept, then what comes; `raw` keeps the secrets, an id goes on after it."""
    words = ("--no-watch", "--env", f"MY_KEY={SECRET}", "--", sys.executable, "-c", ECHOING)
    async with bridge(*words, **DEV) as running, running.client() as client:
        session = await open_session(client)
        await running.logged("child.stderr")
        async with frames(running) as reader:
            await echo(client, session, f"it is {SECRET}")
            found = await reader.until(answers)
        assert {each.kind for each in found} == {"frame"}
        seqs = [each.data["seq"] for each in found]
        assert seqs == sorted(set(seqs))
        text = json.dumps([each.data for each in found])
        assert SECRET not in text
        assert "it is ***" in text
        assert {"direction": "stderr", "text": "key ***"}.items() <= next(
            each.data for each in found if each.data["direction"] == "stderr"
        ).items()
        (call,) = (each for each in found if each.method == "tools/call")
        async with frames(running, "?raw=1", last=str(call.id)) as reader:
            (later,) = await reader.until(answers)
            assert later.data["raw"]["result"]["content"][0]["text"] == f"it is {SECRET}"
        async with frames(running, last=f"other-{10**6}") as reader:
            assert (await reader.until(answers))[0].data["seq"] == 1


async def test_the_stream_ends_with_the_process() -> None:
    """An open page does not hold the end up; what the server did at its end is seen."""
    async with bridge("--no-watch", "--", *DEMO, **DEV) as running, frames(running) as reader:
        ending = asyncio.create_task(running.terminate())
        found: list[Event] = []
        while (event := await reader.next()) is not None:
            found.append(event)
        assert await ending == 0
        assert "channel.ended" in [each.data.get("text") for each in found]


async def test_four_may_read_at_once() -> None:
    """A fifth is told so; one that leaves makes room."""
    async with bridge("--no-watch", "--", *DEMO, **DEV) as running, AsyncExitStack() as four:
        for _ in range(3):
            await four.enter_async_context(frames(running))
        async with frames(running), running.client() as client:
            refused = await client.get(FRAMES, headers=bearing(running))
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert "4 readers" in refused.json()["error"]["message"]

        async def free() -> bool:
            try:
                async with frames(running):
                    return True
            except AssertionError:
                return False

        await asked_until(free, "the place of the one that left")


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        ({"host": "evil.example"}, 421, "Host 'evil.example'"),
        ({"origin": "http://evil.example"}, 403, "Origin"),
        ({"origin": "http://localhost:5173"}, 403, "only the page"),
        ({"origin": "http://[::1"}, 403, "Origin"),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}, 403, "another site"),
        ({"sec-fetch-site": "same-site"}, 403, "another site"),
        ({"authorization": ""}, 401, "the token"),
        ({"authorization": "Bearer wrong"}, 401, "the token"),
        ({"authorization": "Bearer é"}, 401, "the token"),
    ],
)
async def test_no_other_site_and_no_program_without_the_token_reads_it(
    headers: dict[str, str], status: int, says: str
) -> None:
    """Each is refused for what is wrong, the token last."""
    async with bridge("--no-watch", "--", *DEMO, **DEV) as running, running.client() as client:
        given = {
            name.encode(): value.encode() for name, value in (bearing(running) | headers).items()
        }
        for refused in (
            await client.get(FRAMES, headers=given),
            await client.get("/ui/state", headers=given),
            await client.post("/ui/reload", headers=given),
        ):
            assert refused.status_code == status
            assert says in refused.json()["error"]["message"]
        assert (await client.post(FRAMES, headers=bearing(running))).status_code == 405
        own = {**bearing(running), "origin": running.url, "sec-fetch-site": "same-origin"}
        assert (await client.post(FRAMES, headers=own)).status_code == 405


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--host", "0.0.0.0"), "--host: 0.0.0.0 is open to other machines"),
        (("--host", "::"), "--host: :: is open to other machines"),
        (("--path", "/ui"), "--path: /ui is the path of the page"),
        (("--open", "--no-page"), "either --open or --no-page"),
    ],
)
async def test_it_is_refused_if_others_would_reach_it(words: tuple[str, ...], says: str) -> None:
    """Before anything is started; `--no-page` is the remedy."""
    status, told = await ran("dev", "--no-watch", *words, "--", *DEMO)
    assert (status, says in told, "--no-page" in told) == (2, True, True), told


async def test_with_authentication_others_may_reach_it() -> None:
    """A client's token does not open the page."""
    token = "a-client-of-many-0123456789abcdef"
    words = ("--no-watch", "--host", "0.0.0.0", "--", *DEMO)
    env = {"MCPBRIDGE_AUTH_TOKEN": token}
    async with bridge(*words, env=env, **DEV) as running, running.client() as client:
        wrong = {"authorization": f"Bearer {token}"}
        assert (await client.get(FRAMES, headers=wrong)).status_code == 401
        async with frames(running):
            pass


async def test_without_the_page_there_is_none() -> None:
    """And what it needs is not imported."""
    async with (
        bridge("--no-watch", "--no-page", "--", *DEMO, **DEV) as running,
        running.client() as client,
    ):
        (record,) = running.events("dev.started")
        assert "page" not in record
        assert (await client.get(FRAMES)).status_code == 404
    look = (
        "import sys, mcpbridge.cli.dev, mcpbridge.dev.program, mcpbridge.dev.servers;"
        "print([name for name in sys.modules"
        " if name.startswith(('mcpbridge.dev.page', 'mcpbridge.tape'))])"
    )
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


async def test_a_client_that_connects_is_named_with_its_revision() -> None:
    """Its `initialize` reaches no server, which was introduced to the bridge before."""

    def opened(event: Event) -> bool:
        return str(event.data.get("text", "")).startswith("session.opened ")

    async with (
        bridge("--no-watch", "--", *DEMO, **DEV) as running,
        running.client() as client,
        frames(running) as reader,
    ):
        for revision, gets in (("2025-06-18", "2025-06-18"), ("2099-01-01", "2025-11-25")):
            body = initialize(0, revision)
            response = await client.post("/mcp", json=body, headers=ACCEPT)
            found = (await reader.until(opened))[-1].data
            assert (found["direction"], found["server_label"]) == ("meta", "mcpbridge")
            assert found["mcpbridge"] == {
                "client": f"test 1#{response.headers['mcp-session-id'][:4]}",
                "requested": revision,
                "revision": gets,
            }


def asked(event: Event) -> dict[str, Any]:
    """What a frame says of its request."""
    found: dict[str, Any] = event.data.get("mcpbridge", {})
    return found


async def test_a_request_names_its_client_and_both_ids() -> None:
    """Of a session and of 2026-07-28; a request of the bridge itself has neither."""
    async with bridge("--no-watch", "--", *DEMO, **DEV) as running, running.client() as client:
        session = await open_session(client)
        async with frames(running) as reader:
            await echo(client, session, "x")
            found = await reader.until(answers)
            (own,) = (each for each in found if each.method == "initialize")
            assert asked(own) == {"own": True}
            (call,) = (each for each in found if each.method == "tools/call")
            name = f"test 1#{session['mcp-session-id'][:4]}"
            assert asked(call) == {"client": name, "client_id": 7}
            assert found[-1].data["raw"]["id"] == call.data["raw"]["id"] != 7
            meta = {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "new", "version": "2"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            params = {"name": "echo", "arguments": {"text": "y"}, "_meta": meta}
            headers = {
                **ACCEPT,
                "mcp-protocol-version": "2026-07-28",
                "mcp-method": "tools/call",
                "mcp-name": "echo",
            }
            body = rpc("seven", "tools/call", params)
            response = await client.post("/mcp", json=body, headers=headers)
            assert response.status_code == 200, response.text
            found = await reader.until(answers)
            (modern,) = (each for each in found if each.method == "tools/call")
            assert asked(modern) == {"client": "new 2", "client_id": "seven"}


async def test_what_never_reached_the_server_is_shown_with_its_cause() -> None:
    """Refused requests, calls that failed without an answer, and lines that are not messages."""
    noisy = "import sys; print('plain noise', flush=True); import mcpbridge.demo as d; d.main()"
    server = (sys.executable, "-c", noisy)
    words = ("--no-watch", "--max-request-bytes", "1KiB", "--max-calls", "1", "--", *server)
    async with bridge(*words, **DEV) as running, running.client() as client, frames(running) as on:

        async def refused(headers: dict[str, str], body: bytes = b"{}") -> dict[str, Any]:
            await client.post("/mcp", content=body, headers=headers)
            found = (await on.until(lambda each: "status" in asked(each)))[-1]
            assert str(found.data["text"]).startswith("request.refused status=")
            return asked(found)

        (noise,) = (
            each
            for each in await on.until(lambda each: each.data.get("text") == "plain noise")
            if each.data.get("text") == "plain noise"
        )
        assert (noise.data["direction"], asked(noise)["reason"]) == ("s2c", "noise")
        for headers, status, says in (
            ({"host": "evil.example"}, 421, "evil.example"),
            ({"origin": "http://evil.example"}, 403, "Origin"),
        ):
            found = await refused(headers)
            assert (found["status"], found["method"], found["path"]) == (status, "POST", "/mcp")
            assert says in found["problem"]
        large = await refused({}, b"x" * 2000)
        assert (large["status"], "--max-request-bytes" in large["problem"]) == (413, True)


async def test_the_page_is_served_without_the_token_and_holds_none() -> None:
    """Its policy lets it talk to mcpbridge alone; no other site may frame it."""
    async with bridge("--no-watch", "--", *DEMO, **DEV) as running, running.client() as client:
        got = await client.get("/ui/")
        assert (got.status_code, got.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert token_of(page_address(running)) not in got.text
        policy = got.headers["content-security-policy"]
        assert {"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"} <= {
            each.strip() for each in policy.split(";")
        }
        assert (await client.head("/ui")).headers["content-length"] == str(len(got.content))
        assert (await client.post("/ui")).status_code == 405
        refused = await client.get("/ui", headers={"host": "evil.example"})
        assert refused.status_code == 421


async def test_what_is_kept_can_be_read_to_its_end() -> None:
    """Without waiting for more."""
    async with bridge("--no-watch", "--", *DEMO, **DEV) as running, running.client() as client:
        await echo(client, await open_session(client), "x")
        async with frames(running, "?follow=0") as reader:
            found: list[Event] = []
            while (event := await reader.next()) is not None:
                found.append(event)
        assert any(map(answers, found))


async def test_the_servers_and_their_clients_are_named_and_one_is_reloaded() -> None:
    """By POST alone; an unknown name is refused."""
    async with bridge("--no-watch", "--", *DEMO, **DEV) as running, running.client() as client:
        session = await open_session(client)
        await echo(client, session, "x")
        own = bearing(running)
        state = (await client.get("/ui/state", headers=own)).json()
        (server,) = state["servers"]
        name = f"test 1#{session['mcp-session-id'][:4]}"
        assert (server["name"], server["state"], server["path"]) == ("mcpbridge", "ready", "/mcp")
        assert (server["clients"], state["authenticates"]) == ([name], False)
        for path in ("/ui/state", "/ui/reload?server=mcpbridge"):
            assert (await client.post(path)).status_code == 401
        reload = "/ui/reload?server=mcpbridge"
        assert (await client.get(reload, headers=own)).status_code == 405
        assert (await client.post("/ui/reload?server=x", headers=own)).status_code == 404
        done = await client.post(reload, headers=own)
        assert done.json() == {"problem": None}
        (record,) = await running.logged("server.reloaded")
        assert record["pid"] != server["pid"]
        async with frames(running) as reader:
            found = await reader.until(lambda each: "server.reloaded" in str(each.data.get("text")))
            assert (found[-1].data["server_label"], asked(found[-1])["pid"]) == (
                "mcpbridge",
                record["pid"],
            )


async def test_a_browser_is_opened_on_the_page_and_outlives_mcpbridge(tmp_path: Path) -> None:
    """It does not belong to a server, whose processes end with mcpbridge."""
    opened, lives = tmp_path / "opened", new_fifo(tmp_path, "lives")
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\n(echo "$1" > {opened}; cat {lives} > /dev/null) &\n', "utf-8")
    browser.chmod(0o755)
    env = {"BROWSER": f"{browser} %s"}
    async with bridge("--no-watch", "--open", "--", *DEMO, env=env, **DEV) as running:
        await eventually(lambda: opened.exists() and "\n" in opened.read_text(), "it is opened")
        assert opened.read_text().strip() == page_address(running)
        held: list[int] = []

        def has_reader() -> bool:
            try:
                held.append(os.open(lives, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                return False
            return True

        await eventually(has_reader, "the browser runs")
        assert await running.terminate() == 0
        os.write(held[0], b"x")  # raises if the reader has ended
        os.close(held[0])


async def test_several_servers_have_one_page(tmp_path: Path) -> None:
    """Each frame says whose it is."""
    write_servers(tmp_path / ".mcp.json", {"one": entry(), "two": entry()})
    async with bridge("--no-watch", ready=False, cwd=tmp_path, **DEV) as running:
        await running.logged("child.ready", count=2)
        assert page_address(running).startswith(f"{running.url}/ui#token=")
        async with running.client() as client, frames(running) as reader:
            for name in ("one", "two"):
                path = f"/servers/{name}/mcp"
                opened = await client.post(path, json=initialize(), headers=ACCEPT)
                session = ACCEPT | {"mcp-session-id": opened.headers["mcp-session-id"]}
                body = rpc(1, "tools/call", {"name": "echo", "arguments": {"text": name}})
                assert (await client.post(path, json=body, headers=session)).status_code == 200
                found = await reader.until(answers)
                assert found[-1].data["server_label"] == name
            own = bearing(running)
            state = (await client.get("/ui/state", headers=own)).json()["servers"]
            assert [(each["name"], each["path"], each["state"]) for each in state] == [
                ("one", "/servers/one/mcp", "ready"),
                ("two", "/servers/two/mcp", "ready"),
            ]
            done = await client.post("/ui/reload?server=two", headers=own)
            assert done.json() == {"problem": None}
            (record,) = await running.logged("server.reloaded")
            assert record["server_name"] == "two"
