"""Pages in a real browser against the bridge: what a listed one can do, and what no other can."""

from __future__ import annotations

import asyncio
import http.server
import json
import re
import threading
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import RunningBridge, bridge, child
from tests.support.browser import HERE, WITHIN_S, chromium, node
from tests.support.proofs import proves

pytestmark = [pytest.mark.interop, pytest.mark.slow]

NAMES = ("app.example", "evil.example")
"""Names that lead to this machine, as those do that a foreign name server answers for."""
MARKER = "from-a-page"
UNREAD = ("json", "text", "get", "delete")
"""What a page tries in order to read the answer."""
EMBEDDED = ("image", "script", "events /sse", "events /mcp", "socket")
"""What tells it whether there was a good one."""
_ANSWERED = re.compile(r'\w*http_requests_total\{method="(\w+)",status="(\d+)"\} ([\d.e+]+)')


class _Empty(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><link rel=icon href=data:,><title>page</title>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """It is not read."""


@pytest.fixture(scope="module")
def pages() -> Iterator[int]:
    """The port of a server that has an empty page at every path, by whatever name it is asked."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Empty) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            serving.join()


@dataclass(frozen=True)
class Visit:
    """One page, and what it does there."""

    page: str
    act: str
    given: dict[str, str]
    stage: bool = False
    """The browser takes the page from us, although the address is the bridge's."""


async def browsed(folder: Path, *visits: Visit) -> list[Any]:
    """Make the visits, one after the other, in its own browser; what each page knows then."""
    resolve = ",".join(f"MAP {name} 127.0.0.1" for name in NAMES)
    plan = {"resolve": resolve, "visits": [vars(visit) for visit in visits]}
    process = await asyncio.create_subprocess_exec(
        *(node(), str(HERE / "browse.mjs"), chromium(), str(folder)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            said, complained = await process.communicate(json.dumps(plan).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complained.decode()
    found: list[Any] = json.loads(said)
    return found


@proves("fault 91")
async def test_a_listed_page_can_do_all_that_a_client_does(pages: int, tmp_path: Path) -> None:
    """Handshake, calls, streams, errors, the end; and a call of 2026-07-28."""
    origins = [f"http://localhost:{pages}", f"http://app.example:{pages}"]
    words = [word for origin in origins for word in ("--allow-origin", origin)]
    async with bridge(*words) as run:
        given = {"url": f"{run.url}/mcp"}
        visits = [
            Visit(f"{origin}/", act, given) for origin in origins for act in ("session", "modern")
        ]
        for said, visit in zip(await browsed(tmp_path / "it", *visits), visits, strict=True):
            if visit.act == "modern":
                assert said == {"status": 200, "sum": 2}, visit
                continue
            assert said == {
                "server": "mcpbridge-demo",
                "session": 64,
                "told": 202,
                "sums": [1, 2, 3, 4, 5],
                "streamed": "text/event-stream",
                "progressed": True,
                "answered": "s",
                "listened": [200, "text/event-stream"],
                "resumed": 200,
                "unknown": [404, "session not found"],
                "deleted": 200,
            }, visit


async def test_a_token_is_a_header_like_any_other(pages: int, tmp_path: Path) -> None:
    """A preflight needs none; without one a page can read where to get it."""
    token = "a-token-of-the-page-0123456789abcdef"
    origin = f"http://app.example:{pages}"
    async with bridge("--allow-origin", origin, env={"MCPBRIDGE_AUTH_TOKEN": token}) as run:
        url = f"{run.url}/mcp"
        without, with_it = await browsed(
            tmp_path / "it",
            Visit(f"{origin}/", "refused", {"url": url}),
            Visit(f"{origin}/", "session", {"url": url, "token": token}),
        )
    assert without["status"] == 401
    assert without["challenge"].startswith("Bearer ")
    assert with_it["sums"] == [1, 2, 3, 4, 5]


async def answered(run: RunningBridge) -> Counter[tuple[str, int]]:
    """How many requests the bridge has answered so far, by method and status."""
    async with run.client() as client:
        lines = (await client.get("/metrics")).text.splitlines()
    found: Counter[tuple[str, int]] = Counter()
    for line in lines:
        if match := _ANSWERED.match(line):
            found[match[1], int(match[2])] += int(float(match[3]))
    return found


async def attacked(
    run: RunningBridge, folder: Path, *visits: Visit
) -> tuple[list[Any], Counter[tuple[str, int]]]:
    """What each page knows in the end, and what the bridge has answered to all of them."""
    await answered(run)  # so that there is something to read
    before = await answered(run)
    said = await browsed(folder, *visits)
    during = await answered(run)
    during -= before + Counter({("GET", 200): 1})
    return said, during


@proves("fault 66", "fault 90")
@pytest.mark.parametrize("listed", [False, True], ids=["nobody-listed", "another-listed"])
async def test_no_other_page_gets_anything_in_or_out(
    pages: int, tmp_path: Path, listed: bool
) -> None:
    """By script, form, image, frame, event source, beacon or socket; by name or without an origin.

    A name that leads to the bridge itself makes the page one of the bridge's own to the browser:
    there Host alone tells.
    """
    words = ("--allow-origin", f"http://app.example:{pages}") if listed else ()
    (records := tmp_path / "records").mkdir()
    async with bridge(*words, "--", *child("recorder", str(records))) as run:
        given = {"url": f"{run.url}/mcp", "root": run.url, "marker": MARKER}
        own = f"http://evil.example:{run.port}"
        rebound = {"url": f"{own}/mcp", "root": own, "marker": MARKER}

        strangers = (f"http://evil.example:{pages}/", "data:text/html,<title>nobody</title>")
        visits = [Visit(page, "attack", given) for page in strangers]
        said, during = await attacked(run, tmp_path / "strangers", *visits)
        assert {status for _, status in during} == {403}, during
        assert during["POST", 403] >= 10, during
        assert during["GET", 403] >= 10, during
        for each in said:
            assert {each[name] for name in UNREAD} == {"TypeError"}, each
            assert {each[name] for name in EMBEDDED} == {"error"}, each

        # To the browser this is one site: it lets the page read what comes, which is a refusal.
        visit = Visit(f"{own}/", "attack", rebound, stage=True)
        (each,), during = await attacked(run, tmp_path / "rebound", visit)
        assert {status for _, status in during} == {421}, during
        assert {each[name][0] for name in UNREAD} == {421}, each
        assert {each[name] for name in EMBEDDED} == {"error"}, each

        # A page of this machine may read nothing, and what it sends without asking is not JSON.
        visit = Visit(f"http://localhost:{pages}/", "attack", given)
        (each,), during = await attacked(run, tmp_path / "unlisted", visit)
        assert {each[name] for name in UNREAD} == {"TypeError"}, each
        assert not {status for method, status in during if method == "POST"} - {415}, during
        opened = run.events("session.opened")
    assert opened == []
    sent = b"".join(file.read_bytes() for file in records.iterdir())
    assert sent
    assert MARKER.encode() not in sent
