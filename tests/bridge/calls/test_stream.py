"""A stream and its readers: every message once, on one connection, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mcpbridge.bridge.calls.stream import Reader, Stream
from mcpbridge.errors import CursorLost
from mcpbridge.rules.event_log import EventId, LogEntry, Window
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import whole
from tests.bridge.playbook import bounded, turns
from tests.support.proofs import proves


def stream_of(
    window: Window | None = None, answers_due: int | None = None, first_id: EventId | None = None
) -> tuple[Stream, Meters]:
    """A stream and what it counts."""
    meters = Meters()
    made = Stream(window or Window(), meters, answers_due=answers_due, first_id=first_id)
    return made, meters


def payloads(entries: Sequence[LogEntry] | None) -> list[bytes] | None:
    """What was read, without the numbers."""
    return None if entries is None else [whole(entry.payload) for entry in entries]


async def waiting(reader: Reader) -> asyncio.Task[Sequence[LogEntry] | None]:
    """A read that has found nothing yet."""
    task = asyncio.create_task(reader.read())
    await turns()
    assert not task.done()
    return task


@proves("C75")
@bounded
async def test_what_was_said_before_anybody_read_is_read_first() -> None:
    """In order and all at once; then the reader waits."""
    stream, _ = stream_of()
    stream.append(b"1", sheddable=True)
    stream.append(b"2", sheddable=False)
    with stream.attach() as reader:
        assert payloads(await reader.read()) == [b"1", b"2"]
        task = await waiting(reader)
        stream.append(b"3", sheddable=True)
        assert payloads(await task) == [b"3"]
    assert not stream.attached


@proves("fault 60", "C69")
@bounded
async def test_the_newest_reader_reads_and_the_older_takes_over() -> None:
    """Neither sees what the other has seen."""
    stream, _ = stream_of()
    with stream.attach() as older:
        first = await waiting(older)
        with stream.attach() as newer:
            stream.append(b"1", sheddable=True)
            assert payloads(await newer.read()) == [b"1"]
            await turns()
            assert not first.done()
            stream.append(b"2", sheddable=True)
        assert payloads(await first) == [b"2"], "undelivered when the newer one left"
        with stream.attach() as newer:
            second = await waiting(newer)
            third = await waiting(older)
        stream.append(b"3", sheddable=True)
        assert payloads(await third) == [b"3"]
        second.cancel()


@bounded
async def test_an_older_reader_that_leaves_changes_nothing_for_the_newer() -> None:
    """If a reader leaves, what is said next reaches the newest that is there."""
    stream, _ = stream_of()
    older, newer = stream.attach(), stream.attach()
    older.__enter__()
    reader = newer.__enter__()
    older.__exit__(None, None, None)
    stream.append(b"1", sheddable=True)
    assert payloads(await reader.read()) == [b"1"]
    newer.__exit__(None, None, None)


@proves("C71")
@bounded
async def test_the_end_of_a_stream_comes_after_what_is_left() -> None:
    """To every reader; what waits is read by the newest."""
    stream, _ = stream_of()
    with stream.attach() as older, stream.attach() as newer:
        ended = await waiting(older)
        stream.append(b"last", sheddable=True)
        stream.close()
        stream.close()
        assert await ended is None
        assert payloads(await newer.read()) == [b"last"]
        assert await newer.read() is None
        assert await newer.read() is None
    with stream.attach() as late:
        assert await late.read() is None


@proves("C90")
@bounded
async def test_a_nudge_is_an_empty_read_and_no_end() -> None:
    """For a sign of life on a connection that has nothing to say, silent ones too."""
    stream, _ = stream_of()
    with stream.attach() as older, stream.attach() as newer:
        tasks = [await waiting(reader) for reader in (older, newer)]
        for reader in (older, newer):
            reader.nudge()
        assert [payloads(await task) for task in tasks] == [[], []]
        newer.nudge()
        stream.append(b"1", sheddable=True)
        assert payloads(await newer.read()) == [b"1"], "a message is a sign of life"


@bounded
async def test_dismissed_readers_leave_and_the_stream_goes_on() -> None:
    """What was not delivered waits for the next one."""
    stream, _ = stream_of()
    with stream.attach() as reader:
        task = await waiting(reader)
        stream.dismiss()
        assert await task is None
        assert reader.leaving
    stream.append(b"1", sheddable=True)
    with stream.attach() as reader:
        assert not reader.leaving
        assert payloads(await reader.read()) == [b"1"]


@bounded
async def test_a_stream_that_waits_for_answers_ends_with_the_last_of_them() -> None:
    """One answer of a call, all of a batch; what comes between does not count."""
    stream, _ = stream_of(answers_due=2)
    stream.answer(b"a")
    stream.append(b"note", sheddable=True)
    assert not stream.log.closed
    stream.answer(b"b")
    with stream.attach() as reader:
        assert payloads(await reader.read()) == [b"a", b"note", b"b"]
        assert await reader.read() is None


@proves("C75")
@bounded
async def test_what_says_the_same_again_is_said_once_until_it_is_taken() -> None:
    """A list that changed twice while no client read has changed."""
    stream, meters = stream_of()
    for payload, key in ((b"tools", "t"), (b"other", None), (b"tools", "t"), (b"prompts", "p")):
        stream.append(payload, sheddable=True, key=key)
    with stream.attach() as reader:
        assert payloads(await reader.read()) == [b"tools", b"other", b"prompts"]
        stream.append(b"tools", sheddable=True, key="t")
        assert payloads(await reader.read()) == [b"tools"]
    assert meters.counts() == {"coalesced_notification": 1}


@proves("fault 32")
@bounded
async def test_what_nobody_reads_is_bounded_and_what_is_shed_is_counted() -> None:
    """By number and by bytes; answers and questions stay, and their bytes do not count."""
    for window in (Window(entries=3), Window(max_bytes=2)):
        stream, meters = stream_of(window)
        stream.append(b"!", sheddable=False)
        for number in range(9):
            stream.append(b"%d" % number, sheddable=True)
        with stream.attach() as reader:
            assert payloads(await reader.read()) == [b"!", b"7", b"8"]
        assert meters.counts() == {"shed_notification": 7}


@bounded
async def test_without_ids_what_was_delivered_is_forgotten() -> None:
    """No client can ask for it again."""
    stream, _ = stream_of()
    assert (stream.id_prefix, stream.number) == (None, None)
    stream.append(b"1", sheddable=True)
    with stream.attach() as reader:
        await reader.read()
    assert stream.log.size == 0


@proves("C64")
@bounded
async def test_with_ids_a_reader_may_continue_anywhere_in_the_window() -> None:
    """Exactly what came after the cursor, then live; a cursor that is gone is told."""
    stream, _ = stream_of(Window(entries=3), first_id=EventId("ab", 4, 0))
    assert (stream.id_prefix, stream.number) == (b"ab-4-", 4)
    for number in range(1, 4):
        stream.append(b"%d" % number, sheddable=True)
    with stream.attach() as reader:
        assert payloads(await reader.read()) == [b"1", b"2", b"3"]
    stream.seek(1)
    with stream.attach() as reader:
        assert payloads(await reader.read()) == [b"2", b"3"]
        stream.append(b"4", sheddable=True)
        assert payloads(await reader.read()) == [b"4"]
    with pytest.raises(CursorLost):
        stream.seek(0)
