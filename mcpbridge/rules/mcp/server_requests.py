"""Chooses the stream for a server request, and keeps the open ones."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator

import msgspec

from mcpbridge.rules.mcp.correlator import Withdrawn, number_of, renamed_cancel
from mcpbridge.wire.messages import (
    Failure,
    Notification,
    Reply,
    Request,
    Result,
)


class Destination(enum.Enum):
    """The stream that a server request goes to."""

    ONLY_CALL = "the stream of the one call in flight"
    LISTENER = "the session's standalone stream, which the client reads"
    LATEST_CALL = "the stream of the call that began last"
    QUEUE = "the standalone stream, for when the client reads it"
    DECLINED = "nowhere: the client does not offer it"


def roots_result(uris: Iterable[str]) -> bytes:
    """Return the result of `roots/list` with these URIs."""
    roots = [{"uri": uri, "name": uri.rstrip("/").rpartition("/")[2]} for uri in uris]
    return msgspec.json.encode({"roots": roots})


class CallsInFlight(enum.Enum):
    """The number of calls in flight whose clients read event streams."""

    NONE = "none"
    ONE = "one"
    SEVERAL = "several"


DESTINATIONS: dict[tuple[CallsInFlight, bool], Destination] = {
    (CallsInFlight.NONE, False): Destination.QUEUE,
    (CallsInFlight.NONE, True): Destination.LISTENER,
    (CallsInFlight.ONE, False): Destination.ONLY_CALL,
    (CallsInFlight.ONE, True): Destination.ONLY_CALL,
    (CallsInFlight.SEVERAL, False): Destination.LATEST_CALL,
    (CallsInFlight.SEVERAL, True): Destination.LISTENER,
}
"""By calls in flight, and whether the client reads the standalone stream.

A child does not say which call its request belongs to. With one call in flight there is no doubt;
with several, any choice is a guess that only moves the dialog to another stream of the same
client: clients answer by message, not by stream.
"""


def destination_of(offered: bool, calls: int, listening: bool) -> Destination:
    """Return the stream for a request of a session's own child."""
    if not offered:
        return Destination.DECLINED
    count = (
        CallsInFlight.NONE
        if not calls
        else CallsInFlight.ONE
        if calls == 1
        else CallsInFlight.SEVERAL
    )
    return DESTINATIONS[count, listening]


class ServerRequestTable:
    """The server requests of one session that are not answered yet."""

    __slots__ = ("_child_ids", "_numbers")

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._child_ids: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._child_ids)

    def ask(self, request: Request) -> tuple[int, Request]:
        """Give a server request a number for the client."""
        number = next(self._numbers)
        self._child_ids[number] = request.id
        return number, Request(b"%d" % number, request.method, request.params, request.extra)

    def answered(self, reply: Reply) -> tuple[int, Reply] | None:
        """Return the number of an answered request, and the answer with the child's id.

        None if no request has the answer's id.
        """
        number = number_of(reply.id) or 0
        child_id = self._child_ids.pop(number, None)
        if child_id is None:
            return None
        if isinstance(reply, Result):
            return number, Result(child_id, reply.result, reply.extra)
        return number, Failure(child_id, reply.error, reply.extra)

    def withdrawn(
        self, withdrawal: Withdrawn, numbers: Collection[int]
    ) -> tuple[int, Notification] | None:
        """Return the number of a withdrawn request and its cancellation; None if it is not open.

        Args:
            withdrawal: Names the request by the child's own id.
            numbers: The numbers of this child's requests: another child may use the same id.
        """
        for number, child_id in self._child_ids.items():
            if child_id == withdrawal.child_id and number in numbers:
                del self._child_ids[number]
                return number, renamed_cancel(withdrawal.notification, b"%d" % number)
        return None

    def give_up(self, number: int) -> bytes | None:
        """Stop waiting for an answer; return the child's id, or None if it was not open."""
        return self._child_ids.pop(number, None)
