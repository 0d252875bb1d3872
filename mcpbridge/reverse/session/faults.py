"""The errors that a client gets from `mcpbridge connect` itself, and what they say of the call."""

from __future__ import annotations

from mcpbridge.rules.faults import TIMED_OUT, UNREACHABLE, Executed, Fault, Unavailable
from mcpbridge.wire.messages import Failure

BROKEN = "connection_broken"
"""Reason of a fault if the connection ended before the answer."""


class RemoteRefused(Unavailable):
    """A request that the remote server answered with an HTTP error instead of an answer."""

    def __init__(self, fault: Fault, status: int, failure: Failure | None) -> None:
        super().__init__(fault)
        self.status = status
        self.failure = failure
        """The JSON-RPC error that came with it, if any."""


class SessionLost(Unavailable):
    """A request for a session that the remote server does not know; it did not execute it."""


def unreachable(server: str, problem: str) -> Unavailable:
    """Return the failure of a request for which no connection could be made."""
    text = f"the remote MCP server {server} cannot be reached: {problem}"
    return Unavailable(Fault(UNREACHABLE, text, retryable=True, retry_after_s=1), problem)


def broken(server: str, problem: str) -> Unavailable:
    """Return the failure of a request that was sent and whose answer did not arrive."""
    text = f"the connection to the remote MCP server {server} broke before its answer: {problem}"
    return Unavailable(Fault(BROKEN, text, "maybe"), problem)


def session_lost(server: str) -> SessionLost:
    """Return the failure of a request in a session that the server has ended."""
    text = f"the remote MCP server {server} has ended the session"
    return SessionLost(Fault("session_lost", text, retryable=True))


def refused(
    server: str, status: int, reason: str, hint: str = "", failure: Failure | None = None
) -> RemoteRefused:
    """Return the failure of a request that was answered with an HTTP error."""
    executed: Executed = "no" if status < 500 else "maybe"
    text = f"the remote MCP server {server} answered {status} {reason}".rstrip()
    fault = Fault("remote_refused", f"{text}; {hint}" if hint else text, executed)
    return RemoteRefused(fault, status, failure)


def malformed(server: str, problem: str) -> Unavailable:
    """Return the failure of a request whose answer is not what MCP defines."""
    text = f"the answer of the remote MCP server {server} is malformed: {problem}"
    return Unavailable(Fault("malformed_answer", text, "maybe"))


def response_too_large(limit: int, setting: str) -> Unavailable:
    """Return the failure of a request whose answer is over the limit."""
    text = f"the answer exceeds {limit} bytes ({setting})"
    return Unavailable(Fault("response_too_large", text, "maybe"))


def line_too_large(size: int, limit: int) -> Fault:
    """Return the fault of a line of the client that is over the limit."""
    text = f"a line of {size} bytes exceeds {limit} bytes (--max-line-bytes)"
    return Fault("message_too_large", text)


def over_capacity(what: str) -> Fault:
    """Return the fault of a request beyond a limit; `what` names count and setting."""
    return Fault("capacity", what, retryable=True, retry_after_s=1)


def overdue(limit_s: float, setting: str) -> Unavailable:
    """Return the failure of a request that was not answered in time."""
    text = f"no answer within {limit_s:g} s ({setting})"
    return Unavailable(Fault(TIMED_OUT, text, "maybe"))
