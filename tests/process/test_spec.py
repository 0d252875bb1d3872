"""What a child is started with: its environment, its command, and how the log shows that."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from mcpbridge.errors import CommandNotExecutable, CommandNotFound, SpawnError
from mcpbridge.process.run_as import ChildUser
from mcpbridge.process.spec import ChildSpec, check_command, child_environment, shown
from tests.support.proofs import proves

STDIO = {"MCP_TRANSPORT": "stdio", "FASTMCP_TRANSPORT": "stdio"}
USUAL = {**STDIO, "PYTHONUNBUFFERED": "1"}
ENVIRONMENTS: list[tuple[dict[str, str], dict[str, str], dict[str, str]]] = [
    # the bridge's own, what the operator adds, what the child gets
    ({}, {}, USUAL),
    ({"PATH": "/bin", "HOME": ""}, {}, {**USUAL, "PATH": "/bin", "HOME": ""}),
    ({"MCPBRIDGE_AUTH_TOKEN": "s", "MCPBRIDGE_": "s"}, {}, USUAL),
    ({"XMCPBRIDGE_A": "1", "mcpbridge_": ""}, {}, {**USUAL, "XMCPBRIDGE_A": "1", "mcpbridge_": ""}),
    ({"MCP_TRANSPORT": "http", "FASTMCP_TRANSPORT": "sse"}, {}, USUAL),
    ({"MCP_HTTP_PATH": "/mcp", "MCP_SESSION_MANAGEMENT": "1"}, {}, USUAL),
    ({"PYTHONUNBUFFERED": ""}, {}, {**STDIO, "PYTHONUNBUFFERED": ""}),
    ({"A": "1"}, {"A": "2", "B": "3"}, {**USUAL, "A": "2", "B": "3"}),
    (
        {"MCPBRIDGE_PORT": "1"},
        {"MCPBRIDGE_PORT": "2", "MCP_TRANSPORT": "http", "MCP_HTTP_PATH": "/x"},
        {**USUAL, "MCPBRIDGE_PORT": "2", "MCP_TRANSPORT": "http", "MCP_HTTP_PATH": "/x"},
    ),
]  # fmt: skip


@proves("fault 50")
@pytest.mark.parametrize(("own", "added", "wanted"), ENVIRONMENTS)
def test_the_environment_of_a_child(
    own: dict[str, str], added: dict[str, str], wanted: dict[str, str]
) -> None:
    """The bridge's less what is the bridge's alone; what the operator adds wins."""
    before = dict(own), dict(added)
    assert child_environment(own, added) == wanted
    assert (own, added) == before


@proves("fault 50")
@pytest.mark.parametrize(
    ("allowed", "wanted"),
    [
        (("API_*", "exact"), {"PATH": "/bin", "LC_ALL": "C", "API_KEY": "k", "exact": "1"}),
        (("*",), {"PATH": "/bin", "LC_ALL": "C", "API_KEY": "k", "exact": "1", "DB_URL": "d"}),
        (("api_key", "MCPBRIDGE_*", "LISTEN_*"), {"PATH": "/bin", "LC_ALL": "C"}),
    ],
)
def test_an_environment_narrowed_to_a_list(
    allowed: tuple[str, ...], wanted: dict[str, str]
) -> None:
    """What every program needs and what is named pass; what is the bridge's never."""
    own = {"PATH": "/bin", "LC_ALL": "C", "API_KEY": "k", "exact": "1", "DB_URL": "d"}
    own |= {"MCPBRIDGE_STATE_KEY": "s", "LISTEN_FDS": "1"}
    found = child_environment(own, {"ADDED": "a"}, allowed)
    assert found == {**USUAL, **wanted, "ADDED": "a"}


def test_another_user_has_a_home_of_its_own() -> None:
    """The bridge's would not be readable; the operator may say otherwise."""
    own = {"HOME": "/root", "USER": "root", "LOGNAME": "root"}
    user = ChildUser(7, 7, (7,), "seven", "/home/seven")
    wanted = {**USUAL, "HOME": "/x", "USER": "seven", "LOGNAME": "seven"}
    assert child_environment(own, {"HOME": "/x"}, ("*",), user) == wanted
    unknown = child_environment(own, {}, (), ChildUser(7, 7, (7,), None, "/"))
    assert unknown == {**USUAL, "HOME": "/"}


def file(folder: Path, name: str, content: bytes, mode: int = 0o755) -> str:
    """A file with this mode, whatever the umask."""
    path = folder / name
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.fixture
def folder_on_path(tmp_path: Path) -> Path:
    """A folder of files that can be started and files that cannot."""
    file(tmp_path, "script", b"#!/bin/sh\nexit 0\n")
    file(tmp_path, "text", b"echo hello\n")
    file(tmp_path, "empty", b"")
    file(tmp_path, "plain", b"#!/bin/sh\nexit 0\n", mode=0o644)
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    return tmp_path


def check(folder_on_path: Path, command: str, cwd: str | None = None) -> None:
    """Check a command whose PATH is the folder_on_path."""
    check_command(ChildSpec((command, "argument"), {"PATH": f"/nowhere:{folder_on_path}"}, cwd))


@proves("fault 1")
@pytest.mark.parametrize(
    "form", ["{name}", "{folder_on_path}/{name}", "./{name}", "../{folder}/{name}"]
)
@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("script", None, ""),
        ("text", CommandNotExecutable, "text without a #! line"),
        ("empty", CommandNotExecutable, "text without a #! line"),
        ("plain", CommandNotExecutable, "not executable"),
        ("folder", CommandNotExecutable, "not executable"),
        ("nothing", CommandNotFound, ""),
        ("dangling", CommandNotFound, ""),
    ],
)
def test_a_command_is_looked_for_as_a_shell_would(
    folder_on_path: Path, form: str, name: str, kind: type[SpawnError] | None, word: str
) -> None:
    """On the child's PATH for a name, in the child's folder for a path."""
    command = form.format(name=name, folder_on_path=folder_on_path, folder=folder_on_path.name)
    if kind is None:
        check(folder_on_path, command, str(folder_on_path))
        return
    if name == "folder" and "/" not in command:
        kind, word = CommandNotFound, "not found on PATH"  # a shell does not look at folders there
    with pytest.raises(kind) as caught:
        check(folder_on_path, command, str(folder_on_path))
    assert str(caught.value).startswith(f"cannot start {command!r}: ")
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_relative_command_is_in_the_childs_folder(
    folder_on_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its own folder the child's is the bridge's, and with one only that counts."""
    monkeypatch.chdir(folder_on_path)
    check(folder_on_path, "./script")
    check(folder_on_path, "./script", ".")
    with pytest.raises(CommandNotFound, match="no such file"):
        check(folder_on_path, "./script", "folder")
    check(folder_on_path, "../script", "folder")


def test_only_the_childs_path_counts(folder_on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge may be told to give its child another PATH than its own."""
    monkeypatch.setenv("PATH", str(folder_on_path))
    with pytest.raises(CommandNotFound, match="not found on PATH"):
        check_command(ChildSpec(("script",), {"PATH": "/nowhere"}))
    # Where there is none at all the system's own is used.
    check_command(ChildSpec(("sh",), {}))


def test_programs_may_be_started(folder_on_path: Path) -> None:
    """A binary is not a text, nor is a file that cannot be read but executed."""
    check_command(ChildSpec((sys.executable,), {}))
    check(folder_on_path, file(folder_on_path, "binary", b"\x00\x01\x02"))
    hidden = file(
        folder_on_path, "hidden", b"#!/bin/sh\n", mode=stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
    )
    assert os.access(hidden, os.X_OK)
    check(folder_on_path, hidden)


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        (("python", "server.py", "--port", "1"), "python server.py --port 1"),
        (("a b", "c'd"), """'a b' 'c'"'"'d'"""),
        (("s", "--api-key", "sk-1", "--name", "x"), "s --api-key '***' --name x"),
        (("s", "--api-key=sk-1"), "s '--api-key=***'"),
        (("s", "GITHUB_TOKEN=ghp"), "s 'GITHUB_TOKEN=***'"),
        (("s", "--password", "--verbose"), "s --password '***'"),
        (("s", "--Secret=a=b"), "s '--Secret=***'"),
        (("token-server", "x"), "token-server x"),
    ],
)
def test_secrets_in_a_command_are_not_shown(argv: tuple[str, ...], wanted: str) -> None:
    """The start-up line names the command without the values that look like secrets."""
    assert shown(argv) == wanted
