"""What a client is told when the bridge, not the server, has to answer.

Every fault becomes `-32603` with `data.mcpbridge = {reason, executed, retryable}` so that a
program can tell whether the call may have had an effect and whether to try again. The text never
holds the command, its environment or what it wrote to stderr.

Source: JSON-RPC 2.0, 5.1; MCP reserves -32020 to -32099 and discourages the rest of that range.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mcpbridge.errors import BridgeError

INTERNAL_ERROR = -32603
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
REQUEST_CANCELLED = -32800
"""What deployed SDK servers end a cancelled call's stream with."""
TIMED_OUT = "timeout"
"""The reason of a fault that tells of a server which took too long."""
UNREACHABLE = "unreachable"
"""The reason of a fault that ends by itself, as soon as somebody listens again."""
SESSION_NOT_FOUND = -32001
"""What deployed TypeScript servers send with their 404."""

Executed = Literal["no", "maybe", "yes"]


class Exit(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a process ended: by itself with a code, or by a signal."""

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    """The kernel killed it for want of memory."""

    @classmethod
    def of(cls, returncode: int) -> Exit:
        """From a return code as `subprocess` gives it: negative for a signal."""
        return cls(signal=-returncode) if returncode < 0 else cls(code=returncode)

    @property
    def is_known(self) -> bool:
        """There was a process whose end could be seen."""
        return self.code is not None or self.signal is not None

    def __str__(self) -> str:
        if not self.is_known:
            return "no exit status"
        if self.signal is None:
            return f"exit code {self.code}"
        return f"signal {self.signal}{', out of memory' if self.out_of_memory else ''}"


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
    """The server process ended; `executed` tells whether it had been given the request.

    The reason is `child_oom` where the kernel killed it for want of memory: nothing else will help
    than more of it.
    """
    how = how if how is not None and how.is_known else None
    ended = f" ({how})" if how is not None else ""
    return Fault(
        "child_oom" if how is not None and how.out_of_memory else "child_exited",
        f"the MCP server process ended{ended}",
        executed,
        exit=how,
        retryable=executed == "no",
        retry_after_s=1,
    )


def spawn_failed() -> Fault:
    """The command could not be started at all; the log says why."""
    return Fault("spawn_failed", "the MCP server could not be started", retry_after_s=5)


def bridge_failed() -> Fault:
    """A fault of mcpbridge's own has ended the session; its log says how."""
    return Fault("bridge_failed", "mcpbridge failed to serve this session", "maybe")


def unreachable() -> Fault:
    """Nobody listens where the server is to be reached; the log says how that showed."""
    return Fault(
        UNREACHABLE,
        "the MCP server cannot be reached (--connect)",
        retryable=True,
        retry_after_s=1,
    )


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


def bad_child_message(
    problem: str = "the MCP server answered with something that is no JSON-RPC message",
) -> Fault:
    """The server's answer to this very call could not be read."""
    return Fault(
        "bad_child_message",
        problem,
        executed="yes",
    )


def child_message_too_deep(limit: int) -> Fault:
    """The server's answer to this very call was nested too deep to be read safely."""
    return Fault(
        "bad_child_message",
        f"the MCP server's answer is nested deeper than --max-json-depth {limit}",
        executed="yes",
    )


def message_too_large(size: int, limit: int) -> Fault:
    """The server's answer to this very call was over the limit."""
    return Fault(
        "message_too_large",
        f"the MCP server's answer of {size} bytes exceeds --max-message-bytes {limit}",
        executed="yes",
    )


def not_begun(fault: Fault) -> Fault:
    """The same fault, for a call that had not been given to the server yet."""
    return msgspec.structs.replace(fault, executed="no", retryable=True, retry_after_s=1)


def child_stalled(limit: str) -> Fault:
    """The server runs and serves nobody any more: it was killed and another one is started."""
    return Fault("child_stalled", f"the MCP server does not answer any more ({limit})", "maybe")


def capacity(flag: str, limit: int) -> Fault:
    """A limit on how much is served at once is reached."""
    return Fault("capacity", f"limit reached: {flag} {limit}", retryable=True, retry_after_s=5)


def queued_too_long(limit: int, seconds: float) -> Fault:
    """The server was busy with as many calls as it may have, for too long."""
    return Fault(
        "capacity",
        f"limit reached: --max-calls-per-child {limit}, and no turn came within {seconds:g} s"
        " (--queue-timeout)",
        retryable=True,
        retry_after_s=5,
    )


def too_many_streams(limit: int) -> Fault:
    """One session has as many streams open as it may; another session is none the worse."""
    return Fault(
        "capacity",
        f"limit reached: --max-streams {limit} of one session",
        retryable=True,
        status=429,
        retry_after_s=5,
    )


def over_quota(flag: str, limit: int | str, retry_after_s: int = 5) -> Fault:
    """One client has all that it may have; other clients are none the worse."""
    return Fault(
        "quota",
        f"limit of one client reached: {flag} {limit}",
        retryable=True,
        status=429,
        retry_after_s=retry_after_s,
    )


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
    return Fault(TIMED_OUT, f"the MCP server did not answer within {seconds:g} s ({flag})", "maybe")


class Unavailable(BridgeError):
    """A request that was understood cannot be served; `fault` is what the client is told."""

    def __init__(self, fault: Fault, problem: str = "") -> None:
        super().__init__(fault, problem)
        self.fault = fault
        self.problem = problem
        """What only the people who run the bridge are told."""

    def __str__(self) -> str:
        return self.fault.message


class PoolExhausted(Unavailable):
    """As many server processes run as may, and none of them can be done without."""

    def __init__(self, max_children: int) -> None:
        super().__init__(capacity("--max-children", max_children))
