"""mcpbridge in an interpreter that lacks what Python lacks on Windows; not on Windows itself.

The modules `test_child_faults` and `test_backpressure` run in it too, beside their usual runs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bridge_process import (
    WITHOUT_POSIX,
    bridge,
    child,
    interpreter,
    open_session,
    ran,
    rpc,
    run_without_posix,
    started,
)
from tests.support.developing import developing, source
from tests.support.without_posix import MODULES

pytestmark = pytest.mark.slow

SMOKE = Path(__file__).parent.parent / "support" / "smoke.py"
IMPORTS = f"""
import importlib, sys
for name in {MODULES!r}:
    sys.modules[name] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
SERVING = ("mcpbridge.cli.main", "mcpbridge.cli.serve", "mcpbridge.config.load")
PATHS = {
    "command": (*SERVING, "mcpbridge.app.lifecycle"),
    "file": (*SERVING, "mcpbridge.app.servers_lifecycle", "mcpbridge.config.servers_file"),
    "dev": (
        *SERVING,
        "mcpbridge.cli.dev",
        *(f"mcpbridge.dev.{name}" for name in ("program", "servers", "watch", "faulty_channel")),
        *("mcpbridge.dev.page.page", "mcpbridge.dev.page.opener", "mcpbridge.tape.recording"),
    ),
    "connect": (
        *("mcpbridge.cli.main", "mcpbridge.cli.remote.connect", "mcpbridge.reverse.program"),
        *("mcpbridge.reverse.login.saved_login", "mcpbridge.reverse.translation.bridged_client"),
    ),
}
"""What a start on Windows imports, by what it serves."""


@pytest.fixture
def without_posix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the bridges of a test in such an interpreter."""
    monkeypatch.setenv(WITHOUT_POSIX, "1")


@pytest.mark.parametrize("path", PATHS)
def test_a_start_imports_nothing_of_posix(path: str) -> None:
    """Neither `fcntl` nor `pwd`, `grp`, `resource`, `termios`, nor uvloop."""
    argv = [sys.executable, "-c", IMPORTS, *PATHS[path]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("without_posix")
async def test_a_server_is_served_from_its_start_to_its_end() -> None:
    """One record says what this system lacks; SIGTERM drains, and the process ends by its stdin."""
    async with bridge("--isolation", "session") as running:
        assert len(running.events("process_tree.limited")) == 1
        async with running.client() as client:
            session = await open_session(client)
            params = {"name": "echo", "arguments": {"text": "é"}}
            asked = rpc(1, "tools/call", params)
            answer = await client.post("/mcp", json=asked, headers=session)
            assert answer.json()["result"]["content"] == [{"type": "text", "text": "é"}]
        assert await running.terminate() == 0
        assert all(each["how"] == "exit code 0" for each in running.events("child.stopped"))


@pytest.mark.parametrize("lacking", [False, True], ids=["posix", "without_posix"])
def test_the_smoke_of_windows_passes_here(lacking: bool) -> None:
    """What CI runs on Windows, but for the batch file."""
    with run_without_posix(lacking):
        argv = [sys.executable, str(SMOKE), *interpreter()]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("all is well\n")


@pytest.mark.usefixtures("without_posix")
async def test_a_server_that_ignores_the_end_of_its_stdin_is_ended() -> None:
    """After the grace, since it cannot be asked in another way."""
    deaf = "import time\nfor _ in open(0): pass\nwhile True: time.sleep(60)"  # bears the end
    words = ("--grace", "6s", "--", sys.executable, "-c", deaf)
    async with started("--port", "0", "--give-up-after", "0", *words) as running:
        await running.logged("child.started")
        assert await running.terminate() == 0
        assert running.events("child.stopped") or running.events("child.exited")


@pytest.mark.usefixtures("without_posix")
async def test_the_last_words_of_a_server_are_heard() -> None:
    """Though threads read them, and the process has ended by then."""
    last = "import sys; print('first', file=sys.stderr); sys.exit('no key')"
    words = ("--port", "0", "--give-up-after", "1", "--", sys.executable, "-c", last)
    async with started(*words) as running:
        (record, *_) = await running.logged("child.exited")
        assert record["last_words"] == ["first", "no key"]


@pytest.mark.usefixtures("without_posix")
async def test_a_save_takes_effect(tmp_path: Path) -> None:
    """In the same session, as elsewhere."""
    async with developing(tmp_path, source()) as on:
        session = await on.open()
        assert await on.tools(session) == ["one"]
        await on.saved(source(["one", "two"]))
        assert await on.tools(session) == ["one", "two"]


@pytest.mark.usefixtures("without_posix")
async def test_what_windows_cannot_do_is_refused_by_name() -> None:
    """A socket cannot be a pipe there, and no socket has a path in the file system."""
    status, said = await ran("--connect", "tcp:127.0.0.1:9")
    assert (status, "is not supported on Windows" in said) == (2, True)
    status, said = await ran("--listen", "unix:/tmp/mcp.sock", "--", *child("invalid_output"))
    assert (status, "this system has no unix sockets" in said) == (1, True)
