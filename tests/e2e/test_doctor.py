"""`mcpbridge doctor -- COMMAND`: what is said of healthy and unhealthy servers."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bridge_process import DEMO, bridge, child, eventually, marked
from tests.support.doctor import DoctorRun, doctor

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

SOON = ("--timeout", "7s")
PATIENT = ("--timeout", "50s")
UNHEALTHY = (
    *("missing", "usage", "tty", "keyless", "done", "noisy", "framed", "http", "deaf", "rooted"),
    *("browser", "paged", "devtools", "stalled", "misnumbered", "late"),
)
Reports = dict[str, Any]


async def examined(*command: str, words: tuple[str, ...] = ()) -> Any:
    """The report on a command; that it agrees with the exit status."""
    said = await doctor("--json", *SOON, *words, "--", *command)
    assert said.err == ""
    assert said.status == (0 if said.report["served"] else 1)
    return said.report


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """The report on each kind of server; looked at all at once, since most of it is waiting."""
    folder = tmp_path_factory.mktemp("records")
    commands = {kind: child("unhealthy", kind) for kind in UNHEALTHY}
    commands["slow"] = child("unhealthy", "slow", "4")
    commands["ignoring_sigterm"] = child("ignoring_sigterm")
    commands["modern"] = child("modern", str(folder))
    commands["dual"] = child("eras", "dual", str(folder))
    kept_back = {kind: child("unhealthy", kind) for kind in ("hoarding", "behind")}
    found = await asyncio.gather(
        *(examined(*command) for command in commands.values()),
        *(examined(*command, words=PATIENT) for command in kept_back.values()),
    )
    named = dict(zip([*commands, *kept_back], found, strict=True))
    return {**named, "records": folder}


def causes(report: Any) -> str:
    """Every cause it names."""
    return "; ".join(hint["cause"] for hint in report["hints"])


async def test_the_demo_is_in_good_health() -> None:
    """Everything that can be said of a server, as JSON and in words."""
    report, said = await asyncio.gather(examined(*DEMO), doctor("--", *DEMO))
    assert (report["served"], report["outcome"], report["problem"]) == (True, "answered", None)
    assert 0 < report["handshake_s"] < 8
    assert (report["legacy"], report["modern"]) == (True, False)
    assert report["revisions"] == ["2024-11-05", "2025-11-25"]
    assert (report["name"], report["version"]) == ("mcpbridge-demo", "1.0.0")
    assert report["capabilities"] == ["completions", "logging", "prompts", "resources", "tools"]
    assert report["tools"]["count"] == len(report["tools"]["names"]) == 6
    assert report["tools"]["bytes"] > 500
    assert (report["prompts"]["count"], report["resources"]["count"]) == (1, 2)
    assert (report["noise"], report["buffering"], report["questions"]) == (None, "none", [])
    assert report["memory"]["processes"] == 1
    assert 1 << 20 < report["memory"]["bytes"] < 1 << 27
    assert report["ending"]["by"] == "end_of_input"
    assert report["ending"]["how"] == "exit code 0"
    assert report["hints"] == []
    assert [flag["words"] for flag in report["flags"]] == [["--child-era", "legacy"]]
    assert (said.status, said.err) == (0, "")
    for part in ("ok", "6 tools", "echo", "It can be served:", report["command_line"]):
        assert part in said.out


async def test_the_line_that_it_gives_serves_the_server() -> None:
    """As it is printed, with the flags that the doctor was given."""
    words = ("--env", "GREETING=hello there", "--cwd", "/")
    line = shlex.split((await examined(*child("invalid_output"), words=words))["command_line"])
    assert line[:5] == ["mcpbridge", "--env", "GREETING=hello there", "--cwd", "/"]
    async with bridge(*line[1:]) as running, running.client() as client:
        body = {"jsonrpc": "2.0", "id": 1, "method": "x/look"}
        seen = (await client.post("/mcp", json=body)).json()["result"]
        assert (seen["env"]["GREETING"], seen["cwd"]) == ("hello there", "/")


async def test_it_starts_a_server_as_the_bridge_does(tmp_path: Path) -> None:
    """Its environment policy, its variables; what looks like a secret is not repeated."""
    show = "import os, sys; print(sorted(os.environ.items()), file=sys.stderr)"
    variables = tmp_path / "variables"
    variables.write_text("FROM_FILE=1\n")
    words = ("--env", "ACME_TOKEN=s3cret", "--env-file", str(variables))
    said = await doctor(
        "--json",
        *words,
        "--",
        *(sys.executable, "-c", show),
        env={"MCPBRIDGE_LOG_LEVEL": "debug", "MCP_TRANSPORT": "http", "MCP_HTTP_PATH": "/x"},
    )
    (seen,) = said.report["stderr"]
    for pair in ("('ACME_TOKEN', 's3cret')", "('FROM_FILE', '1')", "('MCP_TRANSPORT', 'stdio')"):
        assert pair in seen
    assert "'MCPBRIDGE_" not in seen
    assert "MCP_HTTP_PATH" not in seen
    well = await doctor("--env", "ACME_TOKEN=s3cret", "--", *child("unhealthy", "well"))
    assert "--env 'ACME_TOKEN=***'" in well.out
    assert "s3cret" not in well.out


@pytest.mark.parametrize(
    ("kind", "outcome", "problem", "cause"),
    [
        ("missing", "ended", "exit code 1", "Python module a_module_that_is_not_installed"),
        ("usage", "ended", "exit code 2", "it prints its usage"),
        ("tty", "ended", "exit code 1", "it wants a terminal"),
        ("keyless", "ended", "exit code 1", "it misses a variable (ACME_API_KEY)"),
        ("done", "ended", "exit code 0", "it ended as if all were done"),
    ],
)
async def test_a_server_that_ends_at_once(
    reports: Reports, kind: str, outcome: str, problem: str, cause: str
) -> None:
    """How it ended, its last words, and the everyday cause they point to."""
    report = reports[kind]
    assert (report["outcome"], report["served"]) == (outcome, False)
    assert problem in report["problem"]
    assert cause in causes(report)
    assert all(hint["remedy"] for hint in report["hints"])
    assert report["ending"]["by"] == "itself"
    assert bool(report["stderr"]) == (kind != "done")
    assert report["command_line"] is None


async def test_a_command_that_cannot_be_started(tmp_path: Path) -> None:
    """Not there, not executable, all in one word, with words of a shell."""
    script = tmp_path / "server.sh"
    script.write_text("#!/bin/sh\n")
    missing, plain, one, shell = await asyncio.gather(
        examined("no-such-command-here"),
        examined(str(script)),
        examined("python server.py"),
        examined("no-such-command-here", "|", "tee"),
    )
    assert [r["outcome"] for r in (missing, plain, one)] == [
        "not_found",
        "not_executable",
        "not_found",
    ]
    assert "not found on PATH" in missing["problem"]
    assert "no program 'no-such-command-here'" in causes(missing)
    assert "cannot be run" in causes(plain)
    assert "as one word" in causes(one)
    assert "'|' is shell syntax" in causes(shell)


async def test_a_noisy_server_can_be_served(reports: Reports) -> None:
    """What it prints is counted and shown; frames of language servers are told apart."""
    noisy, framed = reports["noisy"], reports["framed"]
    assert (noisy["served"], noisy["noise"]["lines"]) == (True, 3)
    assert noisy["noise"]["sample"][:2] == ["Server ready!", "handling initialize"]
    assert "prints lines on stdout" in causes(noisy)
    assert (framed["served"], causes(framed)) == (True, "it writes heads before its messages")


async def test_a_server_that_keeps_its_answers_back(reports: Reports) -> None:
    """Until its input ends, or until more comes; said long before the time-out."""
    hoarding, behind = reports["hoarding"], reports["behind"]
    for report, buffering in ((hoarding, "until_the_end_of_input"), (behind, "until_more_is_sent")):
        assert (report["served"], report["outcome"]) == (False, "silent")
        assert report["buffering"] == buffering
        assert "it keeps its answers in a buffer" in causes(report)
        assert "keeps its answers in a buffer" in report["problem"]


async def test_a_slow_server_and_one_that_never_answers(reports: Reports) -> None:
    """Slow is not a fault; silence is, and the signs of a server of another kind are seen."""
    slow, web = reports["slow"], reports["http"]
    assert (slow["served"], slow["buffering"], slow["problem"]) == (True, "none", None)
    assert slow["handshake_s"] >= 4
    assert (web["served"], web["outcome"], web["buffering"]) == (False, "silent", "none")
    assert "did not answer initialize within 7 s" in web["problem"]
    assert "it serves HTTP and not stdio" in causes(web)


async def test_a_server_that_ignores_the_end_of_its_input(reports: Reports) -> None:
    """The rung of the ladder that it took is told."""
    deaf, ignoring = reports["deaf"], reports["ignoring_sigterm"]
    assert (deaf["served"], deaf["ending"]["by"]) == (True, "SIGTERM")
    assert (ignoring["served"], ignoring["ending"]["by"]) == (True, "SIGKILL")
    assert (ignoring["memory"]["processes"], ignoring["ending"]["how"]) == (2, "signal 9")


async def test_a_server_that_takes_its_time_to_end(reports: Reports) -> None:
    """It is given a fair wait before it is said to stay."""
    ending = reports["late"]["ending"]
    assert (ending["by"], ending["how"]) == ("end_of_input", "exit code 0")
    assert ending["seconds"] >= 3


async def test_a_server_that_never_lists_its_tools_cannot_be_served(reports: Reports) -> None:
    """Though it introduces itself: no client could use it."""
    report = reports["stalled"]
    assert (report["served"], report["outcome"]) == (False, "stalled")
    assert report["problem"] == "it does not answer tools/list (waited 7 s)"
    assert "not tools/list" in causes(report)
    assert report["command_line"] is None
    words = await doctor(*SOON, "--", *child("unhealthy", "stalled"))
    assert (words.status, "can be served:" in words.out) == (1, False)


async def test_a_server_that_answers_under_another_id(reports: Reports) -> None:
    """The id is named: its answers are there, and no client would take them."""
    report = reports["misnumbered"]
    assert (report["served"], report["outcome"]) == (False, "silent")
    assert report["problem"] == "it did not answer initialize under its id 1, but under 99"


async def test_the_processes_are_said(reports: Reports) -> None:
    """How many the report took, and how many the bridge will run."""
    assert reports["paged"]["started"] == 3
    assert reports["done"]["started"] == 2
    shared, asked, window = await asyncio.gather(
        *(doctor("--", *child("unhealthy", kind)) for kind in ("paged", "rooted", "devtools"))
    )
    assert "was started 3 times for this report; mcpbridge runs one for all clients" in shared.out
    assert "and one more for each client that can be asked" in asked.out
    assert "mcpbridge runs one for each session" in window.out


async def test_a_server_of_2026_07_28_alone(reports: Reports) -> None:
    """Asked in its own terms; each process is asked one kind of thing, and no tool is called."""
    modern, dual = reports["modern"], reports["dual"]
    assert (modern["legacy"], modern["modern"]) == (False, True)
    assert modern["revisions"] == ["2026-07-28"]
    assert modern["name"] == "modern"
    assert modern["tools"]["count"] == 16
    assert modern["flags"][0]["words"] == ["--child-era", "modern"]
    assert (dual["legacy"], dual["modern"]) == (True, True)
    assert dual["flags"][0]["words"] == ["--child-era", "dual"]
    for record in reports["records"].iterdir():
        methods = record.read_bytes()
        assert not (b'"server/discover"' in methods and b'"initialize"' in methods)
        assert b"tools/call" not in methods


async def test_what_a_server_asks_its_client(reports: Reports) -> None:
    """A client that offers roots is asked for them, without any call."""
    report = reports["rooted"]
    assert (report["served"], report["questions"]) == (True, ["roots/list"])


async def test_what_a_server_offers_decides_the_flags(reports: Reports) -> None:
    """Windows are not shared; messages near the bound raise it; pages are read to the last."""
    window, paged = reports["browser"], reports["paged"]
    limited = {"MCPBRIDGE_MAX_MESSAGE_BYTES": "1MiB"}
    big = await doctor("--json", "--", *child("unhealthy", "big"), env=limited)
    for report in (window, reports["devtools"]):
        assert ["--isolation", "session"] in [flag["words"] for flag in report["flags"]]
    assert paged["flags"] == [flag for flag in window["flags"] if "--child-era" in flag["words"]]
    assert big.report["overlong_bytes"] > 3_000_000
    assert ["--max-message-bytes", "8MiB"] in [flag["words"] for flag in big.report["flags"]]
    assert (paged["tools"]["count"], paged["tools"]["pages"]) == (3, 3)


WRONG: dict[tuple[str, ...], str] = {
    (): "no MCP server to start",
    ("http://localhost:1", "--", "true"): "either a URL or",
    ("--as", "mcp-operator", "--", "true"): "give its URL",
    ("--as", "somebody", "http://localhost:1"): "somebody",
    ("--timeout", "soon", "--", "true"): "soon",
    ("--env", "nothing", "--", "true"): "NAME=VALUE",
    ("--cwd", "/no/such/folder", "--", "true"): "folder",
    ("--jsn", "--", "true"): "--json",
    ("ftp://localhost",): "not an http URL",
    ("--retry-wait", "x", "http://localhost:1"): "--retry-wait",
}


async def test_wrong_use_is_2() -> None:
    """With the reason on stderr, and nothing started."""
    runs = await asyncio.gather(*(doctor(*words) for words in WRONG))
    for said, (words, part) in zip(runs, WRONG.items(), strict=True):
        assert (said.status, said.out) == (2, ""), words
        assert part in said.err


def runs(mark: str, program: str) -> bool:
    """Whether a process runs that program; one that has just been forked is still its parent."""
    for pid in marked(mark):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text("utf-8").split("\0")
            if len(words) > 1 and words[1].endswith(program):
                return True
    return False


async def test_whoever_interrupts_it_leaves_nothing_behind() -> None:
    """Ctrl-C ends the server that it was looking at."""
    mark = "doctor-interrupted-" + os.urandom(8).hex()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mcpbridge", "doctor", "--", *child("starting", "silent")),
        env={**os.environ, "BRIDGE_TEST_RUN": mark},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await eventually(lambda: runs(mark, "starting.py"), "the server runs")
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")
    assert marked(mark) == set()


async def test_a_doctor_that_is_killed_leaves_nothing_behind() -> None:
    """Not even a server that stays when its input ends."""
    mark = "doctor-killed-" + os.urandom(8).hex()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mcpbridge", "doctor", "--"),
        *(sys.executable, "-c", "import time; time.sleep(300)"),
        env={**os.environ, "BRIDGE_TEST_RUN": mark},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await eventually(lambda: runs(mark, "-c"), "the server runs")
    process.kill()
    await process.wait()
    await eventually(lambda: marked(mark) == set(), "the server has ended")


async def test_who_waits_at_a_terminal_sees_what_is_done() -> None:
    """Progress stands on stderr, and only if it is a terminal."""
    said: DoctorRun = await doctor("--", *child("unhealthy", "well"))
    assert said.err == ""
    ours, terminal = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mcpbridge", "doctor", "--", *child("unhealthy", "well")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    seen = await asyncio.to_thread(_until_hang_up, ours)
    assert await process.wait() == 0
    assert "… starting the server for the handshake" in seen.decode()


def _until_hang_up(terminal: int) -> bytes:
    """What is written to a terminal until no process has it open any more; closes it."""
    seen = bytearray()
    with open(terminal, "rb", buffering=0) as opened:
        while True:
            try:
                seen += opened.read(4096)
            except OSError as error:
                if error.errno != errno.EIO:  # what Linux says when the last of them has closed it
                    raise
                return bytes(seen)
