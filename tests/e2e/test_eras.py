"""Finding out what a child speaks, one process per era, and which clients are served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_process import ACCEPT, initialize, messages, open_session, rpc
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
    "deaf": (True, False),
    "late": (True, False),
    "confused": (True, False),
    "brittle": (True, False),
    "modern": (False, True),
    "dual": (True, True),
}
MODERN_ONLY = {"server/discover", "subscriptions/listen", "notifications/subscriptions/listen"}


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


HARMED = ("confused", "brittle")
"""Servers that cannot be served by a process that was asked first."""


def assert_unmixed(served: Stateless, probed: int | None) -> None:
    """No process has read a word of the other era, but for the first one, which was asked."""
    for pid, lines in served.processes().items():
        methods = [line.get("method") for line in lines]
        if pid == probed:
            assert methods[0] == "server/discover"
            if "initialize" in methods:
                first = methods.index("initialize")
                assert set(methods[:first]) <= {"server/discover", "ping"}
                lines = lines[first:]
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
    async with serving(kind, folder) as served:
        await served.bridge.logged("child.eras_found")
        discovered = await served.result("server/discover")
        (probed,) = await served.bridge.logged("child.probed")
        assert probed["modern"] == VERDICTS[kind][1]
        started = [record["pid"] for record in served.bridge.events("child.started")]
        assert started[0] == probed["pid"]
        # Of those that were harmed the second one serves: never are there two.
        assert len(started) == (2 if kind in HARMED else 1)
        assert served.bridge.processes() == {started[-1]}
        answered = await served.client.post("/mcp", json=initialize(), headers=ACCEPT)
        assert answered.json()["result"]["protocolVersion"] == "2025-06-18"
        await use(served)
        assert (probed["pid"] in served.bridge.processes()) == (kind not in HARMED)
        assert_unmixed(served, probed["pid"])
        # It is the same at the end as at the beginning.
        assert await served.result("server/discover") == discovered
        records = served.bridge.events("child.eras_found")
        assert len(records) == (2 if kind == "dual" else 1)
        speaks = records[-1]["speaks"]
        assert ("legacy" in speaks, "modern" in speaks) == VERDICTS[kind]


@proves("C51", "C52", "C53", "C86", "C100", "C19", "C20")
@pytest.mark.parametrize("kind", VERDICTS)
async def test_what_a_child_speaks_is_found_out(tmp_path: Path, kind: str) -> None:
    """By its answer to discovery, put to the process that will serve, and by no single code.

    Silence, an exit and each error but those of 2026-07-28 mean a handshake, with the same process
    unless it was harmed. One process runs until a client needs another, and reads one era only.
    """
    await found_out(tmp_path / kind, kind)


@proves("C52")
async def test_an_error_of_this_revision_without_a_known_one_is_no_evidence(
    tmp_path: Path,
) -> None:
    """-32022 counts only where it names a revision that is spoken here."""
    async with serving("future", tmp_path, "--start-timeout", "2", ready=False) as served:
        (probed,) = await served.bridge.logged("child.probed")
        assert not probed["modern"]
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


@proves("C86")
async def test_a_legacy_process_of_a_server_of_both_starts_with_its_first_client(
    tmp_path: Path,
) -> None:
    """Calls of 2026-07-28 need the first process alone."""
    async with serving("dual", tmp_path) as served:
        await served.do()
        (first,) = await served.bridge.logged("child.started")
        assert served.bridge.processes() == {first["pid"]}
        await open_session(served.client)
        second = served.bridge.events("child.started")[1]
        assert served.bridge.processes() == {first["pid"], second["pid"]}


@proves("C87")
@pytest.mark.parametrize("words", [("--modern", "off"), ("--prefer-legacy",)])
async def test_one_process_serves_if_all_clients_use_the_legacy_one(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """The first process, which spoke 2026-07-28, is gone when the legacy one starts."""
    async with serving("dual", tmp_path, *words) as served:
        await open_session(served.client)
        first, second = await served.bridge.logged("child.started", count=2)
        assert served.bridge.processes() == {second["pid"]}
        assert first["pid"] == served.bridge.events("child.probed")[0]["pid"]


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
