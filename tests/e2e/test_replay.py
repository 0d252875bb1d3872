"""`mcpbridge replay` behind a bridge, and `mcpbridge tape`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import anyio
import httpx
import pytest

from tests.support.bridge_process import DEMO, bridge, eventually, messages, open_session, ran, rpc
from tests.support.recorded import recorded
from tests.support.servers_file import entry, write_servers

pytestmark = pytest.mark.slow

REPLAY = (sys.executable, "-m", "mcpbridge", "replay")
ECHO = {"name": "echo", "arguments": {"text": "café \u2028"}}
COUNTDOWN = {"name": "countdown", "arguments": {"seconds": 0, "steps": 2}}
PROGRESS = {**COUNTDOWN, "_meta": {"progressToken": 5}}
CALLS = [("tools/list", {}), ("tools/call", ECHO), ("tools/call", PROGRESS)]


async def test_a_recording_behind_the_bridge_answers_as_the_server_did(tmp_path: Path) -> None:
    """To another client, under its own ids; what was not recorded is named, and no server asked."""
    path = tmp_path / "tape.jsonl"
    wanted = await recorded(path, CALLS)
    async with bridge("--", *REPLAY, str(path)) as running, running.client() as client:
        headers = await open_session(client)
        for number, (method, params) in enumerate(CALLS):
            response = await client.post(
                "/mcp", json=rpc(f"x{number}", method, params), headers=headers
            )
            *before, last = messages(response.text)
            assert last["id"] == f"x{number}"
            assert last["result"] == json.loads(wanted[number])
            steps = [each["params"]["progress"] for each in before]
            assert steps == ([1, 2] if params is PROGRESS else [])
        other = {"name": "echo", "arguments": {"text": "else"}}
        response = await client.post("/mcp", json=rpc(9, "tools/call", other), headers=headers)
        (said,) = messages(response.text)
        assert said["error"]["code"] == -32602
        assert '"text": "else"' in said["error"]["message"].replace('":"', '": "')


async def test_a_recording_is_shown_and_converted(tmp_path: Path) -> None:
    """As text and as HAR; another file is one line with the reason."""
    path = tmp_path / "tape.jsonl"
    await recorded(path, CALLS)
    status, text = await ran("tape", str(path))
    assert status == 0
    assert "-> tools/call echo id=2" in text
    assert "<- answer tools/call echo id=2" in text
    status, text = await ran("tape", str(path), "--as", "har")
    assert status == 0
    urls = [entry["request"]["url"] for entry in json.loads(text)["log"]["entries"]]
    assert "http://demo.invalid/tools/call/echo" in urls
    other = tmp_path / "other"
    other.write_text("x", "utf-8")
    for words in (("tape", str(other)), ("replay", str(other))):
        status, text = await ran(*words)
        assert status == 2
        assert text.count("\n") == 1
        assert "not a recording" in text


def schemas_in(text: str, tool: str) -> set[str]:
    """What a recording says of the properties of a tool, in all lists of tools."""
    results = [json.loads(line).get("raw", {}).get("result", {}) for line in text.splitlines()]
    return {
        json.dumps(each["inputSchema"]["properties"])
        for result in results
        for each in result.get("tools", [])
        if each["name"] == tool
    }


async def test_what_is_recorded_by_dev_is_replayed(tmp_path: Path) -> None:
    """Without secrets, on stderr too; but no name makes a property of a schema a secret."""
    path = tmp_path / "tape.jsonl"
    secret = "sesame-1-ö"
    properties = {"token": {"type": "string", "minLength": 8}}
    script = (
        "import os, sys; print('key', os.environ['MY_KEY'], file=sys.stderr, flush=True);"
        "import mcpbridge.demo as demo;"
        f"demo.TOOLS['login'] = (lambda call: demo.content('in'), 'Log in.', {properties}, {{}});"
        "demo.main()"
    )
    server = (sys.executable, "-c", script)
    words = ("--no-watch", "--record", str(path), "--env", f"MY_KEY={secret}")
    call = {"name": "echo", "arguments": {"text": f"it is {secret}", "password": "hunter22"}}
    login = {"name": "login", "arguments": {"token": "open-barley"}}
    async with (
        bridge(*words, "--", *server, program=["dev"]) as running,
        running.client() as client,
    ):
        headers = await open_session(client)
        response = await client.post("/mcp", json=rpc(1, "tools/call", call), headers=headers)
        (said,) = messages(response.text)
        assert said["result"]["content"][0]["text"] == f"it is {secret}"
        for method, params in (("tools/list", {}), ("tools/call", login)):
            response = await client.post("/mcp", json=rpc(method, method, params), headers=headers)
            assert "result" in messages(response.text)[-1]
        await running.logged("child.stderr")
    text = path.read_text("utf-8")
    for hidden in ("sesame", "hunter22", "open-barley"):
        assert hidden not in text
    assert schemas_in(text, "login") == {json.dumps(properties)}
    assert '"direction":"stderr"' in text
    assert "child.started" in text
    async with bridge("--", *REPLAY, str(path)) as running, running.client() as client:
        headers = await open_session(client)
        response = await client.post("/mcp", json=rpc(2, "tools/call", call), headers=headers)
        (said,) = messages(response.text)
        assert said["result"]["content"][0]["text"] == "it is ***"


async def test_a_secret_of_an_entry_is_in_no_recorded_file(tmp_path: Path) -> None:
    """Neither in the arguments and the result of a call nor in what the server writes to stderr."""
    secret, folder = "sesame-2-ö", tmp_path / "tapes"
    folder.mkdir()
    script = (
        "import os, sys; print('key', os.environ['MY_KEY'], file=sys.stderr, flush=True);"
        "import mcpbridge.demo as demo; demo.main()"
    )
    one = {"command": sys.executable, "args": ["-c", script], "env": {"MY_KEY": secret}}
    file = write_servers(tmp_path / "mcp.json", {"one": one, "two": entry(DEMO)})
    words = ("--no-watch", "--record", str(folder / "tape.jsonl"), "--config", str(file))
    call = {"name": "echo", "arguments": {"text": f"it is {secret}"}}
    async with bridge(*words, program=["dev"]) as running, running.client() as client:
        await running.logged("child.ready", count=2)
        url = "/servers/one/mcp"
        async with httpx.AsyncClient(base_url=f"{client.base_url}/servers/one") as of_one:
            headers = await open_session(of_one)
        response = await client.post(url, json=rpc(1, "tools/call", call), headers=headers)
        (said,) = messages(response.text)
        assert said["result"]["content"][0]["text"] == f"it is {secret}"
        await running.logged("child.stderr")
    text = "".join(each.read_text("utf-8") for each in folder.iterdir())
    assert "sesame" not in text
    assert text.count("it is ***") == 2, "the call and its answer"
    assert "key ***" in text


async def test_what_was_recorded_before_a_kill_can_be_read(tmp_path: Path) -> None:
    """A call that was answered is in the file within 100 ms, and a torn last line is left out."""
    path = tmp_path / "tape.jsonl"
    words = ("--no-watch", "--record", str(path), "--", *DEMO)
    async with bridge(*words, program=["dev"]) as running, running.client() as client:
        headers = await open_session(client)
        await client.post("/mcp", json=rpc(1, "tools/call", ECHO), headers=headers)
        both = "the request and the answer are written"
        await eventually(lambda: path.read_text("utf-8").count("caf") == 2, both)
        running.signal(signal.SIGKILL)
        assert await running.ended() == -signal.SIGKILL
    with path.open("ab") as file:
        file.write(b'{"session_id":"torn')
    status, text = await ran("tape", str(path))
    assert status == 0
    assert "<- answer tools/call echo" in text


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--record-raw"], "need --record FILE"),
        (["--record", "x", "--record-max", "1"], "at least 64KiB"),
        (["--record", "x", "--record-max", "many"], "is not a size"),
        (["--record", "/"], "/ is not a regular file"),
    ],
)
async def test_wrong_flags_are_one_error(words: list[str], problem: str) -> None:
    """That says what would be right."""
    status, text = await ran("dev", "--no-watch", *words, "--", *DEMO)
    assert status == 2
    assert problem in text


async def test_nothing_of_it_is_imported_without_it() -> None:
    """A bridge that records nothing pays nothing."""
    look = (
        "import sys, mcpbridge.cli.serve, mcpbridge.app.lifecycle, mcpbridge.config.load;"
        "print([each for each in sys.modules if '.tape' in each])"
    )
    found = await anyio.run_process([sys.executable, "-c", look])
    assert found.stdout == b"[]\n"
