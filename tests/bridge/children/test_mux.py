"""One pipe, many callers: each hears what is theirs, whatever the child says."""

from __future__ import annotations

import asyncio

import pytest

from mcpbridge.bridge.children.call_limiter import LoadLimits
from mcpbridge.errors import ChannelClosed
from mcpbridge.rules.faults import Exit, Unavailable, child_exited
from mcpbridge.rules.supervision.lifecycle import ChildState
from mcpbridge.wire.messages import Failure, Notification, Result
from tests.bridge.playbook import Stage, bounded, message, turns
from tests.support.proofs import proves


@proves("fault 40", "fault 62", "C03", "C06")
@bounded
async def test_answers_find_their_askers_in_any_order() -> None:
    """Equal ids of two callers, and an id spelled as text."""
    stage = Stage(shared=True)
    await stage.play("""
        A >> {"id":1,"method":"x","params":{"a":1.0}}
        B >> {"id":1,"method":"x"}
        A >> {"id":"1","method":"y"}
        child >> {"id":1,"method":"x","params":{"a":1.0}}
        child >> {"id":2,"method":"x"}
        child >> {"id":3,"method":"y"}
        child << {"id":"3","result":{"third":true}}
        A << {"id":"1","result":{"third":true}}
        child << {"id":2,"error":{"code":1,"message":"no"}}
        B << {"id":1,"error":{"code":1,"message":"no"}}
        child << {"id":1,"result":12345678901234567890}
        A << {"id":1,"result":12345678901234567890}
    """)
    assert (stage.mux.in_flight, stage.meters.counts()) == (0, {})


@proves("fault 46", "C14")
@bounded
async def test_progress_goes_to_its_caller_under_the_callers_own_token() -> None:
    """Equal tokens do not meet; progress that belongs to no call is dropped."""
    stage = Stage(shared=True)
    await stage.play("""
        A >> {"id":0,"method":"x","params":{"_meta":{"progressToken":7}}}
        B >> {"id":0,"method":"x","params":{"_meta":{"progressToken":"7"}}}
        C >> {"id":0,"method":"x"}
        child >> {"id":1,"method":"x","params":{"_meta":{"progressToken":1}}}
        child >> {"id":2,"method":"x","params":{"_meta":{"progressToken":2}}}
        child >> {"id":3,"method":"x"}
        child << {"method":"notifications/progress","params":{"progressToken":2,"progress":1}}
        B << {"method":"notifications/progress","params":{"progressToken":"7","progress":1}}
        child << {"method":"notifications/progress","params":{"progressToken":1,"progress":1}}
        A << {"method":"notifications/progress","params":{"progressToken":7,"progress":1}}
        child << {"method":"notifications/progress","params":{"progressToken":3,"progress":1}}
        child << {"method":"notifications/progress","params":{"progressToken":7,"progress":1}}
        child << {"method":"notifications/progress","params":{}}
    """)
    assert stage.meters.counts()["unknown_progress"] == 3


@proves("fault 38", "fault 39", "fault 41")
@bounded
async def test_an_answer_for_nobody_is_dropped_and_counted() -> None:
    """Invented, doubled, late: the first one stands."""
    stage = Stage(shared=True)
    await stage.play("""
        A >> {"id":5,"method":"x"}
        child >> {"id":1,"method":"x"}
        child << {"id":2,"result":{}}
        child << {"id":5,"result":{}}
        child << {"id":"x","result":{}}
        child << {"id":1,"result":{"first":1}}
        A << {"id":5,"result":{"first":1}}
        child << {"id":1,"result":{"second":2}}
        child << {"id":1,"error":{"code":1,"message":"third"}}
        B >> {"id":5,"method":"x"}
        child >> {"id":2,"method":"x"}
        child << {"id":1,"result":{"late":1}}
        child << {"id":2,"result":{"its own":1}}
        B << {"id":5,"result":{"its own":1}}
    """)
    assert stage.meters.counts() == {"unknown_answer": 6}


@proves("fault 41", "C13")
@bounded
async def test_a_cancelled_call_hears_nothing_more() -> None:
    """The child is told its own number; what it still answers is late."""
    stage = Stage(shared=True)
    stage.call("A", '{"id":"a","method":"x"}')
    stage.mux.cancel(1, "enough")
    await stage.play("""
        child >> {"id":1,"method":"x"}
        child >> {"method":"notifications/cancelled","params":{"requestId":1,"reason":"enough"}}
        child << {"id":1,"result":{}}
    """)
    assert stage.mux.in_flight == 0


@proves("C73")
@pytest.mark.parametrize("shared", [True, False])
@bounded
async def test_a_ping_of_the_child_is_answered_on_the_spot(shared: bool) -> None:
    """No client is asked, and the id comes back as it was."""
    stage = Stage(shared=shared)
    stage.enter("A")
    await stage.play("""
        child << {"id":0,"method":"ping"}
        child >> {"id":0,"result":{}}
        child << {"id":"p","method":"ping","params":{}}
        child >> {"id":"p","result":{}}
    """)


@proves("fault 44")
@bounded
async def test_a_shared_child_may_ask_nobody() -> None:
    """It gets an error at once, never a guess."""
    stage = Stage(shared=True)
    stage.enter("A")
    running = asyncio.create_task(stage.mux.run())
    stage.child.send(message('{"id":0,"method":"sampling/createMessage","params":{}}'))
    (answer,) = await stage.child.receive()
    stage.child.close()
    await running
    assert isinstance(answer, Failure)
    assert answer.id == b"0"
    assert b'"code":-32601' in answer.error
    assert stage.meters.counts() == {"declined_question": 1}


@proves("fault 43", "C15")
@bounded
async def test_a_child_of_ones_own_asks_its_tenant() -> None:
    """And the withdrawal of a question reaches the same."""
    stage = Stage(shared=False)
    stage.enter("A")
    await stage.play("""
        child << {"id":0,"method":"elicitation/create","params":{"message":"?"}}
        A << {"id":0,"method":"elicitation/create","params":{"message":"?"}}
        child << {"method":"notifications/cancelled","params":{"requestId":0}}
        A << withdrawn 0
        child << {"method":"notifications/cancelled","params":{}}
    """)


@proves("fault 45", "C10")
@bounded
async def test_what_names_no_call_reaches_every_tenant_or_nobody() -> None:
    """On a shared child only what may concern all; a client that has left hears nothing."""
    stage = Stage(shared=True)
    stage.enter("A", "B", "C")
    stage.leave("C")
    await stage.play("""
        child << {"method":"notifications/tools/list_changed"}
        A << {"method":"notifications/tools/list_changed"}
        B << {"method":"notifications/tools/list_changed"}
        child << {"method":"notifications/x-custom","params":{"secret":1}}
        child << {"method":"notifications/message","params":{"data":"secret"}}
    """)
    assert stage.meters.counts() == {"unattributable_notification": 2}


@proves("fault 45")
@bounded
async def test_a_log_message_of_a_shared_child_goes_to_the_only_caller() -> None:
    """Where there are two it could be either's, and neither gets it."""
    stage = Stage(shared=True)
    stage.enter("A", "B")
    await stage.play("""
        A >> {"id":1,"method":"x"}
        child >> {"id":1,"method":"x"}
        child << {"method":"notifications/message","params":{"data":1}}
        A << remark {"method":"notifications/message","params":{"data":1}}
        B >> {"id":1,"method":"x"}
        child >> {"id":2,"method":"x"}
        child << {"method":"notifications/message","params":{"data":2}}
        child << {"id":1,"result":{}}
        A << {"id":1,"result":{}}
        child << {"method":"notifications/message","params":{"data":3}}
        B << remark {"method":"notifications/message","params":{"data":3}}
    """)
    assert stage.meters.counts() == {"unattributable_notification": 1}


@proves("C79")
@bounded
async def test_a_child_of_ones_own_tells_its_tenant_everything() -> None:
    """Unknown notifications with unknown members too."""
    stage = Stage(shared=False)
    stage.enter("A")
    await stage.play("""
        child << {"method":"notifications/x-custom","params":{"n":1.0},"more":[1]}
        A << {"method":"notifications/x-custom","params":{"n":1.0},"more":[1]}
        child << {"method":"notifications/message","params":{"data":"text"}}
        A << {"method":"notifications/message","params":{"data":"text"}}
    """)


@proves("fault 17", "fault 19", "fault 30", "C48")
@bounded
async def test_an_invalid_answer_fails_its_caller_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Other noise is dropped, counted and logged once a second."""
    stage = Stage(shared=True)
    await stage.play("""
        A >> {"id":1,"method":"x"}
        B >> {"id":1,"method":"x"}
        child >> {"id":1,"method":"x"}
        child >> {"id":2,"method":"x"}
        child ~~ noise
        child ~~ noise
        child ~~ bad_json 99
        child ~~ bad_json 2
        B << fault bad_child_message
        child << {"id":2,"result":{}}
        child ~~ message_too_large 1
        A << fault message_too_large
    """)
    counts = stage.meters.counts()
    assert counts["stdout_noise"] == 2
    assert (counts["stdout_bad_json"], counts["stdout_message_too_large"]) == (2, 1)
    assert counts["unknown_answer"] == 1
    logged = [record for record in caplog.records if record.message == "child.stdout_noise"]
    assert len(logged) == 1, "not a record for each line of a flood"


@proves("fault 5", "C54")
@bounded
async def test_an_answer_that_has_two_readings_fails_its_caller_at_once() -> None:
    """The bridge would have to replace an id in it and cannot tell which."""
    stage = Stage(shared=True)
    tag = '"_meta":{"io.modelcontextprotocol/subscriptionId":"1"}'
    await stage.play(f"""
        A >> {{"id":1,"method":"x"}}
        child >> {{"id":1,"method":"x"}}
        child << {{"id":1,"result":{{{tag},{tag}}}}}
        A << fault bad_child_message
    """)
    assert stage.meters.counts()["bad_child_message"] == 1


@bounded
async def test_the_end_of_the_child_is_told_to_everybody_who_waits() -> None:
    """Each call fails once, and nothing can be sent any more."""
    stage = Stage(shared=True)
    stage.enter("A")
    running = asyncio.create_task(stage.mux.run())
    for name in ("A", "B"):
        stage.call(name, '{"id":1,"method":"x"}')
    stage.child.close()
    await running
    stage.mux.fail_all(child_exited(Exit(signal=9), "maybe"))
    assert [list(stage.clients[name].heard) for name in "AB"] == [["fault child_exited"]] * 2
    with pytest.raises(ChannelClosed):
        stage.call("A", '{"id":2,"method":"x"}')
    stage.mux.send(Notification("notifications/x"))
    assert stage.meters.counts() == {"sent_to_closed_child": 1}


@bounded
async def test_the_bridges_own_call_is_one_of_many() -> None:
    """It takes a number like any other, and its waiter is not in the way of a client's."""
    stage = Stage(shared=True)
    running = asyncio.create_task(stage.mux.run())
    asking = asyncio.create_task(stage.mux.ask("initialize", b"{}"))
    await turns()
    (request,) = await stage.child.receive()
    assert request == message('{"id":1,"method":"initialize","params":{}}')
    stage.child.send(message('{"id":1,"result":{"ok":true}}'))
    reply = await asking
    assert isinstance(reply, Result)
    assert reply.result == b'{"ok":true}'
    stage.child.close()
    await running


@bounded
async def test_the_bridges_own_call_ends_with_the_child_or_with_its_own_patience() -> None:
    """Nothing is left of it in the table."""
    stage = Stage(shared=True)
    asking = asyncio.create_task(stage.mux.ask("initialize", None))
    await turns()
    stage.mux.fail_all(child_exited(Exit(code=3), "maybe"))
    with pytest.raises(Unavailable) as raised:
        await asking
    assert raised.value.fault.reason == "child_exited"
    with pytest.raises(Unavailable):
        await stage.mux.ask("initialize", None)
    other = Stage(shared=True)
    asking = asyncio.create_task(other.mux.ask("initialize", None))
    await turns()
    assert other.mux.in_flight == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert other.mux.in_flight == 0


@bounded
async def test_a_child_takes_calls_until_another_takes_over_and_answers_until_it_is_gone() -> None:
    """Each state of `rules.supervision.lifecycle.CHILD` and what it allows."""
    stage = Stage(shared=True)
    seen = [(stage.mux.state, stage.mux.shut, stage.mux.lost)]
    for change in (
        stage.mux.introduced,
        stage.mux.stop_accepting,
        lambda: stage.mux.fail_all(child_exited(None, "no")),
        stage.mux.introduced,
    ):
        change()
        seen.append((stage.mux.state, stage.mux.shut, stage.mux.lost))
    assert seen == [
        (ChildState.STARTING, False, False),
        (ChildState.READY, False, False),
        (ChildState.RETIRING, True, False),
        (ChildState.GONE, True, True),
        (ChildState.GONE, True, True),
    ]


@pytest.mark.parametrize("answer", ['child << {"id":1,"result":{}}', "child ~~ bad_json 1"])
@bounded
async def test_an_answer_valid_or_not_gives_its_place_to_the_next(answer: str) -> None:
    """The child works on one call at a time; the second waits for the answer to the first."""
    stage = Stage(shared=True, loads=LoadLimits(max_calls_per_child=1))
    heard = '{"id":"a","result":{}}' if "<<" in answer else "fault bad_child_message"
    stage.call("A", '{"id":"a","method":"x"}')
    stage.call("B", '{"id":"b","method":"y"}')
    assert (stage.mux.call_limiter.taken, stage.mux.call_limiter.waiting) == (1, 1)
    await stage.play(f"""
        child >> {{"id":1,"method":"x"}}
        {answer}
        A << {heard}
        child >> {{"id":2,"method":"y"}}
    """)
    assert (stage.mux.call_limiter.taken, stage.mux.call_limiter.waiting) == (1, 0)


@bounded
async def test_a_cancelled_call_gives_its_place_back_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The child may never answer it."""
    monkeypatch.setattr("mcpbridge.bridge.children.call_limiter.LINGER_S", 0)
    stage = Stage(shared=True, loads=LoadLimits(max_calls_per_child=1))
    stage.call("A", '{"id":"a","method":"x"}')
    stage.call("B", '{"id":"b","method":"y"}')
    stage.mux.cancel(1, "enough")
    await stage.play("""
        child >> {"id":1,"method":"x"}
        child >> {"method":"notifications/cancelled","params":{"requestId":1,"reason":"enough"}}
        child >> {"id":2,"method":"y"}
    """)
