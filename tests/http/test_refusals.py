"""What is logged and counted of refused requests."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from mcpbridge.http.origin_check import check_source
from mcpbridge.http.refusals import FAMILY, LOG_EVERY_S, Refusals
from mcpbridge.http.request import RequestHead
from mcpbridge.http.responses import refusal_of
from mcpbridge.rules.access.hosts import MAX_SHOWN, HostRules
from mcpbridge.rules.faults import INVALID_REQUEST, Unavailable, draining
from mcpbridge.rules.mcp.admission import Reason, Refusal, refuse, session_gone
from mcpbridge.telemetry.logs import TextFormatter
from mcpbridge.telemetry.metrics import Meters
from tests.http.fakes import scope


def head(*headers: tuple[bytes, bytes], method: str = "POST", path: str = "/mcp") -> RequestHead:
    """The head of a request."""
    return RequestHead.in_scope({**scope(method, path), "headers": list(headers)})


class Book:
    """Refusals whose clock stands until it is moved, and what they log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self.now = 100.0
        self.meters = Meters()
        self.refusals = Refusals(self.meters, lambda: self.now)
        self._caplog = caplog

    def note(self, refusal: Refusal | None, of: RequestHead | None = None) -> dict[str, Any]:
        """Note one; the fields of its record, empty if it was left out."""
        assert refusal is not None
        self._caplog.clear()
        self.refusals.note(refusal, of)
        records = self._caplog.records
        assert [record.getMessage() for record in records] in ([], ["request.refused"])
        return vars(records[0]) if records else {}

    @property
    def counts(self) -> dict[Any, int]:
        """The counter, by reason."""
        return dict(self.meters.tallies[FAMILY])


@pytest.fixture
def book(caplog: pytest.LogCaptureFixture) -> Book:
    """Nothing refused yet."""
    return Book(caplog)


def by_source(of: RequestHead) -> Refusal | None:
    """The refusal of a loopback listener."""
    return check_source(of, HostRules(loopback=True))


def test_each_kind_is_logged_once_in_a_while(book: Book) -> None:
    """The next record has the number of those left out; all are counted."""
    gone = session_gone()
    assert book.note(gone)["left_out"] == 0
    assert [book.note(gone) for _ in range(5)] == [{}] * 5
    assert book.note(refusal_of(Unavailable(draining()), None))["reason"] == "draining"
    book.now += LOG_EVERY_S - 0.01
    assert book.note(gone) == {}
    book.now += 0.01
    assert book.note(gone)["left_out"] == 6
    assert book.counts == {"session": 8, "draining": 1}


WRITTEN = [
    ((b"host", b"Box.Local:8000"), "host", "Box.Local:8000", "--allowed-host box.local"),
    ((b"host", b"[2001:db8::1]:80"), "host", "[2001:db8::1]:80", "--allowed-host 2001:db8::1"),
    ((b"host", b"a;reboot"), "host", "a;reboot", None),
    ((b"host", b"a b"), "host", "a b", None),
    (
        (b"origin", b"https://app.example.org"),
        "origin",
        "https://app.example.org",
        "--allow-origin https://app.example.org",
    ),
    ((b"origin", b"null"), "origin", "null", "--allow-origin null"),
    ((b"origin", b"$(reboot)"), "origin", "$(reboot)", None),
]


@pytest.mark.parametrize(("header", "name", "value", "admits"), WRITTEN)
def test_a_record_has_what_was_refused_and_the_setting_that_admits_it(
    book: Book, header: tuple[bytes, bytes], name: str, value: str, admits: str | None
) -> None:
    """A setting is named only in words that a shell leaves as they are."""
    of = head(header)
    record = book.note(by_source(of), of)
    assert (record["reason"], record[name], record.get("try")) == (name, value, admits)
    assert record["levelname"] == ("INFO" if admits is None else "WARNING")


def test_a_record_as_text_is_what_an_operator_can_paste(book: Book) -> None:
    """The setting in quotes, the value without."""
    of = head((b"host", b"box.local"))
    record = logging.makeLogRecord(book.note(by_source(of), of))
    assert 'host=box.local try="--allowed-host box.local"' in TextFormatter().format(record)


def test_what_a_client_sent_is_escaped_and_cut(book: Book) -> None:
    """A terminal must not obey it, and a log must not fill with it."""
    of = head((b"host", b"a\x1b[2J\x9b\n" + b"x" * 5000))
    refusal = by_source(of)
    record = book.note(refusal, of)
    assert record["host"].startswith("a\\x1b[2J\\x9b\\n" + "x" * 100)
    assert len(record["host"]) < MAX_SHOWN + 20
    assert len(record["problem"]) < 2 * MAX_SHOWN
    assert refusal is not None
    assert len(refusal.error) < 2 * MAX_SHOWN


def test_a_path_is_shown_if_it_is_unknown_and_a_session_by_its_beginning(book: Book) -> None:
    """The path of MCP may be a secret, and an id lets its reader use the session."""
    unknown = refuse(404, INVALID_REQUEST, "Not Found")
    record = book.note(unknown, head(path="/api/mcp"))
    assert (record["path"], record["try"]) == ("/api/mcp", "--path /api/mcp")
    book.now += LOG_EVERY_S
    record = book.note(unknown, head(method="GET", path="/private"))
    assert (record["method"], "path" in record, "try" in record) == ("GET", False, False)
    wrong = refuse(415, INVALID_REQUEST, "no", reason=Reason.CONTENT_TYPE)
    record = book.note(wrong, head((b"content-type", b"text/plain"), path="/s3cret/mcp"))
    assert record["content_type"] == "text/plain"
    assert "s3cret" not in str({name: record[name] for name in ("problem", "client")})
    assert "path" not in record
    record = book.note(session_gone(), head((b"mcp-session-id", b"0123456789abcdef")))
    assert record["mcp_session_id"] == "01234567"


def test_a_large_body_names_the_limit_that_admits_it(book: Book) -> None:
    """If its size is known."""
    large = refuse(413, INVALID_REQUEST, "the body exceeds --max-request-bytes 1024")
    record = book.note(large, head((b"content-length", b"4096")))
    assert (record["reason"], record["try"]) == ("body_size", "--max-request-bytes 4096")
    book.now += LOG_EVERY_S
    assert "try" not in book.note(large, head())


def test_a_kind_is_one_of_a_few(book: Book) -> None:
    """By the status, if the refusal says no more."""
    for status, reason in ((401, "credentials"), (403, "scope"), (400, "other"), (418, "other")):
        assert book.note(refuse(status, INVALID_REQUEST, "no")).get("reason", "other") == reason
