"""A parked call keeps a bounded number of questions, and counts what it keeps."""

from __future__ import annotations

import pytest

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.modern.parked_call import MAX_OPEN, ParkedCall
from mcpbridge.channels.memory import MemoryChannel
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.mcp.request_meta import RequestMeta
from mcpbridge.wire.messages import Failure, Request, Result
from tests.bridge.legacy.parts import lease_on_memory

pytestmark = pytest.mark.asyncio
QUESTION = b'{"message":"%b","requestedSchema":{"type":"object","properties":{}}}'


def parked(budget: Budget) -> tuple[ParkedCall, Account, MemoryChannel]:
    """A call whose client can be asked, its account, and the child's end of its channel."""
    lease, far = lease_on_memory(shared=False)
    envelope = RequestMeta("2026-07-28", b"{}", frozenset(("elicitation",)), True, True, None)
    account = Account(budget)
    request = Request(b"0", "tools/call", b"{}")
    call = ParkedCall(lease, request, envelope, lambda *_: None, lambda _: None, account, budget)
    return call, account, far


def ask(call: ParkedCall, number: int, size: int = 10) -> None:
    """Let the child ask for something."""
    params = QUESTION % (b"x" * size)
    call.on_server_request(Request(b"%d" % number, "elicitation/create", params))


async def test_a_further_question_is_declined_until_one_is_answered() -> None:
    """The child learns it at once; a question that is answered makes room."""
    call, _, far = parked(Budget())
    for number in range(MAX_OPEN + 1):
        ask(call, number)
    (declined,) = await far.receive()
    assert isinstance(declined, Failure)
    assert (declined.id, len(call.input_requests)) == (b"%d" % MAX_OPEN, MAX_OPEN)
    call.answer("i1", b"{}")
    ask(call, 100)
    assert [type(each) for each in await far.receive()] == [Result]
    assert len(call.input_requests) == MAX_OPEN


async def test_a_question_is_declined_while_memory_is_short() -> None:
    """The error names the setting."""
    budget = Budget(1000)
    call, account, far = parked(budget)
    assert budget.full, "the call itself is more than that"
    kept = account.held
    ask(call, 1)
    (declined,) = await far.receive()
    assert isinstance(declined, Failure)
    assert b"--max-memory" in declined.error
    assert account.held == kept


async def test_what_it_keeps_is_counted_until_it_is_let_go() -> None:
    """Questions with both of their forms; what was let go is let go once."""
    budget = Budget()
    call, account, _ = parked(budget)
    before = account.held
    ask(call, 1, size=1000)
    ask(call, 2, size=1000)
    assert account.held == call.held > before + 4000
    call.answer("i1", b"{}")
    call.abandon("its client has left")
    assert account.held == before
    assert (call.let_go(), call.let_go(), budget.held) == (before, 0, 0)
