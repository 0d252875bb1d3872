"""`mcpbridge verify`: a server is asked again what a recording holds."""

from __future__ import annotations

import stat
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from mcpbridge.tape.recording import read_recording
from tests.support.bridge_process import DEMO, bridge, ran
from tests.support.recorded import recorded

pytestmark = pytest.mark.slow

CALLS = [
    ("tools/list", {}),
    ("tools/call", {"name": "echo", "arguments": {"text": "café \u2028"}}),
    ("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}}),
    ("tools/call", {"name": "fail", "arguments": {"message": "no"}}),
]


def changed(old: str, new: str) -> tuple[str, ...]:
    """The demo with another text in its source."""
    script = (
        "import mcpbridge.demo as demo, pathlib;"
        f"text = pathlib.Path(demo.__file__).read_text('utf-8').replace({old!r}, {new!r});"
        "exec(compile(text, 'demo', 'exec'), {'__name__': '__main__'})"
    )
    return (sys.executable, "-c", script)


LOUDER = changed('"Say it again."', '"Say it louder."')


async def test_the_same_server_has_the_same_answers(tmp_path: Path) -> None:
    """From a command, and at the URL of a bridge."""
    path = tmp_path / "tape.jsonl"
    await recorded(path, CALLS)
    status, told = await ran("verify", str(path), "--", *DEMO)
    assert (status, told.splitlines()[-1]) == (0, "5 requests: 0 with another answer")
    assert told.splitlines()[1] == "ok    tools/list"
    async with bridge() as running:
        status, told = await ran("verify", str(path), f"{running.url}/mcp")
    assert (status, told.splitlines()[-1]) == (0, "5 requests: 0 with another answer"), told


async def test_a_changed_server_is_told_by_the_path(tmp_path: Path) -> None:
    """As text and as JUnit; unless the path is ignored, or the recording is updated."""
    path = tmp_path / "tape.jsonl"
    await recorded(path, CALLS)
    before = path.read_bytes()
    status, told = await ran("verify", str(path), "--", *LOUDER)
    assert status == 1
    line = '$.result.tools[0].description: recorded "Say it again.", now "Say it louder."'
    assert told.splitlines()[1:3] == ["DIFF  tools/list", f"      {line}"]
    status, told = await ran("verify", str(path), "--format", "junit", "--", *LOUDER)
    assert status == 1
    suites = ET.fromstring(told)
    assert (suites.get("tests"), suites.get("failures")) == ("5", "1")
    (failure,) = suites.iter("failure")
    assert (failure.get("message"), failure.text) == (line, line)
    ignored = ("--ignore", "tools/list:$.result.tools[*].description")
    status, told = await ran("verify", str(path), *ignored, "--", *LOUDER)
    assert status == 0
    assert path.read_bytes() == before
    status, told = await ran("verify", str(path), "--update", "--", *LOUDER)
    assert (status, f"1 answers of {path} replaced" in told) == (0, True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_recording(path).frames) == before.count(b"\n")
    old, new = before.splitlines(), path.read_bytes().splitlines()
    assert [now for then, now in zip(old, new, strict=True) if then != now] == [
        each.replace(b"Say it again.", b"Say it louder.")
        for each in old
        if b"Say it again." in each
    ]
    assert (await ran("verify", str(path), "--", *LOUDER))[0] == 0
    assert (await ran("verify", str(path), "--", *DEMO))[0] == 1


async def test_a_server_that_ends_has_no_answer(tmp_path: Path) -> None:
    """The requests before it have theirs; one that never answers is not reached at all."""
    path = tmp_path / "tape.jsonl"
    await recorded(path, CALLS)
    head = "def add(call: Call) -> Fields:\n"
    ends = changed(head, f"{head}    import os; os._exit(3)\n")
    status, told = await ran("verify", str(path), "--", *ends)
    assert status == 1
    assert told.splitlines()[2:] == [
        "ok    tools/call echo",
        "DIFF  tools/call add",
        "      no answer: the server ended before it answered tools/call",
        "DIFF  tools/call fail",
        "      no answer: the server has ended",
        "5 requests: 2 with another answer",
    ]
    silent = (sys.executable, "-c", "import sys; sys.stdin.read()")
    status, told = await ran("verify", str(path), "--timeout", "200ms", "--", *silent)
    assert (status, "no answer to initialize within 0.2 s (--timeout)" in told) == (3, True)
    status, told = await ran("verify", str(path), "--", "no-such-program")
    assert (status, "no-such-program" in told) == (3, True)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "give a URL, or a command after --"),
        (["--ignore", "x", "--", *DEMO], "'x' is not a JSON path"),
        (["--server", "other", "--", *DEMO], "has no server 'other' (it has demo)"),
    ],
)
async def test_wrong_words_are_one_error(tmp_path: Path, words: list[str], problem: str) -> None:
    """That says what would be right."""
    path = tmp_path / "tape.jsonl"
    await recorded(path, [])
    status, told = await ran("verify", str(path), *words)
    assert (status, problem in told) == (2, True), told
