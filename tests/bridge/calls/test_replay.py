"""Streams that a client may resume: which one an event id names, and how long it is kept."""

from __future__ import annotations

import json

import pytest

from mcpbridge.bridge.calls.replay import ReplayStore, ResumeResult
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.rules.event_log import Window
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import whole
from tests.bridge.playbook import bounded

MANY = 100


class Clock:
    """Monotonic seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


def store_of(
    *, resumable: bool = True, clock: Clock | None = None, window: Window | None = None
) -> ReplayStore:
    """A store of a client of a revision with event ids, or without."""
    window = window or Window()
    return ReplayStore(window, Meters(), clock or Clock(), resumable=resumable)


def id_of(stream: Stream, number: int) -> str:
    """The id of an event of a stream."""
    assert stream.id_prefix is not None
    return f"{stream.id_prefix.decode()}{number}"


def finished(store: ReplayStore, payload: bytes = b"{}") -> Stream:
    """A stream of one call that is answered."""
    stream = store.begin(1)
    stream.answer(payload)
    return stream


async def rest_of(stream: Stream) -> list[bytes]:
    """What the next reader gets at first."""
    with stream.attach() as reader:
        entries = await reader.read()
    return [] if entries is None else [whole(entry.payload) for entry in entries]


@bounded
async def test_an_event_id_names_its_stream_and_what_follows() -> None:
    """Of two streams at once, each goes on behind the event that its client has."""
    store = store_of()
    first, second = store.begin(1), store.begin(1)
    for stream, name in ((first, b"a"), (second, b"b")):
        stream.append(name + b"1", sheddable=True)
        stream.append(name + b"2", sheddable=True)
    assert await rest_of(first) == [b"a1", b"a2"]
    assert store.find(id_of(first, 1)) is first
    assert await rest_of(first) == [b"a2"]
    assert store.find(id_of(second, 0)) is second
    assert await rest_of(second) == [b"b1", b"b2"]


def test_ids_that_name_no_stream_here_say_why() -> None:
    """Nonsense begins afresh; another session's id is refused; an unknown stream is over."""
    store, other = store_of(), store_of()
    assert store.find("nonsense") is ResumeResult.FRESH
    assert store.find(id_of(other.begin(1), 1)) is ResumeResult.FOREIGN
    assert store.find(id_of(store.begin(1), 0).replace("-1-", "-7-")) is ResumeResult.OVER


async def test_a_client_whose_call_was_lost_with_its_replica_is_told() -> None:
    """Its event id names the call; the error has its id, may be resumed, and is not sent twice."""
    before = ReplayStore(Window(), Meters(), Clock(), resumable=True, names_calls=True)
    meters = Meters()
    after = ReplayStore(Window(), meters, Clock(), resumable=True, names_calls=True, revived=True)
    for call_id in (b"7", b'"a-\xc3\xa4"'):
        last = id_of(before.begin(1, call_id), 3)
        assert (before.begin(1, b"8").id_prefix or b"") not in last.encode()
        stream = after.find(last)
        assert isinstance(stream, Stream)
        (answer,) = await rest_of(stream)
        error = json.loads(answer)
        assert error["id"] == json.loads(call_id)
        assert error["error"]["data"]["mcpbridge"] == {
            "reason": "replica_lost",
            "executed": "maybe",
            "retryable": False,
        }
        assert after.find(id_of(stream, 0)) is stream
        assert after.find(id_of(stream, 1)) is ResumeResult.OVER
    assert meters.counts()["lost_call"] == 2


def test_other_streams_of_a_lost_replica_begin_afresh_or_are_over() -> None:
    """The standalone one goes on; answers of several calls at once are not named."""
    before = ReplayStore(Window(), Meters(), Clock(), resumable=True, names_calls=True)
    after = ReplayStore(Window(), Meters(), Clock(), resumable=True, names_calls=True, revived=True)
    assert after.find(id_of(before.standalone, 9)) is ResumeResult.FRESH
    assert after.find(id_of(before.begin(2), 1)) is ResumeResult.OVER
    assert after.find("nonsense") is ResumeResult.FRESH


def revived() -> ReplayStore:
    """The store of a session that another replica had."""
    return ReplayStore(Window(), Meters(), Clock(), resumable=True, names_calls=True, revived=True)


async def test_finished_streams_go_on_at_the_next_home_and_the_one_after() -> None:
    """Behind the event that the client has; what was shed before is not missed."""
    window = Window(entries=2)
    clock, charged = Clock(), [0]

    def charge(change: int) -> None:
        charged[0] += change

    before = ReplayStore(window, Meters(), Clock(), resumable=True, names_calls=True)
    stream = before.begin(1, b"7")
    for number in range(3):
        stream.append(b"p%d" % number, sheddable=True)
    stream.answer(b"answer")
    before.begin(1, b"8").append(b"in flight", sheddable=True)
    parts = (Window(), Meters(), clock)
    after = ReplayStore(*parts, resumable=True, charge=charge, revived=True)
    after.resume(before.records(1000))
    last = revived()
    last.resume(after.records(1000))
    for store in (after, last):
        found = store.find(id_of(stream, 3))
        assert isinstance(found, Stream)
        assert await rest_of(found) == [b"answer"]
        assert found.id_prefix == stream.id_prefix
        assert store.find(id_of(stream, 4)) is ResumeResult.OVER
        assert store.find(id_of(stream, 1)) is ResumeResult.OVER, "shed before"
    assert before.records(1) == ()
    assert charged[0] > 0
    freed = after.shed()
    assert (freed > 0, charged[0]) == (True, 0)
    after.resume(before.records(1000))
    clock.now = 301.0
    lost = after.find(id_of(stream, 3))
    assert isinstance(lost, Stream)
    assert b"replica_lost" in (await rest_of(lost))[0]


def test_undelivered_answers_travel_first() -> None:
    """The others may be missed only by a client whose connection broke in that moment."""
    store = store_of()
    delivered, undelivered = finished(store, b"a" * 100), finished(store, b"b" * 100)
    third = finished(store, b"c" * 100)
    for stream in (delivered, third):
        stream.seek(1)
    held = undelivered.log.held
    assert [each.payloads for each in store.records(held)] == [(b"b" * 100,)]
    assert [each.payloads[0][:1] for each in store.records(2 * held)] == [b"b", b"c"]


def test_event_ids_name_calls_for_replicas_only() -> None:
    """Without them an id is as short as can be, and another session's is refused."""
    store = store_of()
    stream = store.begin(1, b"7")
    assert id_of(stream, 1).count("-") == 2
    assert store.find(id_of(store_of().begin(1, b"7"), 1)) is ResumeResult.FOREIGN


def test_a_stream_of_which_all_was_read_is_over() -> None:
    """One that still has events behind the id is not, although it has ended."""
    store = store_of()
    stream = finished(store)
    assert store.find(id_of(stream, 0)) is stream
    assert store.find(id_of(stream, 1)) is ResumeResult.OVER


def test_events_that_are_lost_are_not_skipped_in_silence() -> None:
    """A call's stream is over then; the standalone stream begins afresh."""
    meters = Meters()
    store = ReplayStore(Window(entries=2), meters, Clock(), resumable=True)
    for stream in (store.standalone, store.begin(1)):
        for _ in range(5):
            stream.append(b"{}", sheddable=True)
    assert store.find(id_of(store.standalone, 1)) is ResumeResult.FRESH
    assert store.find(f"{id_of(store.standalone, 1).split('-')[0]}-1-1") is ResumeResult.OVER
    assert meters.counts()["cursor_lost"] == 2


def test_without_event_ids_no_stream_is_kept() -> None:
    """No client could ask for it."""
    store = store_of(resumable=False)
    stream = finished(store)
    assert stream.id_prefix is None
    assert store.shed() == 0
    assert store.find("0123-1-1") is ResumeResult.FRESH


@pytest.mark.parametrize("ends", [True, False])
def test_finished_streams_are_bounded_and_open_ones_are_not_dropped(ends: bool) -> None:
    """The oldest finished ones go first; the calls in flight keep theirs."""
    store = store_of()
    streams = [finished(store) if ends else store.begin(1) for _ in range(MANY)]
    found = [store.find(id_of(stream, 0)) for stream in streams]
    kept = [stream for stream, each in zip(streams, found, strict=True) if each is stream]
    assert kept == (streams[-64:] if ends else streams)


def test_finished_streams_are_bounded_by_bytes() -> None:
    """Four answers of 2 MB are more than is kept."""
    store = store_of()
    streams = [finished(store, b"x" * 2_000_000) for _ in range(4)]
    kept = [stream for stream in streams if store.find(id_of(stream, 0)) is stream]
    assert kept == streams[-2:]
    assert store.shed() < 4 << 20


def test_a_finished_stream_is_dropped_after_its_time() -> None:
    """Five minutes from when it was found to have ended."""
    clock = Clock()
    store = store_of(clock=clock)
    stream = finished(store)
    clock.now = 10.0
    assert store.find(id_of(stream, 0)) is stream
    clock.now = 310.0
    assert store.find(id_of(stream, 0)) is stream
    clock.now = 310.5
    assert store.find(id_of(stream, 0)) is ResumeResult.OVER


@bounded
async def test_for_want_of_memory_only_finished_streams_without_a_reader_go() -> None:
    """A client that reads one, or waits for its answer, loses nothing."""
    store = store_of()
    left, read, open_still = finished(store), finished(store), store.begin(1)
    open_still.append(b"{}", sheddable=True)
    with read.attach():
        assert store.shed() > 0
    assert store.find(id_of(left, 0)) is ResumeResult.OVER
    assert store.find(id_of(read, 0)) is read
    assert store.find(id_of(open_still, 0)) is open_still


def test_after_the_end_nothing_is_put_on_the_standalone_stream() -> None:
    """A child's notification may come behind the end of the session."""
    store = store_of()
    call = store.begin(1)
    store.tell(b"first")
    store.close()
    store.tell(b"late")
    assert (call.log.closed, store.standalone.log.last) == (True, 1)
