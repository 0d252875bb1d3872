"""What a client is told when the bridge, not the server, has to answer."""

from __future__ import annotations

import json
import signal

import pytest

from mcpbridge.rules import faults
from mcpbridge.rules.faults import Exit, Fault, error_object

FAULTS: list[tuple[Fault, str, str, bool, str]] = [
    # fault, reason, executed, retryable, a word of its text
    (faults.child_exited(None, "no"), "child_exited", "no", True, "process ended"),
    (faults.child_exited(Exit(3), "maybe"), "child_exited", "maybe", False, "(exit code 3)"),
    (faults.child_exited(Exit.of(-9), "no"), "child_exited", "no", True, "(signal 9)"),
    (faults.spawn_failed(), "spawn_failed", "no", False, "could not be started"),
    (faults.start_timeout(2.5), "start_timeout", "no", True, "within 2.5 s (--start-timeout)"),
    (faults.handshake_refused(), "handshake_refused", "no", False, "refused initialize"),
    (faults.bad_child_message(), "bad_child_message", "yes", False, "not a JSON-RPC message"),
    (
        *(faults.child_message_too_deep(512), "bad_child_message", "yes", False),
        "--max-json-depth 512",
    ),
    (faults.not_begun(faults.child_exited(Exit(3), "maybe")), "child_exited", "no", True, "code 3"),
    (
        faults.message_too_large(20_000_000, 16_777_216),
        "message_too_large",
        "yes",
        False,
        "20000000 bytes exceeds --max-message-bytes 16777216",
    ),
    (faults.child_stalled("--ping-timeout 9 s"), "child_stalled", "maybe", False, "9 s)"),
    (faults.capacity("--max-children", 16), "capacity", "no", True, "--max-children 16"),
    (
        faults.queue_full("--queue-length", 9, 64),
        "capacity",
        "no",
        True,
        "--queue-length 9 of calls",
    ),
    (
        faults.no_turn(faults.timed_out("--request-timeout", 300), 64),
        "capacity",
        "no",
        True,
        "--max-calls-per-child 64, and no turn came: the MCP server did not answer within 300 s"
        " (--request-timeout)",
    ),
    (faults.queued_too_long(64, 5.0), "capacity", "no", True, "64, and no turn came within 5 s"),
    (faults.injected("drop"), "injected", "no", False, "on purpose (--fault 'drop')"),
    (faults.draining(), "draining", "no", True, "shutting down"),
    (faults.shutdown(), "shutdown", "maybe", False, "shut down before"),
    (faults.session_closed(), "session_closed", "maybe", False, "session was closed"),
    (faults.cancelled(), "cancelled", "maybe", False, "cancelled"),
    (faults.client_cannot_answer(), "client_cannot_answer", "no", False, "no client can answer"),
    (faults.question_undelivered(30.0), "question_undelivered", "no", False, "open for 30 s"),
    (faults.timed_out("--call-timeout", 1.5), "timeout", "maybe", False, "1.5 s (--call-timeout)"),
]

OWN_CODES = {"cancelled": -32800, "client_cannot_answer": -32601}


@pytest.mark.parametrize(
    ("fault", "reason", "executed", "retryable", "text"), FAULTS, ids=lambda v: str(v)[:20]
)
def test_a_fault_says_what_a_program_needs(
    fault: Fault, reason: str, executed: str, retryable: bool, text: str
) -> None:
    """Each error tells its reason, whether the call may have run, and whether to try again."""
    error = json.loads(fault.error())
    assert error["code"] == OWN_CODES.get(reason, -32603)
    assert text in error["message"]
    told = error["data"]["mcpbridge"]
    assert (told["reason"], told["executed"], told["retryable"]) == (reason, executed, retryable)


@pytest.mark.parametrize("fault", [row[0] for row in FAULTS], ids=lambda f: f.reason)
def test_only_what_surely_did_not_run_is_to_be_tried_again(fault: Fault) -> None:
    """A call that may have had an effect is never called safe to repeat."""
    assert not fault.retryable or fault.executed == "no"
    assert fault.status == 503


def test_no_code_is_one_that_mcp_reserves() -> None:
    """The bridge's own codes lie outside the range that the specification keeps."""
    for fault, *_ in FAULTS:
        assert not -32099 <= fault.code <= -32000


@pytest.mark.parametrize(
    ("returncode", "how", "text", "told"),
    [
        (0, Exit(code=0), "exit code 0", {"code": 0}),
        (127, Exit(code=127), "exit code 127", {"code": 127}),
        (-signal.SIGKILL, Exit(signal=9), "signal 9", {"signal": 9}),
    ],
)
def test_an_exit_is_a_code_or_a_signal(
    returncode: int, how: Exit, text: str, told: dict[str, int]
) -> None:
    """A negative return code is a signal; the error tells the one that it was."""
    assert Exit.of(returncode) == how
    assert str(how) == text
    error = json.loads(faults.child_exited(how, "maybe").error())
    assert error["data"]["mcpbridge"]["exit"] == told


def test_an_error_object_has_data_only_if_given() -> None:
    """The error object is the one of JSON-RPC, with or without data."""
    assert error_object(-32600, 'a "b"') == b'{"code":-32600,"message":"a \\"b\\""}'
    assert json.loads(error_object(1, "a", {"b": None}))["data"] == {"b": None}
    assert "exit" not in json.loads(faults.child_exited(None, "no").error())["data"]["mcpbridge"]
