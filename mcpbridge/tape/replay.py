"""A server that answers from a recording.

A request is answered like the recorded one with the same method and the same params without
`_meta`: in the recorded order, the last answer again and again. Notifications that came between
request and answer are sent before the answer, and requests of the server wait for the client's
answer there. A request that was not recorded gets an error that names it.

What a server offers may depend on what its client can do. After an `initialize` with the
capabilities of a recorded one, the answers of that session come first, then those of all sessions.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import msgspec

from mcpbridge.errors import WireError
from mcpbridge.rules.mcp.methods import DISCOVER, INITIALIZE, LISTEN, PING, SUBSCRIPTION_ID
from mcpbridge.tape.frame import Direction, Frame, value_at
from mcpbridge.tape.redaction import MASK, Redactor
from mcpbridge.wire.json_object import part, spans, spliced, without
from mcpbridge.wire.lines import Line, LineSplitter, OverlongLine, encode_line
from mcpbridge.wire.messages import (
    Failure,
    Message,
    Notification,
    Reply,
    Request,
    Result,
    canonical_id,
    decode,
    decode_batch,
    encode,
    is_batch,
)

MOST_LINE_BYTES = 64 << 20
_PARSE_ERROR, _INVALID_REQUEST, _UNKNOWN_METHOD, _INVALID_PARAMS = -32700, -32600, -32601, -32602
_INTERNAL_ERROR = -32603
_BY_METHOD = (INITIALIZE, DISCOVER)
"""Their params name the client, which may be another one than the recorded."""
_SHOWN_CHARACTERS = 300
_READ_BYTES = 1 << 16
_EXACT_FLOAT = 2.0**53


class RecordedExchange(msgspec.Struct):
    """A recorded request, what came before its answer, and the answer."""

    request: Request
    steps: list[Notification | Request]
    answer: list[Reply]
    """Empty if the recording ends before it, or the request was cancelled."""
    session: str
    """The recorded conversation that it is a part of."""


class _Script(msgspec.Struct):
    """The exchanges of equal requests, in order."""

    method: str
    params: Any
    exchanges: list[RecordedExchange]
    played: int = 0

    def next(self) -> RecordedExchange:
        """Return the next exchange; the last one again if all were played."""
        exchange = self.exchanges[min(self.played, len(self.exchanges) - 1)]
        self.played += 1
        return exchange


class _Playing(msgspec.Struct):
    """An exchange that is being replayed for a client's request."""

    request: Request
    exchange: RecordedExchange
    at: int = 0


def exchanges_of(frames: Iterable[Frame]) -> list[RecordedExchange]:
    """Return the recorded requests of clients, in order, each with what belongs to it."""
    found: list[RecordedExchange] = []
    pending: dict[tuple[str, bytes], RecordedExchange] = {}
    for frame in frames:
        session = frame.session_id
        match frame.direction, frame.message:
            case Direction.TO_SERVER, Request() as request:
                exchange = RecordedExchange(request, [], [], session)
                found.append(exchange)
                pending[session, canonical_id(request.id)] = exchange
            case Direction.FROM_SERVER, Result() | Failure() as reply if reply.id is not None:
                answered = pending.pop((session, canonical_id(reply.id)), None)
                if answered is not None:
                    answered.answer.append(reply)
            case Direction.FROM_SERVER, Notification() | Request() as step:
                owner = _owner(step, [each for key, each in pending.items() if key[0] == session])
                if owner is not None:
                    owner.steps.append(step)
    return found


def _owner(
    step: Notification | Request, open_ones: Sequence[RecordedExchange]
) -> RecordedExchange | None:
    """Return the request that a message of the server belongs to; the latest one if unsaid."""
    token = value_at(step.params, "progressToken")
    if step.method == "notifications/progress" and token is not None:
        for each in open_ones:
            if value_at(each.request.params, "_meta", "progressToken") == token:
                return each
        return None
    return open_ones[-1] if open_ones else None


class Replay:
    """A server made of a recording; pure: messages in, messages out."""

    def __init__(self, frames: Iterable[Frame], *, is_redacted: bool = True) -> None:
        """Make a server.

        Args:
            frames: The recording.
            is_redacted: Whether its secrets were removed; then those of requests are too, before
                they are compared.
        """
        self._redactor = Redactor() if is_redacted else None
        self._scripts: dict[tuple[str, str], _Script] = {}
        self._groups: dict[str, dict[tuple[str, str], _Script]] = {}
        """The scripts of sessions whose clients had the same capabilities."""
        self._group: dict[tuple[str, str], _Script] = {}
        """The scripts of those whose clients had the capabilities of this one."""
        self._masked: list[_Script] = []
        self._by_method: dict[str, _Script] = {}
        self._asked: dict[bytes, _Playing] = {}
        self._questions = 0
        self.requests = 0
        """How many requests it can answer in order."""
        exchanges = exchanges_of(frames)
        groups = {
            each.session: self._groups.setdefault(_capabilities(each.request), {})
            for each in exchanges
            if each.request.method == INITIALIZE
        }
        for exchange in exchanges:
            self._add(exchange, groups.get(exchange.session))

    def _add(
        self, exchange: RecordedExchange, group: dict[tuple[str, str], _Script] | None
    ) -> None:
        self.requests += 1
        params, key = self._key(exchange.request)
        if group is not None:
            group.setdefault(key, _Script(key[0], params, [])).exchanges.append(exchange)
        script = self._scripts.get(key)
        if script is None:
            script = self._scripts[key] = _Script(key[0], params, [])
            if self._redactor is not None and MASK in key[1]:
                self._masked.append(script)
        script.exchanges.append(exchange)
        by_method = self._by_method.setdefault(key[0], _Script(key[0], None, []))
        by_method.exchanges.append(exchange)

    def receive(self, message: Message) -> list[Message]:
        """Return what the server says to a message of its client."""
        match message:
            case Request():
                return self._request(message)
            case Notification(method="notifications/cancelled", params=params):
                self._cancel(value_at(params, "requestId"))
            case Result() | Failure() if message.id is not None:
                playing = self._asked.pop(canonical_id(message.id), None)
                if playing is not None:
                    return self._play(playing)
        return []

    def _request(self, request: Request) -> list[Message]:
        script = self._script_for(request)
        if script is not None:
            return self._play(_Playing(request, script.next()))
        if request.method == PING:
            return [Result(request.id, b"{}")]
        known = request.method in self._by_method
        what = "the recording has no such request" if known else "the recording has no such method"
        code = _INVALID_PARAMS if known else _UNKNOWN_METHOD
        return [_failure(request.id, code, f"{what}: {_named(request)}")]

    def _script_for(self, request: Request) -> _Script | None:
        if request.method == INITIALIZE:
            self._group = self._groups.get(_capabilities(request), {})
        params, key = self._key(request)
        script = self._group.get(key) or self._scripts.get(key)
        if script is None:
            # Nothing deeper than a parser reads; then it is another request.
            with contextlib.suppress(RecursionError):
                script = self._alike(request.method, params)
        if script is None and request.method in _BY_METHOD:
            script = self._by_method.get(request.method)
        return script

    def _alike(self, method: str, params: Any) -> _Script | None:
        """Return the exchanges of requests that differ in removed secrets at most."""
        for each in self._masked:
            if each.method == method and _matches(each.params, params):
                return each
        return None

    def _play(self, playing: _Playing) -> list[Message]:
        said: list[Message] = []
        exchange, request = playing.exchange, playing.request
        steps = exchange.steps[playing.at :]
        for number, step in enumerate(steps, start=playing.at + 1):
            if isinstance(step, Request):
                self._questions += 1
                asked = b'"replay-%d"' % self._questions
                self._asked[asked] = _Playing(request, exchange, number)
                return [*said, Request(asked, step.method, step.params, step.extra)]
            told = _retargeted(step, exchange.request, request)
            said += [told] if told is not None else []
        if exchange.answer:
            reply = exchange.answer[0]
            said.append(msgspec.structs.replace(reply, id=request.id))
        elif request.method != LISTEN:
            problem = f"the recording has no answer to this request: {_named(request)}"
            said.append(_failure(request.id, _INTERNAL_ERROR, problem))
        return said

    def _cancel(self, request_id: bytes | None) -> None:
        """Let go of a request that waits for its client, which wants no answer any more."""
        if request_id is not None:
            wanted = canonical_id(request_id)
            self._asked = {
                asked: each
                for asked, each in self._asked.items()
                if canonical_id(each.request.id) != wanted
            }

    def _key(self, request: Request) -> tuple[Any, tuple[str, str]]:
        params = request.params or b"{}"
        with contextlib.suppress(WireError):
            # Else a member stands twice: compared as it is.
            if params.startswith(b"{"):
                params = without(params, ("_meta",))
        if self._redactor is not None:
            params = self._redactor.payload(params, "params")
        value = json.loads(params, parse_float=_number)
        return value, (request.method, json.dumps(value, sort_keys=True))


def serve(replay: Replay, source: io.BufferedReader, sink: BinaryIO) -> None:
    """Answer the lines of `source` in `sink`, until `source` ends or the client reads no more."""
    splitter = LineSplitter(MOST_LINE_BYTES)
    reading = True
    while reading:
        chunk = source.read1(_READ_BYTES)
        reading = bool(chunk)
        lines = splitter.feed(chunk) if chunk else splitter.end()
        try:
            for line in lines:
                for message in _answers(replay, line):
                    sink.write(encode_line(encode(message)))
            sink.flush()
        except BrokenPipeError:
            return


def _answers(replay: Replay, line: Line) -> list[Message]:
    if isinstance(line, OverlongLine):
        problem = f"a message of {line.size} bytes (limit: {MOST_LINE_BYTES >> 20} MiB)"
        return [_failure(None, _INVALID_REQUEST, problem)]
    try:
        received = decode_batch(line) if is_batch(line) else [decode(line)]
    except WireError as error:
        code = _INVALID_REQUEST if error.request_id is not None else _PARSE_ERROR
        return [_failure(error.request_id, code, error.detail)]
    return [said for each in received for said in replay.receive(each)]


def _capabilities(request: Request) -> str:
    """Return the capabilities in an `initialize`, in one spelling."""
    found = value_at(request.params, "capabilities") or b"{}"
    return json.dumps(json.loads(found), sort_keys=True)


def _retargeted(step: Notification, old: Request, new: Request) -> Notification | None:
    """Return a notification with the client's own tokens; None if the client gave none for it."""
    params = step.params
    if params is None or not params.startswith(b"{"):
        return step
    try:
        members = spans(params)
    except WireError:
        return step
    token = members.get("progressToken")
    if token is not None and step.method == "notifications/progress":
        fresh = value_at(new.params, "_meta", "progressToken")
        if fresh is None:
            return None
        return msgspec.structs.replace(step, params=spliced(params, token, fresh))
    meta = members.get("_meta")
    if meta is None or value_at(params, "_meta", SUBSCRIPTION_ID) != old.id:
        return step
    own = spliced(part(params, meta), spans(part(params, meta))[SUBSCRIPTION_ID], new.id)
    return msgspec.structs.replace(step, params=spliced(params, meta, own))


def _matches(recorded: Any, live: Any) -> bool:
    """Return whether a value is a recorded one, of which secrets were removed."""
    match recorded, live:
        case dict(), dict():
            return recorded.keys() == live.keys() and all(
                _matches(value, live[name]) for name, value in recorded.items()
            )
        case list(), list():
            return len(recorded) == len(live) and all(map(_matches, recorded, live))
        case str(), str() if MASK in recorded:
            pattern = ".*".join(map(re.escape, recorded.split(MASK)))
            return re.fullmatch(pattern, live, re.DOTALL) is not None
    if recorded == MASK:
        return isinstance(live, int | float) and not isinstance(live, bool)
    return json.dumps(recorded) == json.dumps(live)


def _number(text: str) -> float | int:
    """Return a number; `1.0` is `1`, since clients of other languages write it so."""
    value = float(text)
    exact = math.isfinite(value) and value.is_integer() and abs(value) < _EXACT_FLOAT
    return int(value) if exact else value


def _named(request: Request) -> str:
    params = request.params or b"{}"
    text = f"{request.method} {params.decode('utf-8', 'replace')}"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _failure(request_id: bytes | None, code: int, message: str) -> Failure:
    return Failure(request_id, msgspec.json.encode({"code": code, "message": message}))
