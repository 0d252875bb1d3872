"""Files that list servers: those that people have, and those that are wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mcpbridge.config.model import Settings
from mcpbridge.config.remote_server import RemoteServer
from mcpbridge.config.servers_file import (
    MAX_FILE_BYTES,
    FailedEntry,
    ServerEntry,
    ServersFile,
    find_servers_file,
    read_servers_file,
)
from mcpbridge.errors import ConfigError
from mcpbridge.process.spec import ChildSpec
from scripts.servers_schema import schema

VSCODE = """
{
  // VS Code writes comments, and people leave trailing commas.
  "inputs": [{"id": "gh", "type": "promptString", "description": "GitHub token", "password": true}],
  "servers": {
    "files": {"type": "stdio", "command": "npx", "args": ["-y", "fs", "${workspaceFolder}"]},
    "mine": {
      "command": "python", "args": ["server.py", 8], "envFile": "${workspaceFolder}/.env",
      "env": {"TOKEN": "${input:gh}", "REGION": "${AWS_REGION:-eu}", "GONE": null},
      "dev": {"watch": "src/**/*.py", "debug": {"type": "debugpy"}},
      "mcpbridge": {"isolation": "shared", "roots": ["${workspaceFolder}"], "start": "lazy",
                    "idle-stop": "10m", "deny-tool": ["*_secret"], "default": true}
    },
    "far": {"type": "http", "url": "https://mcp.example.org/mcp",
            "headers": {"X-Key": "${env:KEY}"}},
    "off": {"command": "x", "disabled": true},
  },
}
"""


def written(folder: Path, text: str, name: str = "mcp.json") -> Path:
    """A file with this text."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def served(**entries: str) -> str:
    """The text of a file with these servers."""
    return '{"servers": {' + ", ".join(f'"{n}": {text}' for n, text in entries.items()) + "}}"


def read(path: Path, env: Mapping[str, str] | None = None, **more: Any) -> ServersFile:
    """What the file says, under this environment."""
    return read_servers_file(path, Settings(), env or {}, **more)


def entry_of(file: ServersFile, name: str) -> ServerEntry:
    """An entry that can be served."""
    entry = file.servers[name]
    assert isinstance(entry, ServerEntry), str(entry)
    return entry


def test_the_inputs_of_an_entry_are_its_secrets(tmp_path: Path) -> None:
    """Wherever it refers to them; those of other entries are not its own."""
    servers = '{"a": {"command": "x", "args": ["--key=${input:a}"]}, "b": {"command": "x"}}'
    path = written(tmp_path, f'{{"servers": {servers}}}')
    file = read(path, {"MCPBRIDGE_INPUT_A": "sesame"})
    assert (entry_of(file, "a").secrets, entry_of(file, "b").secrets) == (("sesame",), ())


def test_the_file_of_vscode_is_read_as_it_is(tmp_path: Path) -> None:
    """Comments, inputs, envFile and settings of mcpbridge; its folder is the parent of .vscode."""
    written(tmp_path, 'A="quoted ${x}"\nexport B=b # c\nTOKEN=old\n', ".env")
    path = written(tmp_path, VSCODE, ".vscode/mcp.json")
    env = {"KEY": "k", "GONE": "here", "MCPBRIDGE_INPUT_GH": "secret", "HOME": "/h"}
    file = read(path, env)
    assert list(file.servers) == ["files", "mine", "far"]
    assert file.default == "mine"
    files = entry_of(file, "files").source
    assert isinstance(files, ChildSpec)
    assert files.argv == ("npx", "-y", "fs", str(tmp_path))
    assert files.cwd == str(tmp_path)
    mine = entry_of(file, "mine")
    assert isinstance(mine.source, ChildSpec)
    assert mine.source.argv == ("python", "server.py", "8")
    child = mine.source.env
    assert (child["TOKEN"], child["REGION"], child["HOME"]) == ("secret", "eu", "/h")
    assert (child["A"], child["B"]) == ("quoted ${x}", "b")
    assert "GONE" not in child
    assert "MCPBRIDGE_INPUT_GH" not in child
    assert (mine.watch, mine.roots) == (("src/**/*.py",), (str(tmp_path),))
    assert (mine.lazy, mine.idle_stop_s, mine.default) == (True, 600.0, True)
    assert mine.settings.child_pool.isolation.value == "shared"
    assert mine.settings.tools.denied == ("*_secret",)
    assert {"secret", "quoted ${x}"} <= set(mine.secrets)
    far = entry_of(file, "far")
    assert far.source == RemoteServer("https://mcp.example.org/mcp", (("x-key", "k"),))
    assert far.secrets == ("k",)


def test_the_file_of_claude_is_read_as_it_is(tmp_path: Path) -> None:
    """`mcpServers`, one server, which is the default without being marked."""
    text = '{"mcpServers": {"one": {"command": "${BIN:-python}", "args": ["-m", "x"]}}}'
    file = read(written(tmp_path, text, ".mcp.json"))
    source = entry_of(file, "one").source
    assert isinstance(source, ChildSpec)
    assert source.argv == ("python", "-m", "x")
    assert file.default == "one"


def test_entries_that_say_the_same_are_equal(tmp_path: Path) -> None:
    """So that a reload leaves their processes alone, however the file is formatted."""
    one = read(written(tmp_path, '{"servers": {"a": {"command": "x", "args": []}}}'))
    two = read(
        written(tmp_path, '// more\n{"servers": {"b": {"command": "y"}, "a": {"command": "x"}}}')
    )
    three = read(written(tmp_path, '{"servers": {"a": {"command": "x", "env": {"A": "1"}}}}'))
    assert entry_of(one, "a") == entry_of(two, "a")
    assert entry_of(one, "a") != entry_of(three, "a")


@pytest.mark.parametrize(
    ("entry", "field", "problem"),
    [
        ('"x"', "entry", "not an object"),
        ("{}", "command", "exactly one of command and url is needed"),
        ('{"command": "x", "url": "http://h"}', "command", "exactly one"),
        ('{"command": ""}', "command", "is empty"),
        ('{"command": ["x"]}', "command", "not a text"),
        ('{"command": "x", "type": "http"}', "type", "invalid value 'http' (expected stdio)"),
        ('{"command": "x", "args": "-y"}', "args", "not a list of texts"),
        ('{"command": "x", "args": [true]}', "args", "not a text"),
        ('{"command": "x", "cwd": "nowhere"}', "cwd", "is not a folder"),
        ('{"command": "x", "env": {"A": "${NOT_SET}"}}', "env.A", "NOT_SET is not set"),
        ('{"command": "x", "env": {"A": "${input:i}"}}', "env.A", "the input i has no value"),
        ('{"command": "x", "env": {"A": "\\u0000"}}', "env.A", "NUL"),
        ('{"command": "x", "envFile": "nowhere"}', "envFile", "No such file"),
        ('{"command": "x", "mcpbridge": {"isolaton": "shared"}}', "mcpbridge.isolaton", "unknown"),
        ('{"command": "x", "mcpbridge": {"isolation": "none"}}', "mcpbridge.isolation", "none"),
        ('{"command": "x", "mcpbridge": {"port": 1}}', "mcpbridge.port", "whole process"),
        ('{"command": "x", "mcpbridge": {"idle-stop": "soon"}}', "mcpbridge.idle-stop", "soon"),
        ('{"command": "x", "mcpbridge": {"start": "late"}}', "start", "expected eager, lazy"),
        ('{"command": "x", "mcpbridge": {"default": "yes"}}', "mcpbridge.default", "true or false"),
        ('{"url": "ftp://h"}', "url", "expected http:// or https://"),
        ('{"url": "http://h", "headers": {"A": "${NOT_SET}"}}', "headers.A", "NOT_SET is not set"),
        ('{"url": "http://h", "headers": {"Mcp-X": "a"}}', "headers.Mcp-X", "mcpbridge sets mcp-x"),
        ('{"url": "http://h", "headers": {"A": "b\\nc"}}', "headers.A", "no header may have"),
        ('{"url": "http://h", "headers": {"A": "b", "a": "c"}}', "headers.a", "given twice"),
        ('{"url": "http://u:p@h"}', "url", "a URL with credentials"),
    ],
)
def test_one_wrong_entry_fails_alone(tmp_path: Path, entry: str, field: str, problem: str) -> None:
    """Its field and what is wrong are named; the others are served."""
    path = written(tmp_path, served(bad=entry, good='{"command": "x"}'))
    file = read(path)
    failed = file.servers["bad"]
    assert isinstance(failed, FailedEntry)
    assert failed.field == field
    assert problem in failed.problem
    entry_of(file, "good")


@pytest.mark.parametrize(
    ("entry", "remedy"),
    [
        ('{"comand": "x"}', "write command in place of 'comand'"),
        ('{"Url": "http://h"}', "write url in place of 'Url'"),
        ("{}", 'write "command": "PROGRAM" or "url": "https://HOST/mcp"'),
        ('{"command": "x", "url": "http://h"}', "leave out all but one of command, url"),
    ],
)
def test_an_entry_without_one_source_is_told_what_to_write(
    tmp_path: Path, entry: str, remedy: str
) -> None:
    """The nearest of the members that are read, if one is near."""
    failed = read(written(tmp_path, served(bad=entry))).servers["bad"]
    assert isinstance(failed, FailedEntry)
    assert failed.remedy == remedy


def test_a_misspelt_setting_is_told_the_right_one(tmp_path: Path) -> None:
    """As on the command line."""
    text = '{"servers": {"a": {"command": "x", "mcpbridge": {"isolaton": "shared"}}}}'
    assert str(read(written(tmp_path, text)).servers["a"]) == (
        "a: mcpbridge.isolaton: unknown setting; did you mean isolation?"
    )


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\nb", "x" * 101])
def test_a_name_that_no_address_can_have_fails(tmp_path: Path, name: str) -> None:
    """The name is a segment of the path."""
    file = read(written(tmp_path, served(**{name: '{"command": "x"}'})))
    (failed,) = file.servers.values()
    assert isinstance(failed, FailedEntry)
    assert failed.field == "name"


def test_names_and_defaults_that_stand_twice_fail(tmp_path: Path) -> None:
    """One of two would be a guess."""
    text = '{"servers": {"a": {"command": "x"}}, "mcpServers": {"a": {"command": "y"}}}'
    assert isinstance(read(written(tmp_path, text)).servers["a"], FailedEntry)
    marked = '{"command": "x", "mcpbridge": {"default": true}}'
    file = read(written(tmp_path, served(a=marked, b=marked)))
    assert file.default == "a"
    assert isinstance(file.servers["b"], FailedEntry)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"servers": {\n "a" 1}}', "(line 2, column "),
        ('{"servers": {\n', "not JSON: Unexpected end of input (line 2, column 1)"),
        ('{"servers": {}, "servers": {}}', "Duplicate key"),
        ("[]", "not an object"),
        ("{}", "no object mcpServers or servers"),
        ('{"servers": []}', "no object mcpServers or servers"),
        ("[" * 100_000, "not JSON"),
        (" " * (MAX_FILE_BYTES + 1), "larger than 256 KiB"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, text: str, problem: str) -> None:
    """With its path, and the line if it has one."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)


def test_bytes_that_are_not_utf_8_and_a_missing_file_are_named(tmp_path: Path) -> None:
    """Neither is a traceback."""
    (tmp_path / "mcp.json").write_bytes(b'{"servers": {"\xff": 1}}')
    for path, problem in ((tmp_path / "mcp.json", "not UTF-8"), (tmp_path / "no", "No such file")):
        with pytest.raises(ConfigError, match=problem):
            read(path)


def test_an_input_is_asked_for_once_and_only_if_it_is_used(tmp_path: Path) -> None:
    """By its description; the environment is asked first."""
    asked: list[str] = []

    def ask(prompt: str) -> str | None:
        asked.append(prompt)
        return "typed"

    file = read(written(tmp_path, VSCODE.replace('"envFile": "${workspaceFolder}/.env",', "")),
                {"KEY": "k"}, ask=ask)  # fmt: skip
    source = entry_of(file, "mine").source
    assert isinstance(source, ChildSpec)
    assert source.env["TOKEN"] == "typed"
    assert asked == ["GitHub token"]
    assert isinstance(read(written(tmp_path, VSCODE), {"KEY": "k"}).servers["mine"], FailedEntry)


def test_the_first_file_of_a_folder_is_found(tmp_path: Path) -> None:
    """`.mcp.json` before `.vscode/mcp.json` before `mcp.json`."""
    assert find_servers_file(tmp_path) is None
    for name in ("mcp.json", ".vscode/mcp.json", ".mcp.json"):
        path = written(tmp_path, "{}", name)
        assert find_servers_file(tmp_path) == path


def test_nothing_of_it_is_imported_without_a_file() -> None:
    """A bridge of one server does not pay for the parser, nor for the table of names."""
    import subprocess

    program = (
        "import sys, mcpbridge.cli.serve, mcpbridge.config.load, mcpbridge.app.lifecycle\n"
        "own = ('json5', 'dotenv', 'mcpbridge.config.servers_file', 'mcpbridge.fleet',\n"
        "       'mcpbridge.app.servers', 'mcpbridge.app.server_routes',\n"
        "       'mcpbridge.telemetry.servers')\n"
        "print({name for name in sys.modules if name.startswith(own)})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_the_schema_has_the_keys_that_are_read(tmp_path: Path) -> None:
    """Each of them is known, whatever value it needs; those of the process are not among them."""
    keys = schema()["$defs"]["mcpbridge"]["properties"]
    assert {"default", "deny-tool", "idle-stop", "isolation", "request-timeout"} <= set(keys)
    assert not {"port", "config", "auth-token-file", "log-level"} & set(keys)
    for key in keys:
        entry = {"command": "x", "mcpbridge": {key: "x"}}
        found = read(written(tmp_path, served(a=json.dumps(entry)))).servers["a"]
        problem = found.problem if isinstance(found, FailedEntry) else ""
        assert "unknown" not in problem, key
        assert "whole process" not in problem, key
