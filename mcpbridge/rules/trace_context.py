"""Finds the trace of a request: in `params._meta`, where it travels on, or in HTTP headers.

`_meta` wins, since it is closer to the call. A trace in the headers is copied there if `_meta`
names none, so that the server can continue the client's trace even if the bridge itself traces
nothing.


Source: W3C Trace Context, 3.2 and 3.3; MCP 2026-07-28, `_meta`: the keys `traceparent` and
`tracestate`; OpenTelemetry semantic conventions for MCP, Context propagation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.wire.json_object import Payload, Span, member, opened, packed, spans
from mcpbridge.wire.messages import quoted, text_of

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_STATE = 512
_SIGN = b"traceparent"


class Trace(msgspec.Struct, frozen=True):
    """A position in a trace: the trace's id and the parent span."""

    traceparent: str
    tracestate: str = ""


def trace_of(traceparent: str | None, tracestate: str | None) -> Trace | None:
    """Return the trace in two header values; None if `traceparent` is invalid.

    A state that is too long or not printable ASCII is left out, as the standard requires.
    """
    if traceparent is None or _PARENT.fullmatch(traceparent) is None:
        return None
    state = tracestate or ""
    good = len(state) <= _MAX_STATE and state.isascii() and state.isprintable()
    return Trace(traceparent, state if good else "")


def trace_in(params: bytes | None) -> Trace | None:
    """Return the trace that a request's params name, or None."""
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
    """Return the params with this trace in `_meta`, in place of any other.

    Params that are not an object or have repeated members stay unchanged.
    """
    try:
        found = spans(params) if params is not None else {}
        bare = params is not None and params[:1] == b"{" and params[-1:] == b"}"
        if params is not None and bare and found and "_meta" not in found:
            return _appended(params, found, trace)
        members = opened(params) if params is not None else {}
        meta = opened(members.get("_meta", b"{}"))
    except WireError:
        return params
    meta.pop(TRACESTATE, None)
    meta[TRACEPARENT] = quoted(trace.traceparent)
    if trace.tracestate:
        meta[TRACESTATE] = quoted(trace.tracestate)
    return packed({**members, "_meta": packed(meta)})


def _appended(params: bytes, found: Mapping[str, Span], trace: Trace) -> bytes:
    """Return the params with this trace at the end.

    Args:
        params: An object without blanks around it, with members, but without `_meta`.
        found: Its members.
        trace: The trace.
    """
    state = b',"tracestate":' + quoted(trace.tracestate) if trace.tracestate else b""
    meta = b'{"traceparent":"%b"%b}' % (trace.traceparent.encode(), state)
    start = len(params) - 1 + len(',"_meta":')
    known = {**found, "_meta": (start, start + len(meta))}
    return Payload(b'%b,"_meta":%b}' % (params[:-1], meta)).knowing(known)


def carried(params: bytes | None, traceparent: str | None, tracestate: str | None) -> bytes | None:
    """Return the params with the trace of the HTTP headers, if they name none themselves."""
    trace = trace_of(traceparent, tracestate)
    return params if trace is None or trace_in(params) is not None else with_trace(params, trace)
