"""The log of a developer: what is shown, and how."""

from __future__ import annotations

import logging
import re

import pytest

from mcpbridge.dev.program import because_of, client_entry, name_of
from mcpbridge.dev.terminal_log import TerminalFormatter

NPX = ("npx", "-y", "@scope/server", "stdio")


def shown(
    event: str,
    fields: dict[str, object],
    *,
    argv: tuple[str, ...] = NPX,
    colored: bool = False,
) -> str:
    """A record as text, without its time of day."""
    record = logging.makeLogRecord({"msg": event, "levelno": logging.INFO, **fields})
    text = TerminalFormatter(argv, colored=colored).format(record)
    plain = re.sub(r"\A(\x1b\[2m)?\d\d:\d\d:\d\d(\x1b\[0m)? ", "", text)
    assert plain != text
    return plain


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"method": "x", "tool": "greet", "outcome": "ok", "ms": 0.3}, r"greet +<1 ms  ok"),
        ({"method": "tools/list", "outcome": "ok", "ms": 12.0}, r"tools/list +12 ms  ok"),
        (
            {"method": "x", "outcome": "fault", "ms": 1.0, "reason": "child_exited"},
            r"x +1 ms  fault \(child_exited\)",
        ),
        ({"method": "a\x1b[2Jb", "outcome": "error", "ms": 1.0}, r"a\\x1b\[2Jb +1 ms  error"),
    ],
)  # fmt: skip
def test_a_call_has_one_line(fields: dict[str, object], line: str) -> None:
    """Its name, milliseconds and outcome; a name cannot control the terminal."""
    assert re.fullmatch(line, shown("call.finished", fields))


def test_the_outcome_is_coloured_on_a_terminal() -> None:
    """What went wrong is seen at once."""
    facts: dict[str, object] = {"method": "x", "ms": 1.0}
    good = shown("call.finished", {**facts, "outcome": "ok"}, colored=True)
    bad = shown("call.finished", {**facts, "outcome": "tool_error"}, colored=True)
    assert good.endswith("\x1b[32mok\x1b[0m")
    assert bad.endswith("\x1b[31mtool_error\x1b[0m")


def test_the_words_of_the_server_are_marked() -> None:
    """And cannot control the terminal."""
    assert shown("child.stderr", {"pid": 1, "line": "up \x07"}) == "stderr │ up \\x07"


def test_a_server_that_cannot_start_is_said_with_what_starts_it_again() -> None:
    """Once: the next start is asked for."""
    says = "not served: it ended; starts again when a watched file is saved or a client asks"
    assert shown("child.start_held", {"problem": "it ended"}) == says


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (NPX, "; npx may be fetching @scope/server stdio"),
        (("uvx", "mcp-server-time"), "; uvx may be fetching mcp-server-time"),
        (("python", "server.py"), ""),
    ],
)
def test_a_slow_start_says_what_it_waits_for(argv: tuple[str, ...], hint: str) -> None:
    """A command that fetches its package may take minutes the first time."""
    facts: dict[str, object] = {"waited_s": 6, "for": "the answer to initialize"}
    line = shown("child.starting", facts, argv=argv)
    assert line == f"waiting for the answer to initialize, for 6 s{hint}"


def test_a_failed_reload_says_why_and_what_serves() -> None:
    """The last word of the server is its error."""
    line = shown(
        "server.reload_failed",
        {
            "because": "server.py",
            "problem": "the MCP server process ended (exit code 1)",
            "last_words": ["  File", "SyntaxError: invalid syntax"],
            "serves": "the process before",
        },
    )
    assert line == (
        "not reloaded: server.py: the MCP server process ended (exit code 1):"
        " SyntaxError: invalid syntax; the process before serves until the next change"
    )


def test_what_says_nothing_new_is_left_out() -> None:
    """Unless everything is asked for; other events keep the form that they have elsewhere."""
    form = TerminalFormatter(NPX)
    quiet = logging.makeLogRecord({"msg": "child.started", "levelno": logging.INFO})
    other = logging.makeLogRecord({"msg": "session.evicted", "levelname": "INFO", "idle_s": 3})
    assert (form.filter(quiet), form.filter(other)) == (False, True)
    assert form.format(other).endswith("session.evicted idle_s=3")
    root = logging.getLogger()
    level = root.level
    try:
        root.setLevel(logging.DEBUG)
        assert form.filter(quiet)
    finally:
        root.setLevel(level)


def test_each_line_names_its_server_if_there_are_several() -> None:
    """The first line says which servers there are; a wait names what its own command fetches."""
    form = TerminalFormatter((), commands={"far": NPX, "near": ("python", "server.py")})

    def line(event: str, **fields: object) -> str:
        record = logging.makeLogRecord({"msg": event, "levelno": logging.INFO, **fields})
        assert form.filter(record)
        return form.format(record).partition(" ")[2]

    call = {"tool": "greet", "outcome": "ok", "ms": 0.3}
    assert line("call.finished", server_name="near", **call).startswith("[near] greet ")
    waits = {"for": "the handshake", "waited_s": 5}
    assert line("child.starting", server_name="far", **waits).endswith(
        "fetching @scope/server stdio"
    )
    assert line("child.starting", server_name="near", **waits).endswith("for 5 s")
    several = {"servers": ["far", "near"], "config": "a.json", "url": "http://x/servers"}
    told = line("serve.started", **several)
    assert told == "serving far, near of a.json; states: http://x/servers"
    record = logging.makeLogRecord({"msg": "serve.started", "levelno": logging.INFO})
    assert not TerminalFormatter(NPX).filter(record)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python server.py", "server"),
        ("python src/my_server.py --flag", "my_server"),
        ("npx -y @modelcontextprotocol/server-everything", "server-everything"),
        ("npx -y some-server@1.2.3", "some-server"),
        ("python -m mcp_server_time", "mcp_server_time"),
        ("uv run server.py", "server"),
        ("node dist/index.js", "node"),
        ("./x", "my-server"),
    ],
)
def test_a_server_is_named_after_its_command(command: str, name: str) -> None:
    """In the entry that a person pastes into a client's configuration."""
    assert name_of(command.split()) == name
    assert (
        client_entry(name, "u") == f'{{"mcpServers": {{"{name}": {{"type": "http", "url": "u"}}}}}}'
    )


def test_changed_files_are_named_and_many_counted() -> None:
    """A change of branch touches hundreds."""
    assert because_of(["a.py"]) == "a.py"
    assert because_of(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
