"""What a child writes to people: drained whatever it is, logged in measure, its end remembered."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from mcpbridge.process.stderr import StderrDrain
from tests.process.lives import WITHIN_S
from tests.support.proofs import proves

LOG_BYTES_PER_S = 64 << 10


@contextmanager
def draining() -> Iterator[tuple[StderrDrain, int]]:
    """An open drain, and the end that a child would write to; closed with the block."""
    read, write = os.pipe()
    drain = StderrDrain(read, 4711)
    try:
        with drain.open():
            yield drain, write
    finally:
        os.close(write)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of the child's words."""
    caplog.set_level(logging.INFO, "mcpbridge.child")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    """The lines that were logged."""
    return lines_of(log.records)


def lines_of(records: list[logging.LogRecord]) -> list[str]:
    """The lines in these records."""
    return [vars(record)["line"] for record in records if record.message == "child.stderr"]


def suppressed(log: pytest.LogCaptureFixture) -> int:
    """How many lines the log says it left out."""
    return sum(
        vars(record)["lines"]
        for record in log.records
        if record.message == "child.stderr_suppressed"
    )


async def until(condition: Any) -> None:
    """Let the loop go round until it is so."""
    with anyio.fail_after(WITHIN_S):
        while not condition():
            await checkpoint()


@proves("fault 33", "C50")
async def test_each_line_is_a_record(log: pytest.LogCaptureFixture) -> None:
    """Lines are logged as they end, with the process they came from."""
    with draining() as (drain, write):
        os.write(write, b"one\ntwo\r\n\nthr")
        await until(lambda: len(lines(log)) == 2)
        assert lines(log) == ["one", "two"]
        os.write(write, b"ee\n")
        await until(lambda: len(lines(log)) == 3)
        assert drain.tail == ("one", "two", "three")
    assert {vars(record)["pid"] for record in log.records} == {4711}


async def test_bytes_that_are_no_text_are_shown_as_such(log: pytest.LogCaptureFixture) -> None:
    """Invalid UTF-8 is escaped, and a line stays one record however long it is."""
    with draining() as (drain, write):
        os.write(write, b"\xff\x1b[31m \xe2\x82\xac\n" + b"x" * 20_000 + b"\nafter\n")
        await until(lambda: len(lines(log)) == 3)
    first, second, third = lines(log)
    assert first == "\\xff\x1b[31m \N{EURO SIGN}"
    assert 1000 <= len(second) <= 8 << 10
    assert set(second) == {"x"}
    assert third == "after"
    assert drain.tail == (first, second, third)


async def test_the_last_lines_are_kept(log: pytest.LogCaptureFixture) -> None:
    """The tail is bounded and ends with what had no line end; `finish` reads all that is there."""
    with draining() as (drain, write):
        os.write(write, b"".join(b"line %d\n" % number for number in range(100)) + b"unfinished")
        # Not a turn of the loop since.
        drain.finish()
        assert drain.tail == (*(f"line {number}" for number in range(81, 100)), "unfinished")
        assert len(lines(log)) == 101
        os.write(write, b"too late\n")
        await checkpoint()
        assert len(lines(log)) == 101


async def test_what_it_writes_about_the_probe_is_logged_at_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Some servers write hundreds of lines about a method that they do not know."""
    caplog.set_level(logging.DEBUG, "mcpbridge.child")
    with draining() as (drain, write):
        with drain.probed("server/discover"):
            os.write(write, b"a banner\n")
            await until(lambda: lines(caplog) == ["a banner"])
            os.write(write, b"unknown method:\n" * 200 + b"  server/discover\n")
            # The answer is read before these lines are.
        os.write(write, b"serving\n")
        await until(lambda: len(lines(caplog)) == 203)
        assert drain.tail[-2:] == ("  server/discover", "serving")
    shown = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert lines_of(shown) == ["a banner", "serving"]
    (about,) = (vars(each) for each in shown if each.message == "child.stderr_about_probe")
    assert (about["method"], about["lines"]) == ("server/discover", 201)


async def test_what_a_server_writes_about_no_probe_is_shown(log: pytest.LogCaptureFixture) -> None:
    """While it starts, and when it speaks of the method at another time."""
    with draining() as (drain, write):
        with drain.probed("server/discover"):
            os.write(write, b"loading\n")
        os.write(write, b"server/discover\n")
        await until(lambda: len(lines(log)) == 2)
    assert [record.message for record in log.records] == ["child.stderr", "child.stderr"]


@proves("fault 34")
async def test_a_closed_stderr_is_nothing_special(log: pytest.LogCaptureFixture) -> None:
    """A child may close it and go on."""
    read, write = os.pipe()
    drain = StderrDrain(read, 1)
    with drain.open():
        os.write(write, b"bye")
        os.close(write)
        for _ in range(5):
            await checkpoint()
        assert lines(log) == []
    assert lines(log) == ["bye"]
    assert drain.tail == ("bye",)


@proves("fault 33")
@pytest.mark.slow
async def test_a_flood_is_drained_and_logged_in_measure(log: pytest.LogCaptureFixture) -> None:
    """A writer is never held up; the log gets that much a second and the number of the rest."""
    line = b"e" * 999 + b"\n"
    total = 10_000

    def flood() -> None:
        for _ in range(total // 10):
            os.write(write, line * 10)

    with draining() as (drain, write):
        began = anyio.current_time()
        with anyio.fail_after(WITHIN_S):
            await to_thread.run_sync(flood)
        drain.finish()
        took_s = anyio.current_time() - began
    logged = len(lines(log))
    assert logged + suppressed(log) == total
    assert logged >= LOG_BYTES_PER_S // 1000
    assert logged <= (took_s + 1) * LOG_BYTES_PER_S // 999 + 1
    assert drain.tail == ("e" * 999,) * 20


@pytest.mark.slow
async def test_a_new_second_brings_new_allowance(log: pytest.LogCaptureFixture) -> None:
    """The log that ran out goes on a second later, and says first what it left out."""
    with draining() as (_, write):
        line = b"e" * 8000 + b"\n"
        for _ in range(20):
            os.write(write, line)
            await checkpoint()
        await until(lambda: len(lines(log)) == LOG_BYTES_PER_S // 8000)
        with anyio.fail_after(WITHIN_S):
            while not suppressed(log):
                os.write(write, b"tick\n")
                await anyio.sleep(0.01)  # time itself is what has to pass
        assert log.records[-1].message == "child.stderr"
        assert lines(log)[-1] == "tick"


WRITER = """
import os, sys
block = b"x\\n" * 32768
try:
    for _ in range(256):
        os.write(2, block)
except BrokenPipeError:
    sys.exit(3)
"""
"""Writes 16 MiB faster than lines can be split; status 3 if its reader left before the end."""


async def test_the_end_of_a_drain_does_not_wait_for_a_process_that_goes_on_writing() -> None:
    """A process that outlives its child may write without end: the drain ends while it writes."""
    read, write = os.pipe()
    drain = StderrDrain(read, 4711)
    with drain.open():
        writer = subprocess.Popen([sys.executable, "-c", WRITER], stderr=write)
        os.close(write)
        await to_thread.run_sync(select.select, [read], [], [])
    assert await to_thread.run_sync(writer.wait, 30) == 3
    assert drain.tail[-1] == "x"


async def test_many_short_lines_are_logged_some_at_a_time(log: pytest.LogCaptureFixture) -> None:
    """That many lines a second are logged, a hundred in a turn; the others are counted."""
    with draining() as (drain, write):
        os.write(write, b"a\n" * 6_000)
        await checkpoint()
        await checkpoint()
        assert len(lines(log)) <= 200
        await until(lambda: len(lines(log)) == 1000)
        os.write(write, b"last\n")
        await until(lambda: drain.tail[-1:] == ("last",))
        assert len(lines(log)) == 1000
    assert suppressed(log) == 5_001
