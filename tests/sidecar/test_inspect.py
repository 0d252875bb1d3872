"""What is read of messages that pass, and that nothing breaks on what cannot be read."""

from __future__ import annotations

import json

import pytest

from mcpbridge.sidecar.inspect import MAX_LINE, EventScan, asked, error_codes, results

ERROR = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}'


@pytest.mark.parametrize(
    ("body", "methods"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', ["ping"]),
        (b' [{"method":"a","id":1}, {"method":"b"}, {"id":1,"result":{}}]', ["a", "b"]),
        (b'{"id":1,"result":{}}', []),
        (b'{"method":7}', []),
        (b"[7", []),
        (b"", []),
        (b"\xff", []),
    ],
)
def test_requests_and_notifications_are_seen(body: bytes, methods: list[str]) -> None:
    """A batch of them too; answers and nonsense are not counted."""
    assert [found.method for found in asked(body)] == methods


def test_the_params_are_there_as_they_came() -> None:
    """Raw, and null for none."""
    (call,) = asked(b'{"method":"tools/call","params":{"name" : "x"}}')
    (bare,) = asked(b'{"method":"tools/list"}')

    assert bytes(call.params) == b'{"name" : "x"}'
    assert bytes(bare.params) == b"null"


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        (ERROR, [-32602]),
        (b"[" + ERROR + b',{"id":2,"result":{}},' + ERROR + b"]", [-32602, -32602]),
        (b'{"id":1,"result":{"text":"\\"error\\""}}', []),
        (b'{"id":1,"result":{"error":{"code":1}}}', []),
        (b'{"error":"text"}', []),
        (b'{"error":', []),
    ],
)
def test_codes_of_errors_are_seen(body: bytes, codes: list[int]) -> None:
    """Of the messages themselves and not of what is nested in them."""
    assert error_codes(body) == codes


def test_results_are_seen() -> None:
    """Of one answer or several; an error has none."""
    assert results(b'{"id":1,"result":{"tools":[ ]}}') == [b'{"tools":[ ]}']
    assert results(b'[{"id":1,"result":1},' + ERROR + b"]") == [b"1"]


STREAM = (
    b"event: endpoint\r\ndata: /messages?session_id=1\r\n\r\n"
    b": keep-alive\r\n\r\n"
    b"id: 1\ndata: " + ERROR + b"\n\n"
    b"event: strange\ndata: {}\ndata: {}\n\n"
    b"retry: 5\n\n"
    b"event: message\ndata: " + json.dumps({"text": "x" * 3 * MAX_LINE}).encode() + b"\r\n\r\n"
    b"event: message\ndata: unfinished"
)
TYPES = ["endpoint", "message", "other", "message"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, MAX_LINE + 1, len(STREAM)])
def test_events_are_counted_wherever_the_pieces_are_cut(size: int) -> None:
    """Comments and what has no data are not events; a long line is an event all the same."""
    scan = EventScan()
    types: list[str] = []
    codes: list[int] = []
    for start in range(0, len(STREAM), size):
        more_types, more_codes = scan.feed(STREAM[start : start + size])
        types += more_types
        codes += more_codes

    assert types == TYPES
    assert codes == [-32602]
