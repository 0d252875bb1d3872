"""One real child from its spawn to its report, on both event loops."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from mcpbridge.errors import CommandNotExecutable, CommandNotFound, SpawnError
from mcpbridge.process.spec import ChildSpec
from mcpbridge.rules.faults import Exit
from mcpbridge.wire.messages import Notification, Request, Result
from tests.process.lives import (
    WITHIN_S,
    PipedChild,
    ended,
    gone,
    living,
    next_message,
    piped,
    spec,
)
from tests.support.proofs import proves


async def asked(child: PipedChild, method: str, params: Any = None) -> Any:
    """What a child answers."""
    child.channel.send(Request(b"1", method, json.dumps(params or {}).encode()))
    reply = await next_message(child)
    assert isinstance(reply, Result)
    return json.loads(reply.result)


async def heard(child: PipedChild) -> str:
    """The method of the next notification of a child."""
    message = await next_message(child)
    assert isinstance(message, Notification)
    return message.method


@proves("fault 98")
async def test_a_child_leads_a_group_and_a_session_of_its_own() -> None:
    """A signal to it or from a terminal reaches it and what it started, or the bridge, not both."""
    async with living(spec("invalid_output")) as child:
        seen = await asked(child, "x/look")
        assert seen["pid"] == seen["pgid"] == seen["sid"] == child.pid
        assert seen["pid"] != os.getpid()


@proves("fault 49")
async def test_a_child_has_three_descriptors_and_no_more() -> None:
    """Nothing the bridge has open is open in a child, be it inheritable."""
    inheritable = os.dup(0)
    os.set_inheritable(inheritable, True)
    try:
        async with living(spec("invalid_output")) as other, living(spec("invalid_output")) as child:
            assert (await asked(other, "x/look"))["fds"] == [0, 1, 2]
            assert (await asked(child, "x/look"))["fds"] == [0, 1, 2]
    finally:
        os.close(inheritable)


@proves("fault 50")
async def test_a_child_sees_the_environment_and_folder_of_its_spec(tmp_path: Path) -> None:
    """The environment is that of the spec; a broken pipe ends the child as it would a shell's."""
    (tmp_path / "server").write_text(f"#!/bin/sh\nexec {' '.join(spec('invalid_output').argv)}\n")
    (tmp_path / "server").chmod(0o755)
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "ONE": "1 = \n\N{SNOWMAN}"}
    command = ChildSpec(("./server",), env, str(tmp_path))
    async with living(command) as child:
        seen = await asked(child, "x/look")
    shell_made = {"PWD", "OLDPWD", "SHLVL", "_"}
    assert {name: seen["env"][name] for name in seen["env"].keys() - shell_made} == env
    assert seen["cwd"] == str(tmp_path)


async def test_a_child_starts_with_the_usual_signals() -> None:
    """No signal is ignored in a child that was not ignored before the bridge's interpreter began.

    Python itself ignores SIGPIPE; a child written in anything else must not find that.
    """
    command = spec("invalid_output")
    shell = msgspec.structs.replace(
        command, argv=("/bin/sh", "-c", "grep SigIgn /proc/self/status")
    )
    async with living(shell) as child:
        (line,) = await child.channel.receive()
        ignored = int(getattr(line, "sample").split()[1], 16)  # noqa: B009 - an invalid line
        assert not ignored >> (signal.SIGPIPE - 1) & 1


async def test_a_child_shows_its_process_and_where_it_is_in_its_life() -> None:
    """Nothing of its command or environment, which may hold secrets."""
    async with living(spec("invalid_output")) as child:
        assert repr(child) == f"<SubprocessChild pid={child.pid} running escaped=0>"
        child.stop()
        assert repr(child) == f"<SubprocessChild pid={child.pid} stopping escaped=0>"
        await ended(child)
        assert repr(child) == f"<SubprocessChild pid={child.pid} exited: {child.how} escaped=0>"


STEPS = [
    ("eof", ["x/eof"], Exit(code=0)),
    ("term", ["x/eof", "x/term"], Exit(code=7)),
    ("kill", ["x/eof", "x/term"], Exit(signal=signal.SIGKILL)),
]


@proves("fault 11", "fault 12", "C49")
@pytest.mark.slow
async def test_the_ladder_goes_as_far_as_it_must() -> None:
    """First end of file, then SIGTERM, then SIGKILL; stdout is read all the time."""

    async def stopped(obeys: str, wanted: list[str], how: Exit) -> None:
        async with living(spec("stopping", obeys)) as child:
            await asked(child, "x/echo")
            child.stop(1.0)
            assert [await heard(child) for _ in wanted] == wanted
            if obeys == "kill":
                assert child.how is None
                child.stop(0)
            report = await ended(child)
            assert (report.how, report.asked) == (how, True)

    async with anyio.create_task_group() as tasks:
        for step in STEPS:
            tasks.start_soon(stopped, *step)


@proves("fault 96")
async def test_a_shorter_grace_counts_on_the_rung_where_the_child_is() -> None:
    """When the bridge itself must end, a child that was given a minute has it no more."""
    async with living(spec("stopping", "kill")) as child:
        await asked(child, "x/echo")
        child.stop(600)
        assert await heard(child) == "x/eof"
        child.stop(900)
        child.stop(0)
        with anyio.fail_after(4):  # less than one step of the usual ladder
            assert (await ended(child)).how == Exit(signal=signal.SIGKILL)


async def test_what_a_child_says_while_it_ends_is_read_to_the_last_byte() -> None:
    """A child that obeys is not cut short: its last megabyte arrives whole."""
    async with living(spec("stopping", "eof")) as child:
        await asked(child, "x/echo")
        child.stop(WITHIN_S)
        # Nothing is read before the child is gone.
        assert (await ended(child)).how == Exit(code=0)
        message = await next_message(child)
        assert isinstance(message, Notification)
        assert len(message.params or b"") == len('{"text": ""}') + 1_000_000
        assert await child.channel.receive() == []


@proves("faults 5-8")
@pytest.mark.parametrize(
    ("method", "params", "how"),
    [
        ("x/crash", {"code": 3}, Exit(code=3)),
        ("x/crash", {"code": 0}, Exit(code=0)),
        ("x/kill", {"signal": signal.SIGKILL}, Exit(signal=signal.SIGKILL)),
        ("x/kill", {"signal": signal.SIGABRT}, Exit(signal=signal.SIGABRT)),
    ],
)
async def test_the_report_tells_how_a_child_ended(
    method: str, params: dict[str, int], how: Exit, caplog: pytest.LogCaptureFixture
) -> None:
    """Exit code or signal, the last words, and that the bridge had not asked it to."""
    async with living(spec("exiting")) as child:
        child.channel.send(Request(b"1", method, json.dumps(params).encode()))
        with anyio.fail_after(WITHIN_S):
            assert await child.channel.receive() == []
            await child.gone.wait()
        assert child.how == how
        report = await ended(child)
    words = ("first words", "secret last words") if method == "x/crash" else ()
    assert (report.how, report.asked, report.last_words) == (how, False, words)
    assert report.up_s > 0
    (record,) = [record for record in caplog.records if record.message == "child.exited"]
    assert vars(record)["how"] == str(how)
    assert vars(record)["last_words"] == list(words)


async def test_an_answer_without_a_line_end_is_the_childs_last() -> None:
    """What stands in the pipe when a child ends is read, and its end closes the last line."""
    async with living(spec("exiting")) as child:
        assert await asked(child, "x/unfinished") == {"good": True}
        assert await child.channel.receive() == []


@proves("fault 35")
@pytest.mark.slow
async def test_a_child_that_closes_its_stdout_is_stopped() -> None:
    """It can answer no request: its stdin is closed, and it ends."""
    async with living(spec("exiting")) as child:
        child.channel.send(Request(b"1", "x/mute"))
        with anyio.fail_after(WITHIN_S):
            assert await child.channel.receive() == []
        report = await ended(child)
        assert (report.how, report.asked) == (Exit(code=0), False)


@proves("fault 13", "C49")
@pytest.mark.slow
@pytest.mark.parametrize("manner", ["obeys", "ignores"])
async def test_a_group_ends_with_its_leader(manner: str, tmp_path: Path) -> None:
    """What a child started goes when it goes, by SIGTERM or else by SIGKILL."""
    left = tmp_path / "left"
    async with living(spec("group_member", str(left), manner)) as child:
        await asked(child, "x/echo")
        child.stop(0.5)
        assert (await ended(child)).how == Exit(code=0)
        await gone(int(left.read_text()))


@proves("fault 14")
@pytest.mark.slow
async def test_a_stdout_held_open_by_another_keeps_nobody_waiting(tmp_path: Path) -> None:
    """The end of the process counts and not the end of its pipe."""
    left = tmp_path / "left"
    async with living(spec("exiting", str(left))) as child:
        child.channel.send(Request(b"1", "x/orphan"))
        with anyio.fail_after(WITHIN_S):
            assert await child.channel.receive() == []
        assert child.how == Exit(code=5)
        assert not child.exited.is_set()
        child.stop(0)
        assert (await ended(child)).how == Exit(code=5)
        await gone(int(left.read_text()))


async def test_killing_spares_nobody(tmp_path: Path) -> None:
    """`kill` ends the group this instant, whatever it ignores."""
    left = tmp_path / "left"
    async with living(spec("group_member", str(left), "ignores")) as child:
        await asked(child, "x/echo")
        child.kill()
        assert (await ended(child)).how == Exit(signal=signal.SIGKILL)
        await gone(int(left.read_text()))
        child.kill()


@proves("fault 119")
async def test_cancelling_run_stops_the_child() -> None:
    """A child does not outlive its task; one that obeys takes no part of the grace."""
    child = piped(spec("invalid_output"))
    with anyio.fail_after(8):  # less than both rungs of the ladder
        async with anyio.create_task_group() as tasks:
            await tasks.start(child.run)
            await asked(child, "x/echo")
            tasks.cancel_scope.cancel()
    assert child.report is not None
    assert child.report.how == Exit(code=0)
    assert child.exited.is_set()
    await gone(child.pid)


@pytest.mark.slow
async def test_cancelling_run_stops_a_stubborn_child_too(tmp_path: Path) -> None:
    """The ladder is climbed down under cancellation as well."""
    child = piped(spec("stopping", "term"))
    with anyio.fail_after(WITHIN_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(child.run)
            await asked(child, "x/echo")
            child.stop(0.3)
            assert await heard(child) == "x/eof"
            tasks.cancel_scope.cancel()
    assert child.report is not None
    assert child.report.how in (Exit(code=7), Exit(signal=signal.SIGKILL))
    await gone(child.pid)


@proves("fault 1", "fault 16")
@pytest.mark.parametrize(
    ("argv", "kind", "word"),
    [
        (("no-such-command",), CommandNotFound, os.strerror(errno.ENOENT)),
        (("/no/such/command",), CommandNotFound, os.strerror(errno.ENOENT)),
        (("/",), CommandNotExecutable, os.strerror(errno.EACCES)),
        (("/etc/passwd",), CommandNotExecutable, os.strerror(errno.EACCES)),
        ((sys.executable, "-c", "x" * (1 << 20)), SpawnError, os.strerror(errno.E2BIG)),
    ],
)
async def test_a_command_that_cannot_be_started_is_named(
    argv: tuple[str, ...], kind: type[SpawnError], word: str
) -> None:
    """The error names the command and the system's reason, and leaves nothing open."""
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(kind) as caught:
        await piped(ChildSpec(argv, dict(os.environ))).run()
    assert caught.value.command == argv[0]
    assert word in str(caught.value)
    assert sorted(os.listdir("/proc/self/fd")) == before
