"""What a client is told when the bridge, not the server, has to answer.

Every fault becomes `-32603` with `data.mcpbridge = {reason, executed, retryable}` so that a
program can tell whether the call may have had an effect and whether to try again. The text never
holds the command, its environment or what it wrote to stderr.

Source: JSON-RPC 2.0, 5.1; MCP reserves -32020 to -32099 and discourages the rest of that range.
"""

from __future__ import annotations

from typing import Literal

import msgspec

INTERNAL_ERROR = -32603
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
REQUEST_CANCELLED = -32800
"""What deployed SDK servers end a cancelled call's stream with."""
SESSION_NOT_FOUND = -32001
"""What deployed TypeScript servers send with their 404."""

Executed = Literal["no", "maybe", "yes"]


class Exit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a process ended: by itself with a code, or by a signal."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def of(cls, returncode: int) -> Exit:
        """From a return code as `subprocess` gives it: negative for a signal."""
        return cls(signal=-returncode) if returncode < 0 else cls(code=returncode)

    def __str__(self) -> str:
        return f"exit code {self.code}" if self.signal is None else f"signal {self.signal}"


class Fault(msgspec.Struct, frozen=True):
    """One failure of the bridge's own, before it is written as a JSON-RPC error."""

    reason: str
    """A word that programs match on: `child_exited`, `capacity`, `draining`, …"""
    message: str
    executed: Executed = "no"
    retryable: bool = False
    exit: Exit | None = None
    code: int = INTERNAL_ERROR
    status: int = 503
    """The HTTP status, where the fault comes before the request was admitted."""
    retry_after_s: int | None = None

    def error(self) -> bytes:
        """The JSON-RPC error object."""
        facts: dict[str, object] = {
            "reason": self.reason,
            "executed": self.executed,
            "retryable": self.retryable,
        }
        if self.exit is not None:
            facts["exit"] = self.exit
        return error_object(self.code, self.message, {"mcpbridge": facts})


def error_object(code: int, message: str, data: object = None) -> bytes:
    """A JSON-RPC error object as bytes."""
    body: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        body["data"] = data
    return msgspec.json.encode(body)


def child_exited(how: Exit | None, executed: Executed) -> Fault:
    """The server process ended; `executed` tells whether it had been given the request."""
    ended = f" ({how})" if how is not None else ""
    return Fault(
        "child_exited",
        f"the MCP server process ended{ended}",
        executed,
        exit=how,
        retryable=executed == "no",
        retry_after_s=1,
    )


def spawn_failed() -> Fault:
    """The command could not be started at all; the log says why."""
    return Fault("spawn_failed", "the MCP server could not be started", retry_after_s=5)


def start_timeout(seconds: float) -> Fault:
    """The server did not answer its handshake in time."""
    return Fault(
        "start_timeout",
        f"the MCP server did not answer initialize within {seconds:g} s (--start-timeout)",
        retryable=True,
        retry_after_s=5,
    )


def handshake_refused() -> Fault:
    """The server answered the bridge's own handshake with an error or nonsense."""
    return Fault("handshake_refused", "the MCP server refused initialize", retry_after_s=5)


def bad_child_message() -> Fault:
    """The server's answer to this very call could not be read."""
    return Fault(
        "bad_child_message",
        "the MCP server answered with something that is no JSON-RPC message",
        executed="yes",
    )


def message_too_large(size: int, limit: int) -> Fault:
    """The server's answer to this very call was over the limit."""
    return Fault(
        "message_too_large",
        f"the MCP server's answer of {size} bytes exceeds --max-message-bytes {limit}",
        executed="yes",
    )


def child_stalled(seconds: float) -> Fault:
    """The server does not read its input."""
    return Fault(
        "child_stalled",
        f"the MCP server has not read its input for {seconds:g} s",
        retryable=True,
        retry_after_s=1,
    )


def capacity(flag: str, limit: int) -> Fault:
    """A limit on how much is served at once is reached."""
    return Fault("capacity", f"limit reached: {flag} {limit}", retryable=True, retry_after_s=5)


def draining() -> Fault:
    """The bridge is about to end; another replica, or the next one, will answer."""
    return Fault("draining", "mcpbridge is shutting down", retryable=True, retry_after_s=1)


def shutdown() -> Fault:
    """The bridge had to end before the server answered this call."""
    return Fault("shutdown", "mcpbridge was shut down before the MCP server answered", "maybe")


def session_closed() -> Fault:
    """The session was deleted or expired while this call was in flight."""
    return Fault("session_closed", "the session was closed while the call was in flight", "maybe")


def cancelled() -> Fault:
    """The client cancelled the call; this only ends its stream."""
    return Fault("cancelled", "request cancelled", "maybe", code=REQUEST_CANCELLED)


def nobody_to_ask() -> Fault:
    """The server asked its client something and there is none that could answer."""
    return Fault(
        "nobody_to_ask",
        "no client can answer this: the server is shared, or the client does not offer it",
        code=METHOD_NOT_FOUND,
    )


def question_undelivered(seconds: float) -> Fault:
    """The server asked its client something and the client opened no stream to hear it on."""
    return Fault(
        "question_undelivered",
        f"the client has had no stream open for {seconds:g} s to be asked on (--question-timeout)",
    )


def timed_out(flag: str, seconds: float) -> Fault:
    """The server did not answer in time; it has been told that nobody waits any more."""
    return Fault("timeout", f"the MCP server did not answer within {seconds:g} s ({flag})", "maybe")
