"""Maps the ids and progress tokens on one child's pipe to their calls.

Many clients number their requests from 0 or 1, so their ids collide on a shared pipe; and an id of
one client must never be answerable by, or visible to, another. Every request therefore gets a
number from the bridge, unique for the life of the child, and its progress token, if it has one,
becomes the same number: what comes back under that number belongs to exactly one call and gets its
sender's own id and token again, spelled as they came. Nothing a client writes reaches the child as
an id, a token or a `requestId` without being mapped here, so a client cannot name another client's
call.


A number that is not, or no longer, in the table has no owner: a late answer, a second answer, an
invention of the child. It is dropped and counted; the bridge never guesses.

The other direction has a separate table: a child numbers its requests from 0 too. They get a number
from the bridge for the client, and only an answer that names it, from the very session that was
asked, returns to the child under the child's id.

Source: JSON-RPC 2.0, 4 and 5; MCP 2025-11-25, Progress and Cancellation.
"""

from __future__ import annotations

import enum
from typing import Generic, TypeVar

import msgspec

from mcpbridge.rules.mcp.methods import CANCELLED, PROGRESS, SUBSCRIPTION_ID
from mcpbridge.wire.json_object import (
    Payload,
    Span,
    may_hold_meta,
    object_at,
    replaced,
    spans,
    spliced,
    unambiguous,
)
from mcpbridge.wire.messages import (
    Failure,
    Message,
    Notification,
    Reply,
    Request,
    Result,
    text_of,
)

Owner = TypeVar("Owner")
"""The party that waits for an answer; the table only stores it."""


class Dropped(enum.Enum):
    """The reason why a message of the child is dropped; each is counted under its name."""

    UNKNOWN_ANSWER = "unknown_answer"
    """Unknown call: late, answered twice, or invented."""
    UNKNOWN_PROGRESS = "unknown_progress"
    UNKNOWN_CANCEL = "unknown_cancel"
    UNKNOWN_SUBSCRIPTION = "unknown_subscription"


class Answered(msgspec.Struct, Generic[Owner], frozen=True):
    """The final answer to a call, with its client's own id."""

    owner: Owner
    reply: Reply
    number: int
    """The number of the call on the pipe."""


class Progressed(msgspec.Struct, Generic[Owner], frozen=True):
    """A progress notification of a call, with its client's own token."""

    owner: Owner
    notification: Notification


class Tagged(msgspec.Struct, Generic[Owner], frozen=True):
    """A notification for one `subscriptions/listen`, tagged with its client's own id."""

    owner: Owner
    notification: Notification


class Asked(msgspec.Struct, frozen=True):
    """A server request; this table does not decide which client to ask."""

    request: Request
    """With the child's own id."""


class Withdrawn(msgspec.Struct, frozen=True):
    """A cancellation of a server request by the child."""

    child_id: bytes
    notification: Notification


class Told(msgspec.Struct, frozen=True):
    """A notification that names no call."""

    notification: Notification


Inbound = Answered[Owner] | Progressed[Owner] | Tagged[Owner] | Asked | Withdrawn | Told | Dropped


class _Call(msgspec.Struct, Generic[Owner]):
    owner: Owner
    client_id: bytes
    token: bytes | None
    outlives: bool
    """A task of 2025-11-25 reports progress under its call's token after the answer."""


_TAG = SUBSCRIPTION_ID.encode()
_LOW_LINE = ord("_")
_LATE_TOKENS = 256
"""Tasks whose progress is mapped after their call was answered; the oldest is dropped first."""


class Correlator(Generic[Owner]):
    """The table of calls in flight on one child's pipe; owned by that pipe's mux."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call[Owner]] = {}
        self._tasks: dict[int, _Call[Owner]] = {}
        self.last = 0
        """The number given last; as many have been given."""

    def __len__(self) -> int:
        return len(self._calls)

    def outbound(self, request: Request, owner: Owner) -> tuple[int, Request]:
        """Number a client's request for the child's pipe.

        Returns:
            The number, and the request to send, with that number as its id and, if the request
            had a progress token, as its token.

        Raises:
            DuplicateMember: `params` or `_meta` names a member twice, perhaps in different case,
                so that the child might read another token than the one that was replaced.
        """
        params, token = request.params, None
        if params is not None and may_hold_meta(params, b'"_'):
            # `_meta` may be there, perhaps in capitals or with escapes: a token left in place could
            # name another client's call.
            params, token = _with_token(params, b"%d" % (self.last + 1))
        self.last += 1
        outlives = token is not None and params is not None and "task" in spans(params)
        self._calls[self.last] = _Call(owner, request.id, token, outlives)
        return self.last, Request(b"%d" % self.last, request.method, params, request.extra)

    def forget(self, number: int) -> None:
        """Remove a call that is over; whatever still comes for it is late."""
        self._calls.pop(number, None)

    def end_all(self) -> list[Owner]:
        """Remove all calls; return their owners, oldest call first."""
        owners = self.owners()
        self._calls.clear()
        return owners

    def waiting(self) -> list[tuple[int, Owner]]:
        """Return every call's number and owner, oldest call first."""
        return [(number, call.owner) for number, call in self._calls.items()]

    def owner(self, number: int | None) -> Owner | None:
        """Return the owner of the call with this number, or None."""
        call = self._calls.get(number) if number is not None else None
        return call.owner if call is not None else None

    def owners(self) -> list[Owner]:
        """Return the owners of all calls, oldest call first."""
        return [call.owner for call in self._calls.values()]

    def inbound(self, message: Message) -> Inbound[Owner]:
        """Return what a message of the child means; an answer ends its call.

        Raises:
            WireError: A malformed progress or cancellation, which concerns no call. Or an answer
                whose tag cannot be read; its call waits on.
        """
        if isinstance(message, Result):  # the usual one needs no class pattern: see `pieces`
            return self._answer(message)
        match message:
            case Request():
                return Asked(message)
            case Notification(method=method):
                if method == PROGRESS:
                    return self._progress(message)
                if method == CANCELLED:
                    return _withdrawal(message)
                if message.params is not None and _may_be_tagged(message.params):
                    return self._tagged(message, message.params)
                return Told(message)
            case _:
                return self._answer(message)

    def _answer(self, reply: Reply) -> Answered[Owner] | Dropped:
        number = number_of(reply.id) or 0
        call = self._calls.get(number)
        if call is None:
            return Dropped.UNKNOWN_ANSWER
        answer: Reply
        if isinstance(reply, Result):
            result = reply.result
            tagged = _LOW_LINE in result and _may_be_tagged(result)
            if tagged and (span := _span_at(result, "_meta", SUBSCRIPTION_ID)):
                result = spliced(result, span, call.client_id)
            answer = Result(call.client_id, result, reply.extra)
        else:
            answer = Failure(call.client_id, reply.error, reply.extra)
        del self._calls[number]
        if call.outlives:
            self._tasks[number] = call
            if len(self._tasks) > _LATE_TOKENS:
                self._tasks.pop(next(iter(self._tasks)))
        return Answered(call.owner, answer, number)

    def _progress(self, notification: Notification) -> Progressed[Owner] | Dropped:
        params = notification.params or b""
        span = spans(params).get("progressToken")
        number = number_of(params[slice(*span)]) if span is not None else None
        call = self._calls.get(number or 0) or self._tasks.get(number or 0)
        if call is None or call.token is None or span is None:
            return Dropped.UNKNOWN_PROGRESS
        own = replaced(params, [(span, call.token)])
        return Progressed(call.owner, Notification(PROGRESS, own, notification.extra))

    def _tagged(self, notification: Notification, params: bytes) -> Tagged[Owner] | Told | Dropped:
        span = _span_at(params, "_meta", SUBSCRIPTION_ID)
        if span is None:
            return Told(notification)
        call = self._calls.get(number_of(params[slice(*span)]) or 0)
        if call is None:
            return Dropped.UNKNOWN_SUBSCRIPTION
        own = replaced(params, [(span, call.client_id)])
        return Tagged(call.owner, Notification(notification.method, own, notification.extra))


def cancelled_id(notification: Notification) -> bytes | None:
    """Return the raw `requestId` in a `notifications/cancelled`, or None.

    Raises:
        DuplicateMember: Another reader of `params` could find another one.
    """
    params = notification.params
    span = _request_id_span(params)
    return params[slice(*span)] if params is not None and span is not None else None


def renamed_cancel(notification: Notification, request_id: bytes) -> Notification:
    """Return the same cancellation with the id that its receiver knows the request by.

    Raises:
        DuplicateMember: Another reader of `params` could find another `requestId`.
        KeyError: The notification names no request.
    """
    params = notification.params or b"{}"
    span = _request_id_span(params)
    if span is None:
        raise KeyError("requestId")
    return Notification(CANCELLED, spliced(params, span, request_id), notification.extra)


def cancel_for(number: int, reason: str) -> Notification:
    """Return the bridge's own cancellation of a call, for the child."""
    params = b'{"requestId":%d,"reason":%b}' % (number, msgspec.json.encode(reason))
    return Notification(CANCELLED, params)


def _request_id_span(params: bytes | None) -> Span | None:
    if params is None or not params.startswith(b"{"):
        return None
    return unambiguous(spans(params), "requestId")


def _with_token(params: bytes, number: bytes) -> tuple[bytes, bytes | None]:
    if not params.startswith(b"{"):
        return params, None
    meta_span = unambiguous(spans(params), "_meta")
    if meta_span is None:
        return params, None
    meta = object_at(params, meta_span)
    if not meta.startswith(b"{"):
        return params, None
    token_span = unambiguous(spans(meta), "progressToken")
    if token_span is None:
        return params, None
    offset = meta_span[0]
    absolute = (token_span[0] + offset, token_span[1] + offset)
    return spliced(params, absolute, number), meta[slice(*token_span)]


def _may_be_tagged(data: bytes) -> bool:
    """Return whether a text may name a subscription; a long text is not searched if it is known."""
    if type(data) is Payload and data.known is not None:
        return "_meta" in data.known
    return data.find(_TAG) >= 0


def _span_at(data: bytes, *path: str) -> Span | None:
    """Return the span of the value at a path of member names; None if the path ends early."""
    start, end = 0, len(data)
    for name in path:
        if not data.startswith(b"{"):
            return None
        found = spans(data).get(name)
        if found is None:
            return None
        data = object_at(data, found)
        start, end = start + found[0], start + found[1]
    return start, end


def _withdrawal(notification: Notification) -> Withdrawn | Dropped:
    child_id = cancelled_id(notification)
    return Withdrawn(child_id, notification) if child_id is not None else Dropped.UNKNOWN_CANCEL


def number_of(raw: bytes | None) -> int | None:
    """Return the number in an id or token of the bridge; some children turn it into a string."""
    if raw is None:
        return None
    digits = raw
    if raw[:1] == b'"':
        text = text_of(raw)
        digits = text.encode() if text is not None else b""
    return int(digits) if digits.isdigit() and len(digits) <= 15 else None
