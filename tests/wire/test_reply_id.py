"""The id of an invalid answer: told where it is certain, and never otherwise."""

from __future__ import annotations

import pytest

from mcpbridge.wire.lines import KEPT_BYTES, OverlongLine
from mcpbridge.wire.reply_id import answer_id


def overlong(line: bytes) -> OverlongLine:
    """What a splitter leaves of a line over its limit."""
    return OverlongLine(len(line), line[:KEPT_BYTES], line[-KEPT_BYTES:])


BULK = b'"' + b"x" * 10_000 + b'"'

CERTAIN = [
    (b'{"jsonrpc":"2.0","id":7,"result":NaN}', 7),
    (b'{"jsonrpc":"2.0","id":7,"result":{"a":', 7),
    (b'{"id":7,"jsonrpc":"2.0","result":{"a":', 7),
    (b'{"id":7,"error":{"a":', 7),
    (b' { "jsonrpc" : "2.0" , "id" : 7 , "error" : {', 7),
    (b'{"jsonrpc":"2.0","id":"7","result":"\xff', 7),
    (b'{"jsonrpc":"2.0","result":{"id":8,"x":NaN},"id":7}', 7),
    (b'{"jsonrpc":"2.0","result":"\xff","id":"7"}', 7),
    (b'{"jsonrpc":"2.0","x":1,"id":7,"result":"\xff"}', 7),
    (b'{"id":7,"x":0,"result":Infinity,"jsonrpc":"2.0"}', 7),
    (b'{"jsonrpc":"2.0","id":7}', 7),
    (b'{"jsonrpc":"2.0","id":0,"result":NaN}', 0),
    (b'{"jsonrpc":"2.0","id":999999999999999,"result":NaN}', 999999999999999),
]

UNCERTAIN = [
    b"",
    b"Listening on stdin",
    b"{",
    b"[]",
    b"null",
    b'"id"',
    b'[{"jsonrpc":"2.0","id":7,"result":NaN}]',
    # Requests and notifications of the child, whose numbers are its own.
    b'{"jsonrpc":"2.0","id":7,"method":"roots/list","params":NaN}',
    b'{"jsonrpc":"2.0","method":"roots/list","id":7,"params":NaN}',
    b'{"jsonrpc":"2.0","method":"x","params":{"id":7,"result":NaN}}',
    b'{"jsonrpc":"2.0","id":7,"method":"roots/list","params":{',
    b'{"jsonrpc":"2.0","method":"x","params":{"a":{"id":7,"result":1',
    b'{"m\\u0065thod":"x","id":7,"params":NaN}',
    # Ids in deeper objects or inside strings.
    b'{"result":{"id":7,"result":NaN}}',
    b'{"result":"{\\"id\\":7,\\"result\\":NaN","x":NaN}',
    b'{"result":NaN,"x":{"id":7}}',
    b'x {"jsonrpc":"2.0","id":7,"result":1}',
    # Two ids, of which a reader may take either.
    b'{"id":7,"x":NaN,"id":8,"result":1}',
    b'{"x":NaN,"id":7,"\\u0069d":7}',
    # What is not a number of ours.
    b'{"id":null,"result":NaN}',
    b'{"id":true,"result":NaN}',
    b'{"id":7.0,"result":NaN}',
    b'{"id":-7,"result":NaN}',
    b'{"id":"-7","result":NaN}',
    b'{"id":"seven","result":NaN}',
    '{"id":"٧","result":NaN}'.encode(),
    b'{"id":[7],"result":NaN}',
    b'{"id":NaN,"result":1}',
    b'{"id":1000000000000000,"result":NaN}',
    b'{"id":"' + b"9" * 5000 + b'","result":NaN}',
    b'{"id":' + b"9" * 5000 + b',"result":NaN}',
    b'{"a":' * 100_000,
    b'{"x":1,"id":7,"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize(("line", "expected"), CERTAIN)
def test_a_certain_id_is_told(line: bytes, expected: int) -> None:
    """The id of an answer is read in front of its payload, or behind it by a lenient parser."""
    assert answer_id(line) == expected
    assert answer_id(b"  " + line + b"\t") == expected


@pytest.mark.parametrize("line", UNCERTAIN, ids=lambda line: line[:40].decode(errors="replace"))
def test_an_uncertain_id_is_not_guessed(line: bytes) -> None:
    """Where the id could be another's, or the line no answer, nothing is told."""
    assert answer_id(line) is None


def test_a_lenient_look_is_taken_at_lines_of_a_megabyte_only() -> None:
    """An invalid line is not parsed as a whole when that would stop the others for long."""
    line = b'{"result":[NaN,"%b"],"id":7}'
    assert answer_id(line % (b"x" * 1000)) == 7
    assert answer_id(line % (b"x" * (1 << 20))) is None


OVERLONG = [
    (b'{"jsonrpc":"2.0","id":7,"result":' + BULK + b"}", 7),
    (b'{"id":"7","jsonrpc":"2.0","error":' + BULK + b"}", 7),
    (b'{"jsonrpc":"2.0","id":7,"result":' + BULK + b',"id":8}', 7),
    (b'{"jsonrpc":"2.0","result":' + BULK + b',"id":7}', 7),
    (b'{"result":' + BULK + b',"id":7,"jsonrpc":"2.0"}', 7),
    (b'{"result":' + BULK + b' , "jsonrpc" : "2.0" , "id" : "7" } \r', 7),
    (b'{"result":[' + BULK + b'],"id":7}', 7),
    (b'{"result":{"a":' + BULK + b'},"id":7}', 7),
    (b'{"result":[' + BULK + b',1e9],"id":7}', 7),
    (b'{"error":{"a":' + BULK + b'},"id":7}', 7),
    # Traps: ids of deeper objects, strings that look like tails, requests of the child.
    (b'{"jsonrpc":"2.0","result":[' + BULK + b',{"a":1,"id":7}]}', None),
    (b'{"jsonrpc":"2.0","result":{"a":' + BULK + b',"id":7}}', None),
    (b'{"jsonrpc":"2.0","result":' + BULK[:-1] + b',\\"id\\":7}"}', None),
    (b'{"jsonrpc":"2.0","result":' + BULK[:-1] + b'\\",\\"id\\":7}', None),
    (b'{"jsonrpc":"2.0","result":' + BULK + b',"id":7},"id":8', None),
    (b'{"jsonrpc":"2.0","id":7,"method":"a","params":{"a":' + BULK + b"}}", None),
    (b'{"jsonrpc":"2.0","method":"a","params":{"a":' + BULK + b'},"id":7}', None),
    (b'{"jsonrpc":"2.0","params":{"a":' + BULK + b'},"method":"a","id":7}', None),
    (b'{"jsonrpc":"2.0","result":' + BULK + b',"id":null}', None),
    (b'{"jsonrpc":"2.0","result":' + BULK + b',"id":7.0}', None),
    (b'{"jsonrpc":"2.0","result":' + BULK + b',"id":-7}', None),
    (b'{"jsonrpc":"2.0","result":' + BULK + b',"id":1234567890123456}', None),
    (b'{"jsonrpc":"2.0","result":' + BULK, None),
    (b'[{"jsonrpc":"2.0","result":' + BULK + b',"id":7}]', None),
    (b"x" * 20_000, None),
]


@pytest.mark.parametrize(("line", "expected"), OVERLONG)
def test_an_overlong_answer_is_told_by_its_ends(line: bytes, expected: int | None) -> None:
    """Of an overlong line only the outer members at either end count, and of answers only."""
    assert answer_id(overlong(line)) == expected


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc"' + b" " * 4_000_000,
        b'{"jsonrpc":"2.0"' + b" ," * 2_000_000,
        b'{"id":7' + b" " * 4_000_000,
        b'{"id":7, "jsonrpc":"2.0"  , ' + b" " * 4_000_000 + b"x",
        b'{"result":' + b"1" * 4_000_000,
        b'{"result":1' + b" ,1" * 1_500_000,
        b'{"result":1' + b' ,"id":1 ,"jsonrpc":"2.0"' * 150_000,
    ],
    ids=range(7),
)
def test_no_line_costs_more_than_its_length(line: bytes) -> None:
    """Lines made to be read over and over are read once; a square would never end."""
    assert answer_id(line) is None
    assert answer_id(overlong(line)) is None
