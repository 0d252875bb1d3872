"""`mcpbridge dev` without a command: a save reloads one server of the file, and no other."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from mcpbridge import DISTRIBUTION
from mcpbridge.config.servers_file import FILE_NAMES
from mcpbridge.tape.recording import read_recording
from tests.support.bridge_process import (
    CHILDREN,
    RunningBridge,
    bridge,
    eventually,
    ran,
    started,
)
from tests.support.developing import Developing, save, source
from tests.support.servers_file import Entry, entry, own, statuses, write_servers

pytestmark = pytest.mark.slow

BROKEN = "def broken(:\n"


def of_script(name: str, **more: Any) -> Entry:
    """An entry whose server is a script beside the file."""
    return entry([sys.executable, name], env={"PYTHONPATH": str(CHILDREN)}, **more)


class Servers:
    """A bridge over `.mcp.json` with the servers `one` and `two`, each a script beside it."""

    def __init__(self, running: RunningBridge, folder: Path, clients: dict[str, Developing]):
        self.bridge = running
        self.folder = folder
        self.file = folder / ".mcp.json"
        self.one = clients["one"]
        self.two = clients["two"]

    async def statuses(self) -> dict[str, dict[str, Any]]:
        """What `/servers` says, by name."""
        async with self.bridge.client() as client:
            return await statuses(client)

    async def logged(self, event: str, name: str, count: int = 1) -> dict[str, Any]:
        """The record of this number of an event of a server."""
        found = await self.bridge.logged(event, lambda each: each["server_name"] == name, count)
        return found[count - 1]


@asynccontextmanager
async def serving(folder: Path, *words: str) -> AsyncIterator[Servers]:
    """`mcpbridge dev` in a folder with two servers, both ready and watched."""
    for name in ("one", "two"):
        save(folder / f"{name}.py", source())
    write_servers(folder / ".mcp.json", {name: of_script(f"{name}.py") for name in ("one", "two")})
    async with bridge(*words, program=["dev"], ready=False, cwd=folder) as running:
        await running.logged("child.ready", count=2)
        await running.logged("dev.started", count=2)
        one, two = (
            httpx.AsyncClient(base_url=f"{running.url}/servers/{n}") for n in ("one", "two")
        )
        async with one, two:
            clients = {
                "one": Developing(running, folder / "one.py", one),
                "two": Developing(running, folder / "two.py", two),
            }
            yield Servers(running, folder, clients)


async def test_a_save_changes_one_server_in_the_same_session(tmp_path: Path) -> None:
    """The other one keeps its process, though its script is in the same folder."""
    async with serving(tmp_path) as on:
        session, other = await on.one.open(), await on.two.open()
        before, beside = await on.one.call(session), await on.two.call(other)
        record = await on.one.saved(source(["one", "new"]))
        assert (record["server_name"], record["because"]) == ("one", "one.py")
        assert await on.one.tools(session) == ["one", "new"]
        assert (await on.one.call(session))["pid"] != before["pid"]
        assert await on.two.call(other) == beside
        # A file that is the script of neither may be a part of both.
        save(tmp_path / "shared.py", "")
        records = await on.bridge.logged("server.reloaded", count=3)
        assert sorted((each["because"], each["server_name"]) for each in records) == [
            ("one.py", "one"),
            ("shared.py", "one"),
            ("shared.py", "two"),
        ]
        assert (await on.two.call(other))["pid"] != beside["pid"]


async def test_a_mistake_is_named_and_the_server_before_serves(tmp_path: Path) -> None:
    """At `/servers`, until the repair; the other server is not touched."""
    async with serving(tmp_path) as on:
        session = await on.one.open()
        before = await on.statuses()
        assert [each["reason"] for each in before.values()] == ["", ""]
        await on.one.saved(BROKEN, "server.reload_failed")
        broken = await on.statuses()
        assert broken["one"]["state"] == "ready"
        assert broken["one"]["pid"] == before["one"]["pid"]
        assert broken["one"]["reason"].startswith("not reloaded: one.py: ")
        assert "SyntaxError: invalid syntax; the process before" in broken["one"]["reason"]
        assert broken["two"] == before["two"]
        assert await on.one.tools(session) == ["one"]
        await on.one.saved(source(["repaired"]))
        repaired = await on.statuses()
        assert (repaired["one"]["state"], repaired["one"]["reason"]) == ("ready", "")
        assert repaired["two"] == before["two"]
        assert await on.one.tools(session) == ["repaired"]


async def test_an_entry_that_is_replaced_or_gone_is_watched_no_more(tmp_path: Path) -> None:
    """What takes its place is watched; a save of the old file reloads nothing."""
    async with serving(tmp_path) as on:
        session = await on.one.open()
        save(tmp_path / "third.py", source())
        await on.logged("server.reloaded", "one")
        await on.logged("server.reloaded", "two")
        write_servers(on.file, {"one": of_script("third.py")})
        record = await on.logged("server.reloaded", "one", 2)
        assert record["because"] == "its entry in .mcp.json"
        await on.logged("dev.started", "one", 2)
        await eventually(lambda: len(on.bridge.processes()) == 1, "the others have ended")
        count = len(on.bridge.events("server.reloaded"))
        save(tmp_path / "two.py", source(["gone"]))
        save(tmp_path / "third.py", source(["third"]))
        await on.bridge.logged("server.reloaded", count=count + 1)
        assert {each["server_name"] for each in on.bridge.events("server.reloaded")[count:]} == {
            "one"
        }
        assert await on.one.tools(session) == ["third"]


async def test_a_changed_entry_that_cannot_start_is_named_and_repaired_by_a_save(
    tmp_path: Path,
) -> None:
    """The server before the change serves until then."""
    async with serving(tmp_path) as on:
        session = await on.one.open()
        save(tmp_path / "third.py", BROKEN)
        await on.logged("server.reloaded", "one")
        servers = {"one": of_script("third.py"), "two": of_script("two.py")}
        write_servers(on.file, servers)
        await on.logged("child.start_held", "one")
        failing = (await on.statuses())["one"]
        assert failing["state"] == "ready"
        assert "the server before the last change still serves" in failing["reason"]
        assert "SyntaxError: invalid syntax" in failing["reason"]
        assert await on.one.tools(session) == ["one"]
        save(tmp_path / "third.py", source(["third"]))
        await on.logged("server.reloaded", "one", 2)
        await on.logged("dev.started", "one", 3)
        assert (await on.statuses())["one"]["reason"] == ""
        assert await on.one.tools(session) == ["third"]
        assert not on.bridge.events("server.replaced")


async def test_an_entry_that_is_undone_is_not_reported_any_more(tmp_path: Path) -> None:
    """The server that served all the time has nothing wrong with it."""
    async with serving(tmp_path) as on:
        session = await on.one.open()
        save(tmp_path / "third.py", BROKEN)
        await on.logged("server.reloaded", "one")
        before = on.file.read_text("utf-8")
        write_servers(on.file, {"one": of_script("third.py"), "two": of_script("two.py")})
        await on.logged("child.start_held", "one")
        assert (await on.statuses())["one"]["reason"]
        save(on.file, before)
        await on.logged("server.reloaded", "one", 2)
        assert (await on.statuses())["one"]["reason"] == ""
        assert await on.one.tools(session) == ["one"]


async def test_a_secret_of_a_changed_entry_is_not_recorded(tmp_path: Path) -> None:
    """The tape learns what the entry has from now on, in the session that was open before."""
    tape = tmp_path / "tape.jsonl"
    async with serving(tmp_path, "--record", str(tape)) as on:
        session = await on.one.open()
        env = {"PYTHONPATH": str(CHILDREN), "API_KEY": "of-the-changed-entry"}
        servers = {
            "one": {**of_script("one.py"), "env": env},
            "two": of_script("two.py"),
        }
        write_servers(on.file, servers)
        await on.logged("server.reloaded", "one")
        await on.one.ask(session, "tools/call", name="one", arguments={"x": env["API_KEY"]})
    assert b"tools/call" in tape.read_bytes()
    assert b"of-the-changed-entry" not in tape.read_bytes()


async def test_patterns_of_an_entry_are_relative_to_the_file(tmp_path: Path) -> None:
    """And one that names nothing is said with its field, while the server is served."""
    (tmp_path / "src").mkdir()
    (tmp_path / ".vscode").mkdir()
    save(tmp_path / "src" / "mine.py", source())
    save(tmp_path / "wrong.py", source())
    (tmp_path / "data.toml").write_text("")
    servers = {
        "mine": of_script("mine.py", cwd="src", dev={"watch": "*.toml"}),
        "wrong": of_script("wrong.py", dev={"watch": ["nowhere/*.py"]}),
        "package": {"command": "no-such-program"},
    }
    save(tmp_path / ".vscode" / "mcp.json", json.dumps({"servers": servers}))
    async with bridge(program=["dev"], ready=False, cwd=tmp_path) as running:
        await running.logged("dev.started", count=2)
        await running.logged("child.ready", count=2)
        (failed,) = running.events("watch.failed")
        assert failed["server_name"] == "wrong"
        assert failed["field"] == "dev.watch"
        assert failed["problem"] == "nowhere/*.py: no such file or folder"
        (unusable,) = running.events("server.unusable")
        assert (unusable["server_name"], unusable["field"]) == ("package", "command")
        save(tmp_path / "wrong.py", source(["unseen"]))
        save(tmp_path / "data.toml", "changed")
        (record,) = await running.logged("server.reloaded")
        assert (record["server_name"], record["because"]) == ("mine", "data.toml")
        async with running.client() as client:
            found = await statuses(client)
        assert found["wrong"]["state"] == "ready"
        assert found["wrong"]["reason"].startswith("not watched: dev.watch: nowhere/*.py: ")
        assert found["mine"]["reason"] == ""


async def test_without_watching_no_extra_is_needed(tmp_path: Path) -> None:
    """Files are served as they were when the servers started."""
    (tmp_path / "watchfiles.py").write_text("raise ImportError\n", "utf-8")
    write_servers(tmp_path / "mcp.json", {"demo": entry()})
    env = {"PYTHONPATH": str(tmp_path)}
    words = ("--config", str(tmp_path / "mcp.json"))
    status, told = await ran("dev", "--port", "0", *words, env=env)
    assert (status, f"pip install '{DISTRIBUTION}[dev-proxy]'" in told) == (2, True)
    async with bridge(*words, "--no-watch", program=["dev"], env=env) as running:
        (record,) = await running.logged("dev.started")
        assert record["watching"] == "nothing"
        assert record["address"] == f"{running.url}/servers/demo/mcp"


async def test_all_servers_are_recorded_in_one_file(tmp_path: Path) -> None:
    """Each frame has its server's name, one numbering orders them, and no input of a file is told.

    A save of the recording reloads nothing, although every file is watched.
    """
    tape, secret = tmp_path / "tape.py", "sesame-7-input"
    save(tmp_path / "one.py", source())
    save(tmp_path / "two.py", source(["other"]))
    servers = {
        "one": of_script("one.py", dev={"watch": "*.py"}),
        "two": of_script("two.py", args=["two.py", "${input:key}"]),
    }
    write_servers(tmp_path / ".mcp.json", servers)
    env = {"MCPBRIDGE_INPUT_KEY": secret}
    words = ("--record", str(tape))
    async with bridge(*words, program=["dev"], ready=False, cwd=tmp_path, env=env) as running:
        await running.logged("child.ready", count=2)
        await running.logged("dev.started", count=2)
        for name, tool in (("one", "plain"), ("two", secret)):
            async with httpx.AsyncClient(base_url=f"{running.url}/servers/{name}") as client:
                on = Developing(running, tmp_path / f"{name}.py", client)
                await on.ask(await on.open(), "tools/call", name=tool, arguments={})
        save(tmp_path / "two.py", source(["other", "new"]))
        records = await running.logged("server.reloaded")
        assert {each["because"] for each in records} == {"two.py"}
    assert secret not in tape.read_text("utf-8")
    frames = read_recording(tape).frames[1:]
    assert {each.server_label for each in frames} == {"one", "two"}
    seqs = [each.seq for each in frames]
    # Events that only the page shows have numbers too.
    assert seqs == sorted(set(seqs))
    # A replay is of one server, and says so if it is not told which.
    status, told = await ran("replay", str(tape))
    assert (status, "has several servers: one, two; name one: --server one" in told) == (2, True)
    replay = (sys.executable, "-m", "mcpbridge", "replay", str(tape), "--server", "two")
    async with bridge("--", *replay) as running, running.client() as client:
        on = Developing(running, tape, client)
        assert await on.tools(await on.open()) == ["other"]


@pytest.mark.parametrize("name", FILE_NAMES)
async def test_the_files_of_clients_are_found_and_printed(tmp_path: Path, name: str) -> None:
    """Each server with its address and a client's entry; a lazy one says so too."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write_servers(tmp_path / name, {"first": entry(), "last one": entry(**own(start="lazy"))})
    words = ("--port", "0", "--no-watch", "--log-format", "text")
    async with started("dev", *words, cwd=tmp_path) as running:

        def lines(sign: str) -> list[str]:
            return [line for line in running.noise if sign in line]

        await eventually(lambda: len(lines("  client ")) == 2, "it serves, and says where")
        assert any(f"serving first, last one of {name}; states: http" in x for x in running.noise)
        addresses = sorted(line.split()[-1] for line in lines("  address "))
        assert [each.partition("/servers/")[2] for each in addresses] == [
            "first/mcp",
            "last%20one/mcp",
        ]
        clients = [json.loads(line.partition("client")[2]) for line in lines("  client ")]
        listed = {key: value for each in clients for key, value in each["mcpServers"].items()}
        assert {key: value["url"] for key, value in listed.items()} == dict(
            zip(("first", "last one"), addresses, strict=True)
        )
        assert await running.terminate() == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no .mcp.json, .vscode/mcp.json or mcp.json in "),
        (("--config", "other.json"), "(from other.json): cannot be read"),
        (("--config", "some.json", "--watch", "."), "is for one server"),
        (("--config", "some.json", "--", "python", "server.py"), "give only one"),
    ],
)
async def test_a_wrong_word_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    """With what to do; nothing is started."""
    write_servers(tmp_path / "some.json", {"demo": entry()})
    monkeypatch.chdir(tmp_path)
    status, told = await ran("dev", *words)
    assert (status, says in told) == (2, True), told


async def test_a_variable_may_name_the_file(tmp_path: Path) -> None:
    """What is found in the folder is not served then."""
    write_servers(tmp_path / ".mcp.json", {"found": entry()})
    path = write_servers(tmp_path / "other.json", {"named": entry()})
    env = {"MCPBRIDGE_CONFIG": str(path)}
    async with bridge("--no-watch", program=["dev"], cwd=tmp_path, env=env) as running:
        (record,) = await running.logged("serve.started")
        assert record["servers"] == ["named"]
