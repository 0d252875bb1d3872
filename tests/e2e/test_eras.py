"""Finding out what a child speaks, one process per era, and which clients are served."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import ACCEPT, eventually, initialize, messages, open_session, rpc
from tests.support.modern_client import (
    DATE,
    FORM,
    RESERVED,
    Stateless,
    asking,
    form,
    headers_of,
    retry_of,
    serving,
    text_of,
)
from tests.support.proofs import proves

pytestmark = pytest.mark.slow
VERDICTS = {
    "legacy": (True, False),
    "picky": (True, False),
    "mute": (True, False),
    "brittle": (True, False),
    "modern": (False, True),
    "dual": (True, True),
}
MODERN_ONLY = {"server/discover", "subscriptions/listen", "notifications/subscriptions/listen"}
DISCOVER_S = 10.0
"""What deployed clients wait for discovery."""


def eras_of(lines: list[dict[str, Any]]) -> set[str]:
    """Which eras the lines that a process has read are of."""
    found = set()
    for line in lines:
        if line.get("method") in ("initialize", "notifications/initialized") or (
            "method" not in line
        ):
            found.add("legacy")
        elif RESERVED in str(line.get("params", {}).get("_meta", {})) or (
            line.get("method") in MODERN_ONLY
        ):
            found.add("modern")
    return found


def assert_unmixed(served: Stateless, prober: int | None) -> None:
    """No process has read a word of the other era, and none that serves was probed."""
    for pid, lines in served.processes().items():
        if pid == prober:
            assert {line["method"] for line in lines} <= {"server/discover", "ping"}
            assert lines[0]["method"] == "server/discover"
        else:
            assert len(eras_of(lines)) <= 1, lines
            if "legacy" in eras_of(lines):
                assert lines[0]["method"] == "initialize"


async def use(served: Stateless) -> None:
    """A client of each era calls, asks, lists and listens."""
    asked = asking([form()])
    first = await served.result("tools/call", asked, FORM)
    last = await served.result("tools/call", retry_of(asked, first, **answers(first)), FORM)
    assert len(text_of(last)["answers"]) == 1
    await served.result("tools/list")
    listen = served.request("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    async with served.stream(listen) as events:
        assert (await events.next())["params"]["notifications"] == {"toolsListChanged": True}
        await served.do()
    headers = await open_session(served.client, "2025-11-25")
    call = rpc(1, "tools/call", {"name": "do", "arguments": {"mark": "session"}})
    response = await served.client.post("/mcp", json=call, headers=headers)
    assert text_of(messages(response.text)[-1]["result"])["answers"] == []
    assert (await served.client.delete("/mcp", headers=headers)).status_code == 200


def answers(result: Any) -> dict[str, Any]:
    """Yes to everything."""
    return {key: {"action": "accept", "content": {}} for key in result["inputRequests"]}


async def found_out(folder: Path, kind: str) -> None:
    """The verdict on a server of one kind, and that it is served by it."""
    folder.mkdir()
    began = time.monotonic()
    async with serving(kind, folder) as served:
        discovered = await served.result("server/discover")
        assert time.monotonic() - began < DISCOVER_S
        (record,) = await served.bridge.logged("child.eras_found")
        assert ("legacy" in record["speaks"], "modern" in record["speaks"]) == VERDICTS[kind]
        (probed,) = served.bridge.events("child.probed")
        assert probed["modern"] == VERDICTS[kind][1]
        answered = await served.client.post("/mcp", json=initialize(), headers=ACCEPT)
        assert answered.json()["result"]["protocolVersion"] == "2025-06-18"
        await use(served)
        await eventually(lambda: probed["pid"] not in served.bridge.processes(), "it is gone")
        assert_unmixed(served, probed["pid"])
        # It is the same at the end as at the beginning.
        assert await served.result("server/discover") == discovered
        assert len(served.bridge.events("child.eras_found")) == 1


@proves("C51", "C52", "C53", "C86", "C100", "C19", "C20")
async def test_what_a_child_speaks_is_found_out(tmp_path: Path) -> None:
    """By its answer to discovery, put to a process of its own, and by no single code.

    Silence, an exit and each error but those of 2026-07-28 mean a handshake; each process reads one
    era only.
    """
    async with asyncio.TaskGroup() as all_kinds:
        for kind in VERDICTS:
            all_kinds.create_task(found_out(tmp_path / kind, kind))


@proves("C52")
async def test_an_error_of_this_revision_without_a_known_one_is_no_evidence(
    tmp_path: Path,
) -> None:
    """-32022 counts only where it names a revision that is spoken here."""
    async with serving("future", tmp_path, "--start-timeout", "2", ready=False) as served:
        (record,) = await served.bridge.logged("child.eras_found")
        assert ("legacy" in record["speaks"], "modern" in record["speaks"]) == (True, False)
        response = await served.post("server/discover")
        assert response.status_code == 503
        assert served.bridge.events("child.ready") == []


@proves("C53", "C51")
@pytest.mark.parametrize(
    ("era", "kind"),
    [("legacy", "dual"), ("modern", "dual"), ("dual", "dual"), ("legacy", "brittle")],
)
async def test_the_operator_may_say_it(tmp_path: Path, era: str, kind: str) -> None:
    """Then nothing is probed, and no process is started that is not needed."""
    async with serving(kind, tmp_path, "--child-era", era) as served:
        assert (await served.do())["resultType"] == "complete"
        headers = await open_session(served.client)
        response = await served.client.post("/mcp", json=rpc(1, "tools/list"), headers=headers)
        assert messages(response.text)[-1]["result"]["tools"]
        assert served.bridge.events("child.probed") == []
        assert len(served.processes()) == (2 if era == "dual" else 1)
        assert_unmixed(served, None)
        eras = [next(iter(eras_of(lines))) for lines in served.processes().values()]
        assert sorted(eras) == (["legacy", "modern"] if era == "dual" else [era])


@proves("C51", "C32")
async def test_tools_that_ask_may_be_served_by_the_handshake(tmp_path: Path) -> None:
    """`--prefer-legacy` of a server of both: its modern process is never needed."""
    async with serving("dual", tmp_path, "--prefer-legacy") as served:
        await use(served)
        (probed,) = await served.bridge.logged("child.probed")
        assert_unmixed(served, probed["pid"])
        eras = [eras_of(lines) for pid, lines in served.processes().items() if pid != probed["pid"]]
        assert set(map(frozenset, eras)) == {frozenset({"legacy"})}


@proves("C86")
async def test_a_server_of_both_serves_each_client_in_its_own_era(tmp_path: Path) -> None:
    """After the end of either process the next is of the same era, and the answers too."""
    async with serving("dual", tmp_path) as served:
        (probed,) = await served.bridge.logged("child.probed")
        before = await served.result("server/discover")
        assert before["_meta"][RESERVED + "serverInfo"]["version"] == "m"
        began = len(served.bridge.events("child.ready"))
        await served.error("tools/call", {"name": "do", "arguments": {"exit": 1}})
        await served.bridge.logged("child.ready", count=began + 1)
        assert await served.result("server/discover") == before
        headers = await open_session(served.client)
        exit_ = rpc(2, "tools/call", {"name": "do", "arguments": {"exit": 1}})
        assert "error" in (await served.client.post("/mcp", json=exit_, headers=headers)).text
        await served.bridge.logged("child.ready", count=began + 2)
        await open_session(served.client)
        assert await served.result("server/discover") == before
        assert_unmixed(served, probed["pid"])


async def assert_falls_back(served: Stateless) -> None:
    """A client of both eras is answered so that it tries the handshake, which serves it."""
    listen = served.request("subscriptions/listen", {"notifications": {}})
    requests = [served.request(m) for m in ("server/discover", "tools/list")]
    for message in (*requests, listen):
        response = await served.send(message)
        error = response.json()["error"]
        assert response.status_code == 400
        assert response.json()["id"] == message["id"]
        assert error["code"] not in (-32020, -32021, -32022, -32601, -32602)
    wrong = served.request("tools/list", **{RESERVED + "protocolVersion": "2099-01-01"})
    error = (await served.send(wrong)).json()["error"]
    assert not -32022 <= error["code"] <= -32020
    headers = await open_session(served.client)
    response = await served.client.post("/mcp", json=rpc(1, "tools/list"), headers=headers)
    assert messages(response.text)[-1]["result"]["tools"]


@proves("C87", "C86")
@pytest.mark.parametrize(
    ("modern", "kind", "served_"),
    [
        ("off", "legacy", False),
        ("off", "dual", False),
        ("native", "legacy", False),
        ("native", "dual", True),
        ("emulate", "legacy", True),
    ],
)
async def test_clients_of_this_revision_may_be_left_out(
    tmp_path: Path, modern: str, kind: str, served_: bool
) -> None:
    """In words that clients of both eras take as a sign to fall back."""
    async with serving(kind, tmp_path, "--modern", modern) as served:
        if served_:
            assert (await served.do())["resultType"] == "complete"
            assert await served.result("server/discover")
        else:
            await assert_falls_back(served)
            await served.bridge.logged("child.eras_found")
            await assert_falls_back(served)


@proves("C87", "C21", "C23")
async def test_clients_of_the_handshake_may_be_left_out(tmp_path: Path) -> None:
    """They are told which revision is served; there is nothing but POST."""
    async with serving("legacy", tmp_path, "--legacy", "off") as served:
        response = await served.client.post("/mcp", json=initialize(), headers=ACCEPT)
        assert response.status_code == 400
        assert DATE in response.json()["error"]["message"]
        assert response.json()["id"] == 0
        for verb in ("GET", "DELETE"):
            head = {**ACCEPT, "mcp-session-id": "x"}
            response = await served.client.request(verb, "/mcp", headers=head)
            assert (response.status_code, response.headers["allow"]) == (405, "POST")
        assert (await served.client.get("/sse", headers=ACCEPT)).status_code == 404
        response = await served.client.post("/mcp", json=rpc(1, "tools/list"), headers=ACCEPT)
        assert response.status_code == 400
        discovered = await served.result("server/discover")
        assert discovered["supportedVersions"] == [DATE]
        body = [served.request("tools/list")]
        head = headers_of(body[0])
        assert (await served.client.post("/mcp", json=body, headers=head)).status_code == 400
        assert (await served.do())["resultType"] == "complete"
