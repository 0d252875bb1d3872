"""A child that another one takes over from, and one that is given up: who is told what."""

from __future__ import annotations

import asyncio

import pytest

from mcpbridge.errors import ChannelClosed
from mcpbridge.rules.faults import child_stalled
from mcpbridge.wire.messages import Request
from tests.bridge.playbook import Stage, bounded, turns
from tests.support.proofs import proves


@proves("fault 47")
@bounded
async def test_a_retired_child_finishes_its_calls_and_no_subscription() -> None:
    """The last answer is the moment when it may end; a subscription ends at once."""
    on = Stage(shared=True)
    on.client("L").lasting = True
    on.call("L", '{"id":1,"method":"subscriptions/listen"}')
    on.call("A", '{"id":7,"method":"x"}')
    on.mux.stop_accepting()
    assert (on.mux.shut, on.mux.lost, on.mux.calls) == (True, False, 1)
    quiet = asyncio.create_task(on.mux.wait_idle())
    await on.play(
        """
        child >> {"id":1,"method":"subscriptions/listen"}
        child >> {"id":2,"method":"x"}
        L << fault child_exited
        child << {"id":1,"result":{}}
        child << {"id":2,"result":{}}
        A << {"id":7,"result":{}}
        """
    )
    await quiet
    assert on.mux.calls == 0


@bounded
async def test_a_cancelled_call_keeps_no_child_from_ending() -> None:
    """No client waits for it any more."""
    on = Stage(shared=True)
    number = on.call("A", '{"id":7,"method":"x"}')
    quiet = asyncio.create_task(on.mux.wait_idle())
    await turns()
    assert not quiet.done()
    on.mux.cancel(number, "late")
    await quiet


@proves("fault 10", "fault 41")
@bounded
async def test_a_child_that_is_given_up_fails_each_call_once() -> None:
    """What it still says reaches no client, and nothing more is sent to it."""
    on = Stage(shared=False)
    on.enter("A")
    on.call("A", '{"id":7,"method":"x"}')
    on.mux.fail_all(child_stalled("--ping-timeout 1 s"))
    on.mux.fail_all(child_stalled("--ping-timeout 1 s"))
    await on.play(
        """
        A << fault child_stalled
        child >> {"id":1,"method":"x"}
        child << {"id":1,"result":{}}
        child << {"method":"notifications/tools/list_changed"}
        """
    )
    assert on.client("A").losses == 1
    try:
        on.call("A", '{"id":8,"method":"x"}')
    except ChannelClosed:
        return
    raise AssertionError("a lost child takes a call")


@proves("fault 9")
@bounded
async def test_calls_that_run_out_of_time_are_counted_until_one_is_answered() -> None:
    """Only those that the child had, and were not just given up by their clients."""
    on = Stage(shared=True)
    for _ in range(2):
        on.mux.cancel(on.call("A", '{"id":7,"method":"x"}'), "late", overdue=True)
    on.mux.cancel(on.call("A", '{"id":7,"method":"x"}'), "not wanted")
    assert on.mux.timeouts == 2
    on.call("A", '{"id":8,"method":"y"}')
    await on.play(
        """
        child >> {"id":1,"method":"x"}
        child >> {"method":"notifications/cancelled","params":{"requestId":1,"reason":"late"}}
        child >> {"id":2,"method":"x"}
        child >> {"method":"notifications/cancelled","params":{"requestId":2,"reason":"late"}}
        child >> {"id":3,"method":"x"}
        child >> {"method":"notifications/cancelled","params":{"requestId":3,"reason":"not wanted"}}
        child >> {"id":4,"method":"y"}
        child << {"id":4,"result":{}}
        A << {"id":8,"result":{}}
        """
    )
    assert on.mux.timeouts == 0


@proves("fault 9")
@bounded
async def test_a_child_that_says_anything_has_not_let_calls_run_out_of_time() -> None:
    """Progress of one call while others wait behind it, before or after these run out."""
    on = Stage(shared=True)
    on.call("A", '{"id":1,"method":"long","params":{"_meta":{"progressToken":"t"}}}')
    behind = on.call("A", '{"id":2,"method":"x"}')
    await on.play(
        """
        child >> {"id":1,"method":"long","params":{"_meta":{"progressToken":1}}}
        child >> {"id":2,"method":"x"}
        child << {"method":"notifications/progress","params":{"progressToken":1,"progress":1}}
        A << {"method":"notifications/progress","params":{"progressToken":"t","progress":1}}
        """
    )
    on.mux.cancel(behind, "late", overdue=True)
    assert on.mux.timeouts == 0


@proves("fault 9")
@bounded
@pytest.mark.parametrize("more", [False, True])
async def test_the_answer_to_a_ping_alone_is_no_sign_that_calls_are_served(more: bool) -> None:
    """What else comes with it is."""
    on = Stage(shared=True)
    on.mux.cancel(on.call("A", '{"id":1,"method":"x"}'), "late", overdue=True)
    on.call("A", '{"id":2,"method":"as a ping"}')
    before = on.mux.silence()
    late = 'child << {"id":1,"result":{}}'
    await on.play(
        f"""
        child >> {{"id":1,"method":"x"}}
        child >> {{"method":"notifications/cancelled","params":{{"requestId":1,"reason":"late"}}}}
        child >> {{"id":2,"method":"as a ping"}}
        child << {{"id":2,"result":{{}}}}
        A << {{"id":2,"result":{{}}}}
        {late if more else ""}
        """
    )
    assert on.mux.timeouts == 0
    on.mux.was_no_sign(before)
    assert on.mux.timeouts == (0 if more else 1)


@proves("fault 47")
@bounded
async def test_the_requests_of_clients_are_counted_and_no_others() -> None:
    """The limit is reached once, by the call whose number it is."""
    reached: list[int] = []
    on: Stage = Stage(
        shared=True,
        request_limit=2,
        on_request_limit=lambda: reached.append(on.mux.requests),
    )
    on.mux.request_aside(Request(b"0", "ping", None), on.client("own"))
    on.call("A", '{"id":7,"method":"x"}')
    assert (on.mux.requests, reached) == (1, [])
    on.call("A", '{"id":8,"method":"x"}')
    on.call("A", '{"id":9,"method":"x"}')
    assert (on.mux.requests, reached) == (3, [2])
