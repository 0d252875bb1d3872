"""One stream's record: each reader sees every entry once and in order, or is told it cannot."""

from __future__ import annotations

import base64
import json
import re
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcpbridge.errors import CursorLost
from mcpbridge.rules.event_log import START, EventId, EventLog, LogEntry, Window, read_event_id


class Appended(NamedTuple):
    """What was appended."""

    payload: bytes
    sheddable: bool


class LogMachine(RuleBasedStateMachine):
    """Readers of any pace on a log with a small window, against a list that keeps everything."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(entries=4, max_bytes=30)
        self.log = EventLog(self.window)
        self.appended: list[Appended] = []
        self.cursors = [START, START, START]
        self.trimmed = START

    def expected(self, cursor: int) -> list[LogEntry]:
        """All that was appended after a cursor."""
        return [LogEntry(i + 1, *each) for i, each in enumerate(self.appended) if i >= cursor]

    @rule(size=st.integers(0, 40), sheddable=st.booleans())
    def append(self, size: int, sheddable: bool) -> None:
        """Something is said; the log's cursor moves by one and the newest entry is there."""
        payload = b"%d" % len(self.appended) + b"x" * size
        before = self.log.last
        self.log.append(payload, sheddable=sheddable)
        self.appended.append(Appended(payload, sheddable))
        assert self.log.last == before + 1
        assert list(self.log.after(before)) == [LogEntry(before + 1, payload, sheddable)]

    @rule(reader=st.integers(0, 2))
    def read(self, reader: int) -> None:
        """A reader gets exactly what it has not seen, or is told that it lost its place."""
        cursor = self.cursors[reader]
        expected = self.expected(cursor)
        kept = list(self.log.after(cursor, strict=False))
        if kept == expected:
            assert list(self.log.after(cursor)) == expected
        else:
            with pytest.raises(CursorLost) as lost:
                self.log.after(cursor)
            assert lost.value.wanted == cursor + 1
            assert lost.value.oldest == (kept[0].number if kept else self.log.last + 1)
        self.cursors[reader] = self.log.last
        assert not self.log.after(self.log.last)

    @rule(reader=st.integers(0, 2))
    def read_what_is_left(self, reader: int) -> None:
        """A reader that does not mind gaps gets every answer, in order, and no entry twice."""
        cursor = self.cursors[reader]
        found = list(self.log.after(cursor, strict=False))
        expected = self.expected(cursor)
        assert [entry for entry in expected if entry in found] == found
        for entry in expected:
            assert entry.sheddable or entry.number <= self.trimmed or entry in found
        self.cursors[reader] = self.log.last

    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        """What was read is forgotten up to a cursor, and what came after stays."""
        cursor = data.draw(st.integers(START, self.log.last))
        later = list(self.log.after(cursor, strict=False))
        self.log.trim(cursor)
        self.trimmed = max(self.trimmed, cursor)
        assert list(self.log.after(START, strict=False)) == [
            entry for entry in later if entry.number > self.trimmed
        ]

    @invariant()
    def the_window_bounds_what_may_be_shed(self) -> None:
        """Over its window a log holds answers and its newest entry only; all shed is counted.

        The bytes of answers do not count towards it.
        """
        kept = self.log.after(START, strict=False)
        size = sum(len(entry.payload) for entry in kept)
        assert self.log.size == size
        loose = sum(len(entry.payload) for entry in kept if entry.sheddable)
        if len(kept) > self.window.entries or loose > self.window.max_bytes:
            assert not any(entry.sheddable for entry in kept[:-1])
        untrimmed = len(self.appended) - self.trimmed
        assert self.log.shed >= untrimmed - len(kept)
        assert self.log.shed <= sum(each.sheddable for each in self.appended)


TestLog = LogMachine.TestCase
TestLog.settings = settings(stateful_step_count=30)
TestLog.pytestmark = [pytest.mark.slow]  # type: ignore[attr-defined]  # read by pytest


def numbers(log: EventLog, cursor: int = START) -> list[int]:
    """The entries that are left after a cursor."""
    return [entry.number for entry in log.after(cursor, strict=False)]


def test_a_new_log_has_nothing_to_say() -> None:
    """An empty log is up to date for every reader."""
    log = EventLog(Window())
    assert (log.last, log.shed, log.closed) == (START, 0, False)
    assert not log.after(START)
    assert not log.after(5)


def test_the_oldest_chatter_goes_first_and_answers_stay() -> None:
    """Over the number of entries the oldest that may go is shed, around those that may not."""
    log = EventLog(Window(entries=3))
    for sheddable in (False, True, True, True, True):
        log.append(b"x", sheddable=sheddable)
    assert numbers(log) == [1, 4, 5]
    assert log.shed == 2
    with pytest.raises(CursorLost) as caught:
        log.after(1)
    assert (caught.value.wanted, caught.value.oldest) == (2, 4)
    assert [entry.number for entry in log.after(3)] == [4, 5]


def test_answers_are_kept_beyond_the_window() -> None:
    """Entries that a client waits for are never shed, however many and large they are."""
    log = EventLog(Window(entries=2, max_bytes=10))
    for _ in range(50):
        log.append(b"x" * 20, sheddable=False)
    assert numbers(log) == list(range(1, 51))
    assert log.shed == 0


def test_a_large_answer_leaves_what_came_before_it() -> None:
    """Progress and answer may come in one turn, before any reader had its own."""
    log = EventLog(Window(max_bytes=10))
    log.append(b"x" * 9, sheddable=True)
    log.append(b"x" * 1000, sheddable=False)
    log.append(b"x", sheddable=True)
    assert (numbers(log), log.shed) == ([1, 2, 3], 0)
    log.append(b"x", sheddable=True)
    assert (numbers(log), log.shed) == ([2, 3, 4], 1)
    log.trim(2)
    log.append(b"x" * 8, sheddable=True)
    assert (numbers(log), log.shed) == ([3, 4, 5], 1)


def test_the_window_counts_bytes_too() -> None:
    """Over the bytes as many old entries go as are needed, the newest never."""
    log = EventLog(Window(max_bytes=10))
    for size in (4, 4, 2):
        log.append(b"x" * size, sheddable=True)
    assert numbers(log) == [1, 2, 3]
    log.append(b"x" * 5, sheddable=True)
    assert numbers(log) == [3, 4]
    log.append(b"x" * 1000, sheddable=True)
    assert numbers(log) == [5]
    assert log.shed == 4


def test_trimming_makes_room() -> None:
    """What was trimmed no longer counts against the window, and is lost to old cursors."""
    log = EventLog(Window(max_bytes=10))
    log.append(b"x" * 9, sheddable=True)
    log.append(b"x", sheddable=True)
    log.trim(1)
    log.append(b"x" * 9, sheddable=True)
    assert numbers(log) == [2, 3]
    assert log.shed == 0
    with pytest.raises(CursorLost, match="entry 1 is gone, the oldest kept is 2"):
        log.after(START)
    log.trim(3)
    with pytest.raises(CursorLost, match="entry 1 is gone, the oldest kept is 4"):
        log.after(START)
    assert not log.after(3)


def test_a_closed_log_is_read_but_not_written() -> None:
    """Closing ends the appending; what was said can still be read."""
    log = EventLog(Window())
    log.append(b"a", sheddable=False)
    log.close()
    assert log.closed
    assert numbers(log) == [1]
    with pytest.raises(AssertionError, match="closed"):
        log.append(b"b", sheddable=False)
    assert log.last == 1


def test_a_reader_that_keeps_up_looks_at_new_entries_only() -> None:
    """Reading the one new entry of a log of thousands looks at that one and its neighbour."""
    looked = 0

    class Cursor(int):
        """A cursor that counts the entries it is compared with."""

        def __lt__(self, other: int) -> bool:
            nonlocal looked
            looked += 1
            return super().__lt__(other)

    log = EventLog(Window(entries=10_000))
    for _ in range(5000):
        log.append(b"x", sheddable=True)
    assert [entry.number for entry in log.after(Cursor(4999))] == [5000]
    assert 0 < looked <= 3


def test_a_discarded_entry_reaches_nobody() -> None:
    """What is outdated is taken out alone; a reader before it is told that there is a gap."""
    log = EventLog(Window())
    for payload in (b"a", b"bb", b"ccc"):
        log.append(payload, sheddable=False)
    log.discard(2)
    log.discard(2)
    log.discard(99)
    assert numbers(log) == [1, 3]
    assert log.size == 4
    assert [entry.number for entry in log.after(2)] == [3]
    with pytest.raises(CursorLost):
        log.after(1)


@pytest.mark.parametrize(
    "event_id",
    [
        EventId("0", 0, 0),
        EventId("0123456789abcdef", 7, 42),
        EventId("f", 1, 999999999999999),
        EventId("f", 1, 2, b"0"),
        EventId("f", 1, 2, b"-12"),
        EventId("f", 1, 2, b'"a-b>>??~~"'),
        EventId("f", 1, 2, '"Ψ\\u0041"'.encode()),
        EventId("f", 1, 2, b'"%b"' % (b"x" * 46)),
    ],
    ids=repr,
)
def test_an_event_id_is_read_back(event_id: EventId) -> None:
    """An event id, written and read, is the same."""
    assert read_event_id(f"{event_id.prefix.decode()}{event_id.number}") == event_id


@given(st.text(max_size=60).map(msgspec.json.encode) | st.integers().map(lambda n: b"%d" % n))
def test_the_id_of_a_call_is_named_if_it_is_short(call: bytes) -> None:
    """Whatever characters it has; the event id has none but those of headers."""
    prefix = EventId("f", 1, 2, call).prefix
    assert re.fullmatch(rb"f-1-(?:[A-Za-z0-9_.]{2,64}-)?", prefix)
    found = read_event_id(f"{prefix.decode()}7")
    assert found == EventId("f", 1, 7, call if len(call) <= 48 else None)


@given(st.text("ABIMQabcnuxyz0129_.", min_size=1, max_size=70))
def test_a_call_in_an_event_id_is_an_id_or_nothing(text: str) -> None:
    """A client may send any text: what is answered with it must be an id of JSON-RPC."""
    found = read_event_id(f"f-1-{text}-2")
    if found is not None:
        assert found.call is not None
        assert isinstance(json.loads(found.call), int | str)
        assert found.prefix == f"f-1-{text}-".encode()


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"true", b"1.5", b"[1]", b" 1", b'"a', b"1 ", b"01", b"1e3", b'"\xff"']
)
def test_what_is_no_id_of_a_call_is_no_event_id(raw: bytes) -> None:
    """The error that answers it would be no JSON-RPC."""
    assert read_event_id(f"f-1-{base64.urlsafe_b64encode(raw).decode().rstrip('=')}-2") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a-1",
        "a-1-2-3",
        "-1-2",
        "g-1-2",
        "A-1-2",
        "a--1-2",
        "a-1-",
        "a-1-2\n",
        " a-1-2",
        "a-1-\u0662",
        "a-1-" + "9" * 16,
        "0" * 17 + "-1-2",
        "a-1-" + "9" * 5000,
    ],
)
def test_what_this_program_never_wrote_is_no_event_id(text: str) -> None:
    """Other text in the header is told from an id, however close it comes."""
    assert read_event_id(text) is None


def test_the_window_holds_so_many_entries_and_bytes_and_no_more() -> None:
    """The oldest goes with the first that is too many; at the limit none does."""
    by_number, by_size = EventLog(Window(entries=3)), EventLog(Window(max_bytes=3))
    for log in (by_number, by_size):
        for _ in range(3):
            log.append(b"x", sheddable=True)
        assert [entry.number for entry in log.after(START)] == [1, 2, 3]
        log.append(b"x", sheddable=True)
        assert [entry.number for entry in log.after(START, strict=False)] == [2, 3, 4]
        assert log.shed == 1
