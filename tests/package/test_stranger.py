"""A stranger's first minutes: a machine with Python alone, the built wheel, and README.md.

Every command is taken from README.md as it stands there. Only `.`, the clone, is the wheel, and the
port is one that is free.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.bare_machine import BareMachine, bare_machine

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.M | re.S)
COMMANDS = {
    *re.findall(r"`([^`\n]+)`", FENCED.sub("", README)),
    *"".join(FENCED.findall(README)).splitlines(),
}
"""What README.md has as code."""
SERVER = (ROOT / "mcpbridge" / "demo.py").read_text("utf-8")
"""The stranger's own server, which needs nothing but Python."""

PROMISED_S = 60.0
"""A minute. On two busy cores the answer came after 1.1 s: load alone does not reach the bound."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> BareMachine:
    """A machine where README.md's installation with Python alone has been typed."""
    bare = bare_machine(tmp_path_factory.mktemp("machine"))
    (wheel,) = (ROOT / "dist").glob("*.whl")
    (bare.home / wheel.name).write_bytes(wheel.read_bytes())
    bare.has("server.py", SERVER)
    began = time.monotonic()
    bare.run(_installing().replace("pip install .", f"pip install ./{wheel.name}"))
    extra = _command("pip install '.[dev-proxy]'").replace("'.[", f"'./{wheel.name}[")
    bare.run(_activated(extra))
    print(f"installed, with the extra of mcpbridge dev, in {time.monotonic() - began:.0f} s")
    return bare


def _command(text: str) -> str:
    """A command, which has to stand in README.md."""
    assert text in COMMANDS, f"README.md does not have {text}"
    return text


def _installing() -> str:
    """The line of README.md's table that needs Python alone."""
    found = re.search(r"^\| Python alone \| `(.+)` \|$", README, re.M)
    assert found is not None
    return found[1]


def _activated(line: str) -> str:
    """A line in another terminal, which README.md says begins with the activation."""
    activation = ". .venv/bin/activate"
    assert activation in _installing()
    return f"{_command(activation)} && {line}"


def test_a_tool_of_the_own_server_answers(machine: BareMachine) -> None:
    """Served, listed, called and examined by what README.md names; Ctrl-C ends it.

    README.md's "The first minute" is a promise on time, so time is asserted: the call is answered
    within a minute of the server's command. The installation before it takes as long as the
    network does.
    """
    began = time.monotonic()
    with machine.running(_activated(_command("mcpbridge -- python server.py"))) as program:
        url = program.record("serve.ready")["url"]
        call = _activated(_command("mcpbridge call URL echo text=hello").replace("URL", url))
        assert machine.run(call) == "hello\n"
        answered_s = time.monotonic() - began
        print(f"answered {answered_s:.1f} s after the server's command was typed")
        assert answered_s < PROMISED_S
        listed = machine.run(_activated(_command("mcpbridge list URL").replace("URL", url)))
        assert "echo text=… - Say it again.\n" in listed
        place = url.removesuffix("/mcp").replace("127.0.0.1", "localhost")
        check = _command("mcpbridge doctor http://localhost:8000")
        said = machine.run(_activated(check.replace("http://localhost:8000", place)))
        assert said.endswith("Every check passed.\n")
    examined = machine.run(_activated(_command("mcpbridge doctor -- python server.py")))
    assert "It can be served:" in examined
    entry = machine.run(_activated(f"{_command('mcpbridge config-for claude-code')} 2>/dev/null"))
    assert "mcpServers" in json.loads(entry)


def test_a_save_takes_effect_and_the_page_is_there(machine: BareMachine) -> None:
    """The script lies in the home folder, as a first one may."""
    with machine.running(_activated(_command("mcpbridge dev -- python server.py"))) as program:
        told = program.record("dev.started")
        program.record("serve.ready")
        page, token = told["page"].split("#")
        assert token.startswith("token=")
        with urllib.request.urlopen(page) as answer:
            assert "<title>mcpbridge dev</title>" in answer.read().decode()
        machine.has("server.py", SERVER.replace("Say it again.", "Say it twice."))
        assert program.record("server.reloaded")["because"] == "server.py"
        listed = _command("mcpbridge list URL").replace("URL", told["address"])
        assert "echo text=… - Say it twice.\n" in machine.run(_activated(listed))


def test_a_command_that_ends_at_once_ends_it_with_the_cause(machine: BareMachine) -> None:
    """As README.md promises: the last words of the server, and what to do."""
    line = _command("mcpbridge -- python server.py").replace("server.py", "absent.py")
    said = machine.run(_activated(line), status=2)
    failed = json.loads(next(text for text in said.splitlines() if '"serve.gave_up"' in text))
    assert "No such file or directory" in failed["last_words"][-1]
    assert failed["hints"] == [
        f"there is no file {machine.folder}/absent.py: give the full path, or the folder with --cwd"
    ]
