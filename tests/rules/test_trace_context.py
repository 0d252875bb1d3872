"""The trace in `_meta`, the trace in headers, and which of them wins."""

from __future__ import annotations

import pytest

from mcpbridge.rules.trace_context import Trace, carried, trace_in, trace_of, with_trace
from mcpbridge.wire.json_object import spans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-00"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        PARENT.upper(),
        PARENT + "-extra",
        PARENT[:-1],
        "ff" + PARENT[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
def test_what_is_no_trace_is_none(text: str | None) -> None:
    """W3C Trace Context, 3.2.2: an invalid header is as good as absent."""
    assert trace_of(text, "a=1") is None
    assert carried(b'{"x":1}', text, None) == b'{"x":1}'


@pytest.mark.parametrize(
    ("state", "kept"),
    [(None, ""), ("a=1,b=2", "a=1,b=2"), ("x" * 513, ""), ("\u00e4=1", ""), ("a=\n", "")],
)
def test_a_state_that_is_none_is_left_out(state: str | None, kept: str) -> None:
    """The parent stands without it."""
    assert trace_of(PARENT, state) == Trace(PARENT, kept)


@pytest.mark.parametrize(
    ("params", "trace"),
    [
        (None, None),
        (b"{}", None),
        (b'["traceparent"]', None),
        (b'{"traceparent":"%b"}' % PARENT.encode(), None),
        (b'{"_meta":"traceparent"}', None),
        (b'{"_meta":{"traceparent":7}}', None),
        (b'{"_meta":{},"_meta":{"traceparent":"x"}}', None),
        (b'{"_meta":{"traceparent":"%b"}}' % PARENT.encode(), Trace(PARENT)),
        (
            b'{"_meta":{"tracestate":"a=1","traceparent":"%b"}}' % PARENT.encode(),
            Trace(PARENT, "a=1"),
        ),
    ],
)
def test_params_name_a_trace_in_meta_alone(params: bytes | None, trace: Trace | None) -> None:
    """What says it twice, or elsewhere, says nothing."""
    assert trace_in(params) == trace


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, b'{"_meta":{"traceparent":"%b"}}'),
        (b"{}", b'{"_meta":{"traceparent":"%b"}}'),
        (b'{"n":1.50,"a":[ ]}', b'{"n":1.50,"a":[ ],"_meta":{"traceparent":"%b"}}'),
        (
            b'{"_meta":{"k":1,"traceparent":"old","tracestate":"old"},"z":2}',
            b'{"_meta":{"k":1,"traceparent":"%b"},"z":2}',
        ),
    ],
)
def test_a_trace_takes_the_place_of_another(before: bytes | None, after: bytes) -> None:
    """Everything else keeps its place and its spelling."""
    assert with_trace(before, Trace(PARENT)) == after % PARENT.encode()


@pytest.mark.parametrize("params", [b'{"a":1}', b'{"a":[{}],"b":"}"} ', b' { "a" : 1 } '])
def test_params_with_a_trace_know_where_their_members_are(params: bytes) -> None:
    """As a walk over the text would find them, so that none is needed."""
    found = with_trace(params, Trace(PARENT, "k=v"))
    assert found is not None
    assert dict(spans(found)) == dict(spans(bytes(found)))
    assert trace_in(bytes(found)) == Trace(PARENT, "k=v")


@pytest.mark.parametrize("params", [b"[1]", b'{"_meta":null}', b'{"_meta":[]}', b'{"a":1,"a":2}'])
def test_params_that_cannot_carry_a_trace_stay(params: bytes) -> None:
    """Whatever is wrong with them is for others to say."""
    assert with_trace(params, Trace(PARENT)) == params


def test_a_header_gives_way_to_what_the_message_says() -> None:
    """It is copied, with its state, only where the message names no trace."""
    own = b'{"_meta":{"traceparent":"%b"}}' % OTHER.encode()

    assert carried(own, PARENT, "a=1") == own
    assert trace_in(carried(b"{}", PARENT, "a=1")) == Trace(PARENT, "a=1")
