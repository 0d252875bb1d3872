"""The trace a request belongs to: in `params._meta`, where it travels on, or in HTTP headers.

`_meta` wins, being closer to the call. What a header says is copied there where nothing stands yet,
so that the server behind can go on with the client's trace even if the bridge itself traces
nothing.

Source: W3C Trace Context, 3.2 and 3.3; MCP 2026-07-28, `_meta`: the keys `traceparent` and
`tracestate`; OpenTelemetry semantic conventions for MCP, Context propagation.
"""

from __future__ import annotations

import re

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.wire.json_object import member, opened, packed
from mcpbridge.wire.messages import quoted, text_of

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_STATE = 512
_SIGN = b"traceparent"


class Trace(msgspec.Struct, frozen=True):
    """A place in a trace: its id and the span above."""

    traceparent: str
    tracestate: str = ""


def trace_of(traceparent: str | None, tracestate: str | None) -> Trace | None:
    """The trace in two header values; None where the first is none.

    A state that is too long or not of visible characters is left out, as the standard says.
    """
    if traceparent is None or _PARENT.fullmatch(traceparent) is None:
        return None
    state = tracestate or ""
    good = len(state) <= _MAX_STATE and state.isascii() and state.isprintable()
    return Trace(traceparent, state if good else "")


def trace_in(params: bytes | None) -> Trace | None:
    """The trace that a request's params name."""
    if params is None or _SIGN not in params:
        return None
    try:
        meta = member(params, "_meta")
        if meta is None or not meta.startswith(b"{"):
            return None
        members = opened(meta)
    except WireError:
        return None
    return trace_of(text_of(members.get(TRACEPARENT)), text_of(members.get(TRACESTATE)))


def with_trace(params: bytes | None, trace: Trace) -> bytes | None:
    """The params with this trace in `_meta`, in place of any other.

    Params that are no object, or that say something twice, stay as they are.
    """
    try:
        members = opened(params) if params is not None else {}
        meta = opened(members.get("_meta", b"{}"))
    except WireError:
        return params
    meta.pop(TRACESTATE, None)
    meta[TRACEPARENT] = quoted(trace.traceparent)
    if trace.tracestate:
        meta[TRACESTATE] = quoted(trace.tracestate)
    return packed({**members, "_meta": packed(meta)})


def carried(params: bytes | None, traceparent: str | None, tracestate: str | None) -> bytes | None:
    """The params with the trace of the HTTP headers, where they name none themselves."""
    trace = trace_of(traceparent, tracestate)
    return params if trace is None or trace_in(params) is not None else with_trace(params, trace)
