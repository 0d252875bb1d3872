"""Builds the errors that the bridge, not the server, answers clients with.

Every fault becomes `-32603` with `data.mcpbridge = {reason, executed, retryable}`, so that a
program can tell whether the call may have had an effect and whether to retry. The text never
contains the command, its environment or its stderr.

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
"""Code with which deployed SDK servers end the stream of a cancelled call."""
TIMED_OUT = "timeout"
"""Reason of a fault if the server took too long."""
UNREACHABLE = "unreachable"
"""Reason of a fault that ends as soon as a server listens at the address again."""
SESSION_NOT_FOUND = -32001
"""Code that deployed TypeScript servers send with their 404."""

Executed = Literal["no", "maybe", "yes"]


class Exit(msgspec.Struct, frozen=True, omit_defaults=True):
    """The end of a process: an exit code or a signal."""

    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    """Whether the kernel killed it because memory ran out."""

    @classmethod
    def of(cls, returncode: int) -> Exit:
        """Convert a return code of `subprocess`, negative for a signal."""
        return cls(signal=-returncode) if returncode < 0 else cls(code=returncode)

    @property
    def is_known(self) -> bool:
        """Whether the end of a process was observed."""
        return self.code is not None or self.signal is not None

    def __str__(self) -> str:
        if not self.is_known:
            return "no exit status"
        if self.signal is None:
            return f"exit code {self.code}"
        return f"signal {self.signal}{', out of memory' if self.out_of_memory else ''}"


class Fault(msgspec.Struct, frozen=True):
    """One failure of the bridge itself, before it becomes a JSON-RPC error."""

    reason: str
    """A word for programs: `child_exited`, `capacity`, `draining`, …"""
    message: str
    executed: Executed = "no"
    retryable: bool = False
    exit: Exit | None = None
    code: int = INTERNAL_ERROR
    status: int = 503
    """The HTTP status if the fault occurs before the request is admitted."""
    retry_after_s: int | None = None

    def error(self) -> bytes:
        """Return the JSON-RPC error object."""
        facts: dict[str, object] = {
            "reason": self.reason,
            "executed": self.executed,
            "retryable": self.retryable,
        }
        if self.exit is not None:
            facts["exit"] = self.exit
        return error_object(self.code, self.message, {"mcpbridge": facts})


def error_object(code: int, message: str, data: object = None) -> bytes:
    """Encode a JSON-RPC error object."""
    body: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        body["data"] = data
    return msgspec.json.encode(body)


def child_exited(how: Exit | None, executed: Executed) -> Fault:
    """Return the fault for a server process that ended.

    The reason is `child_oom` if the kernel killed it because memory ran out: only more memory
    helps.

    Args:
        how: How it ended, if known.
        executed: Whether it had been given the request.
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
    """Return the fault for a command that could not be started; the log says why."""
    return Fault("spawn_failed", "the MCP server could not be started", retry_after_s=5)


def bridge_failed() -> Fault:
    """Return the fault for a bug of mcpbridge that ended the session; its log has the details."""
    return Fault("bridge_failed", "mcpbridge failed to serve this session", "maybe")


def unreachable(setting: str = "--connect") -> Fault:
    """Return the fault for an address at which no server accepts connections; the log says more.

    Args:
        setting: The setting that names the address.
    """
    return Fault(
        UNREACHABLE,
        f"the MCP server cannot be reached ({setting})",
        retryable=True,
        retry_after_s=1,
    )


def start_timeout(seconds: float) -> Fault:
    """Return the fault for a server that did not answer its handshake in time."""
    return Fault(
        "start_timeout",
        f"the MCP server did not answer initialize within {seconds:g} s (--start-timeout)",
        retryable=True,
        retry_after_s=5,
    )


def handshake_refused() -> Fault:
    """Return the fault for a server that answered the bridge's handshake with an error."""
    return Fault("handshake_refused", "the MCP server refused initialize", retry_after_s=5)


def bad_child_message(
    problem: str = "the MCP server answered with something that is not a JSON-RPC message",
) -> Fault:
    """Return the fault for an answer to this call that could not be read."""
    return Fault(
        "bad_child_message",
        problem,
        executed="yes",
    )


def child_message_too_deep(limit: int) -> Fault:
    """Return the fault for an answer to this call that was nested too deep to be read safely."""
    return Fault(
        "bad_child_message",
        f"the MCP server's answer is nested deeper than --max-json-depth {limit}",
        executed="yes",
    )


def message_too_large(size: int, limit: int) -> Fault:
    """Return the fault for an answer to this call that exceeded the limit."""
    return Fault(
        "message_too_large",
        f"the MCP server's answer of {size} bytes exceeds --max-message-bytes {limit}",
        executed="yes",
    )


def not_begun(fault: Fault) -> Fault:
    """Return the same fault for a call that had not been given to the server yet."""
    return msgspec.structs.replace(fault, executed="no", retryable=True, retry_after_s=1)


def child_stalled(limit: str) -> Fault:
    """Return the fault for a server that runs but answers no call: it was killed and restarts."""
    return Fault("child_stalled", f"the MCP server does not answer any more ({limit})", "maybe")


def capacity(flag: str, limit: int) -> Fault:
    """Return the fault for a limit on concurrent work."""
    return Fault("capacity", f"limit reached: {flag} {limit}", retryable=True, retry_after_s=5)


def out_of_memory(limit: int | None) -> Fault:
    """Return the fault for new work while as many bytes are kept as may be."""
    message = f"limit reached: --max-memory {limit} bytes"
    return Fault("memory", message, retryable=True, retry_after_s=5)


def cut_for_memory(what: str) -> Fault:
    """Return the fault for the `what` that held most when the bridge was short of memory."""
    return Fault("memory", f"the {what} was ended: it held most of --max-memory", "maybe")


def last_places(flag: str, limit: int, places: int) -> Fault:
    """Return the fault for a client that has its share: the last places are for others.

    Args:
        flag: The limit that is nearly reached.
        limit: Its value.
        places: How many of these are for other clients.
    """
    return Fault(
        "capacity",
        f"limit reached: {flag} {limit}, the last {places} of which are for clients that have"
        " fewer than their share",
        retryable=True,
        status=429,
        retry_after_s=5,
    )


def parked_call_gave_way(limit: str) -> Fault:
    """Return the fault for a retry of a call that was ended for a client with fewer of them.

    Args:
        limit: The setting whose limit was reached, and its value if it has one.
    """
    return Fault(
        "capacity",
        f"limit reached: {limit}: the call was ended for another client while it waited for its"
        " client's answer",
        "maybe",
        retry_after_s=5,
    )


def queue_full(flag: str, limit: int, most: int) -> Fault:
    """Return the fault for a call that finds the queue of its server full.

    Args:
        flag: The limit that is reached, on the number or the bytes of calls that wait.
        limit: Its value.
        most: Calls that the server works on at once.
    """
    return Fault(
        "capacity",
        f"limit reached: {flag} {limit} of calls that wait for their turn, while the MCP server"
        f" works on --max-calls-per-child {most}",
        retryable=True,
        retry_after_s=5,
    )


def no_turn(fault: Fault, limit: int) -> Fault:
    """Return the fault for a call whose time ended while it waited for its turn on a busy server.

    Args:
        fault: The fault of a call that took too long.
        limit: Calls that the server works on at once.
    """
    return Fault(
        "capacity",
        f"limit reached: --max-calls-per-child {limit}, and no turn came: {fault.message}",
        retryable=True,
        retry_after_s=5,
    )


def queued_too_long(limit: int, seconds: float) -> Fault:
    """Return the fault for a call that waited too long for a turn on a busy server."""
    return Fault(
        "capacity",
        f"limit reached: --max-calls-per-child {limit}, and no turn came within {seconds:g} s"
        " (--queue-timeout)",
        retryable=True,
        retry_after_s=5,
    )


def too_many_streams(limit: int) -> Fault:
    """Return the fault for a session with too many streams; other sessions are not affected."""
    return Fault(
        "capacity",
        f"limit reached: --max-streams {limit} of one session",
        retryable=True,
        status=429,
        retry_after_s=5,
    )


def over_quota(flag: str, limit: int | str, retry_after_s: int = 5) -> Fault:
    """Return the fault for a client at its own limit; other clients are not affected."""
    return Fault(
        "quota",
        f"limit of one client reached: {flag} {limit}",
        retryable=True,
        status=429,
        retry_after_s=retry_after_s,
    )


def paused(seconds: float) -> Fault:
    """Return the fault for a client whose calls have ended the server again and again."""
    wait_s = max(1, -int(-seconds // 1))
    message = f"the MCP server ended during calls of this client, which is paused for {wait_s} s"
    return Fault("paused", message, retryable=True, status=429, retry_after_s=wait_s)


def injected(rule: str) -> Fault:
    """Return the fault for a request that a developer's rule spoils on purpose."""
    return Fault("injected", f"an error on purpose (--fault {rule!r}); the server was not asked")


def replica_lost() -> Fault:
    """Return the fault for a request whose replica was lost before it answered."""
    return Fault("replica_lost", "the replica that served this was lost before its answer", "maybe")


def replica_unreachable() -> Fault:
    """Return the fault for a session whose replica cannot be reached, but may be there."""
    return Fault(
        "replica_unreachable",
        "the replica that has this session cannot be reached at present",
        retryable=True,
        retry_after_s=2,
    )


def store_away() -> Fault:
    """Return the fault for a session that cannot be taken over without the replicas' store."""
    return Fault(
        "store_away",
        "the store of the replicas (--store) does not answer, and this session needs it",
        retryable=True,
        retry_after_s=2,
    )


def isolated() -> Fault:
    """Return the fault for a session that may be served elsewhere, which cannot be known."""
    return Fault(
        "isolated",
        "this replica reaches neither the store (--store) nor another replica (--peers)",
        retryable=True,
        retry_after_s=2,
    )


def session_of_newer_release() -> Fault:
    """Return the fault for a session id in a form that only a newer release reads."""
    return Fault(
        "session_of_newer_release",
        "the session id is of a newer release of mcpbridge, which this replica does not run",
        retryable=True,
        retry_after_s=2,
    )


def draining() -> Fault:
    """Return the fault for a bridge that is shutting down; another replica will answer."""
    return Fault("draining", "mcpbridge is shutting down", retryable=True, retry_after_s=1)


def shutdown() -> Fault:
    """Return the fault for a call that the server had not answered when the bridge ended."""
    return Fault("shutdown", "mcpbridge was shut down before the MCP server answered", "maybe")


def session_closed() -> Fault:
    """Return the fault for a call whose session was deleted or expired."""
    return Fault("session_closed", "the session was closed while the call was in flight", "maybe")


def cancelled() -> Fault:
    """Return the fault that ends the stream of a call cancelled by its client."""
    return Fault("cancelled", "request cancelled", "maybe", code=REQUEST_CANCELLED)


def client_cannot_answer() -> Fault:
    """Return the fault for a server request that no client can answer."""
    return Fault(
        "client_cannot_answer",
        "no client can answer this: the server is shared, or the client does not offer it",
        code=METHOD_NOT_FOUND,
    )


def question_undelivered(seconds: float) -> Fault:
    """Return the fault for a server request whose client opened no stream to receive it."""
    return Fault(
        "question_undelivered",
        f"the client has had no stream open for {seconds:g} s to be asked on (--question-timeout)",
    )


def timed_out(flag: str, seconds: float) -> Fault:
    """Return the fault for a call that timed out; the server has been sent a cancellation."""
    return Fault(TIMED_OUT, f"the MCP server did not answer within {seconds:g} s ({flag})", "maybe")


class Unavailable(BridgeError):
    """A valid request that cannot be served; the client is answered with `fault`."""

    def __init__(self, fault: Fault, problem: str = "") -> None:
        super().__init__(fault, problem)
        self.fault = fault
        self.problem = problem
        """Details for operators only."""

    def __str__(self) -> str:
        return self.fault.message


class PoolExhausted(Unavailable):
    """A request for a server process at the limit, while none of the running ones can be ended."""

    def __init__(self, max_children: int) -> None:
        super().__init__(capacity("--max-children", max_children))
