"""Questions of a legacy child to clients of 2026-07-28: parked calls and their retries."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bridge_process import asked_until, eventually, messages
from tests.support.modern_client import (
    ALL,
    FORM,
    Stateless,
    asking,
    form,
    progress,
    remark,
    retry_of,
    serving,
    text_of,
)
from tests.support.proofs import proves

pytestmark = pytest.mark.asyncio(loop_scope="module")
ERA = ("--child-era", "legacy")
YES = {"action": "accept", "content": {"name": "Ada"}}
PAGE = {"mode": "url", "elicitationId": "e1", "url": "https://a.example/", "message": "go"}
PAGES = {"code": -32042, "message": "visit", "data": {"elicitations": [PAGE, PAGE]}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stateless]:
    """A bridge over a server with a handshake."""
    async with serving("legacy", tmp_path_factory.mktemp("parked"), *ERA) as running:
        yield running


async def parked(served: Stateless, params: Any, capabilities: Any = FORM, **more: Any) -> Any:
    """The result of a call that is parked."""
    result = await served.result("tools/call", params, capabilities, **more)
    assert result["resultType"] == "input_required"
    assert result["inputRequests"]
    assert isinstance(result["requestState"], str)
    return result


def asker(served: Stateless, mark: str) -> int:
    """The process that has read the call with this mark."""
    (found,) = [
        pid
        for pid, lines in served.processes().items()
        if any(mark in json.dumps(line) for line in lines if line.get("method") == "tools/call")
    ]
    return found


@proves("C32", "C33", "C51")
@pytest.mark.parametrize(
    ("question", "capabilities", "response"),
    [
        (form(), FORM, YES),
        (form(), {"elicitation": {"form": {}}}, {"action": "decline"}),
        (form(mode="form"), ALL, YES),
        (
            {
                "method": "elicitation/create",
                "params": {"mode": "url", "url": "u:v", "message": "m"},
            },
            ALL,
            {"action": "accept"},
        ),
        (
            {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 3}},
            {"sampling": {"tools": {}}},
            {"role": "assistant", "content": {"type": "text", "text": "hm"}, "model": "m"},
        ),
        ({"method": "roots/list", "params": {}}, {"roots": {}}, {"roots": [{"uri": "file:///"}]}),
    ],
)
async def test_a_question_becomes_a_result_and_a_retry_answers_it(
    served: Stateless, question: Any, capabilities: Any, response: Any
) -> None:
    """The client is asked what the child asked, and the child reads what the client said."""
    params = asking([question])
    first = await parked(served, params, capabilities, id=1)
    assert first["inputRequests"] == {"i1": question}
    assert not {"ttlMs", "cacheScope"} & set(first)
    last = await served.result(
        "tools/call", retry_of(params, first, i1=response), capabilities, id=2
    )
    assert last["resultType"] == "complete"
    said = text_of(last)
    # A bare value is the result; nothing of the envelope or of the retry has reached the child.
    assert said["answers"] == [response]
    assert said["params"] == params
    assert response in [line.get("result") for line in served.heard()]


@proves("C33")
async def test_a_child_is_introduced_to_what_its_client_offers(served: Stateless) -> None:
    """In its handshake, roots without news, in no other spelling than the next client's."""
    params = asking([form()])
    offers = {"roots": {"listChanged": True}, "elicitation": {"url": {}, "form": {}}, "tasks": {}}
    first = await parked(served, params, offers)
    await served.result("tools/call", retry_of(params, first, i1=YES), offers)
    introduced = [line["params"]["capabilities"] for line in served.heard("initialize")]
    assert {"roots": {}, "elicitation": {"url": {}, "form": {}}} in introduced
    count = len(introduced)
    turned: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "roots": {}}
    first = await parked(served, params, turned)
    await served.result("tools/call", retry_of(params, first, i1=YES), turned)
    assert len(served.heard("initialize")) == count


@proves("C33")
@pytest.mark.parametrize(
    ("question", "capabilities"),
    [
        (form(mode="url", url="u:v"), FORM),
        (form(), {"elicitation": {"url": {}}}),
        (form(mode="telepathy"), ALL),
        (form(), {"sampling": {}}),
        ({"method": "roots/list", "params": {}}, FORM),
        ({"method": "x/other", "params": {}}, ALL),
        ({"method": "elicitation/create", "params": {"mode": 7}}, {"elicitation": {"url": {}}}),
    ],
)
async def test_a_client_is_asked_nothing_that_it_cannot_do(
    served: Stateless, question: Any, capabilities: Any
) -> None:
    """The child gets an error, and the call goes on."""
    result = await served.result("tools/call", asking([question]), capabilities)
    assert result["resultType"] == "complete"
    assert text_of(result)["answers"][0]["code"] in (-32601, -32602)


@proves("C32")
async def test_what_only_older_revisions_know_is_not_asked(served: Stateless) -> None:
    """Ids of elicitations, tasks and tokens of the child stay with the bridge."""
    question = form(elicitationId="e", task={"ttl": 1}, _meta={"progressToken": 5, "a/b": 1})
    params = asking([question])
    first = await parked(served, params)
    (asked,) = first["inputRequests"].values()
    assert asked["params"] == {**form()["params"], "_meta": {"a/b": 1}}
    await served.result("tools/call", retry_of(params, first, i1=YES), FORM)


@proves("C35")
async def test_questions_asked_together_travel_together_and_what_misses_is_asked_again(
    served: Stateless,
) -> None:
    """Answers may come one by one; strange keys and values are not answers."""
    params = asking([form("a"), form("b")])
    first = await parked(served, params)
    assert {k: v["params"]["message"] for k, v in first["inputRequests"].items()} == {
        "i1": "a",
        "i2": "b",
    }
    for responses in ({}, {"i9": YES, "0": YES}, {"i1": "yes", "i2": None}):
        again = await parked(served, retry_of(params, first, **responses))
        assert set(again["inputRequests"]) == {"i1", "i2"}
    partly = await parked(served, retry_of(params, again, i2={"action": "cancel"}, i7=YES))
    assert set(partly["inputRequests"]) == {"i1"}
    # The first state is as good as the last: the round is the same.
    last = await served.result("tools/call", retry_of(params, first, i1=YES, i2=YES), FORM)
    assert text_of(last)["answers"] == [{"action": "cancel"}, YES]


@proves("C32", "C34")
async def test_rounds_follow_one_another_and_none_is_answered_twice(served: Stateless) -> None:
    """A state that was used is refused; once the call is over, its answer is given again."""
    params = asking([form("a")], [form("b")], [form("c")])
    states: list[Any] = []
    result = await parked(served, params)
    for number, letter in enumerate("abc", 1):
        ((key, request),) = result["inputRequests"].items()
        assert (key, request["params"]["message"]) == (f"i{number}", letter)
        for used in states:
            error = await served.error("tools/call", retry_of(params, used, **{key: YES}), FORM)
            assert error["code"] == -32602
        states.append(result)
        retry = retry_of(params, result, **{key: {"action": "accept", "n": number}})
        result = await served.result("tools/call", retry, FORM)
    assert [a["n"] for a in text_of(result)["answers"]] == [1, 2, 3]
    calls = len(served.heard("tools/call"))
    again = await served.result("tools/call", retry_of(params, states[-1], i3=YES), FORM, id="new")
    assert again == result
    assert len(served.heard("tools/call")) == calls


@proves("C34")
async def test_a_state_is_good_for_its_own_request_only(served: Stateless) -> None:
    """Changed, cut, foreign or invented: an error, and no child has read a word of it."""
    params = asking([form()], mark="tampered")
    first = await parked(served, params)
    state = first["requestState"]
    changed = [state[:20] + chr(ord(state[20]) ^ 1) + state[21:], state[:-4], state[8:]]
    heard = len(served.heard())
    for bad in (*changed, state + "A", state + "\n", "", "é", "x" * 5000, 7, {}, [state]):
        retry = {**retry_of(params, first, i1=YES), "requestState": bad}
        assert (await served.error("tools/call", retry, FORM))["code"] == -32602, bad
    other = asking([form()], mark="other")
    for method, body in (
        ("tools/call", other),
        ("tools/call", {"name": "headed", **{k: v for k, v in params.items() if k != "name"}}),
        ("prompts/get", params),
    ):
        error = await served.error(method, retry_of(body, first, i1=YES), FORM)
        assert error["code"] == -32602
    assert len(served.heard()) == heard
    # The order of members is not a change, and the call is still there.
    turned = {name: params[name] for name in reversed(params)}
    last = await served.result("tools/call", retry_of(turned, first, i1=YES), FORM)
    assert text_of(last)["answers"] == [YES]


@proves("C30", "C36")
@pytest.mark.parametrize("method", ["prompts/get", "resources/read"])
async def test_prompts_and_reads_ask_as_well(served: Stateless, method: str) -> None:
    """And what asks for input says nothing of how long it may be kept."""
    wishes = {"ask": [[form()]]}
    params: dict[str, Any] = {"name": "p", "arguments": wishes}
    if method == "resources/read":
        params = {"uri": "do:" + json.dumps(wishes)}
    first = await served.result(method, params, FORM)
    assert first["resultType"] == "input_required"
    assert not {"ttlMs", "cacheScope"} & set(first)
    last = await served.result(method, retry_of(params, first, i1=YES), FORM)
    assert last["resultType"] == "complete"
    assert ("ttlMs" in last) == (method == "resources/read")


@proves("C14", "C38")
async def test_progress_and_log_belong_to_the_leg_that_is_open(served: Stateless) -> None:
    """Under the token and at the level of the request whose stream it is."""
    params = asking(
        [form()],
        say=[progress(1), remark("info", 1)],
        after=[progress(2), remark("debug", 2), remark("error", 3)],
    )
    response = await served.post("tools/call", params, FORM, token="one", level="info")
    *told, answer = messages(response.text)
    assert [m["params"].get("progressToken", m["params"].get("data")) for m in told] == ["one", 1]
    retry = retry_of(params, answer["result"], i1=YES)
    response = await served.post("tools/call", retry, FORM, token=2, level="error")
    *told, answer = messages(response.text)
    assert [m["params"].get("progressToken", m["params"].get("data")) for m in told] == [2, 3]
    assert answer["result"]["resultType"] == "complete"


@proves("C89")
async def test_a_retry_finds_its_child(served: Stateless) -> None:
    """Calls that are parked at once have a child each; afterwards the children serve on."""
    marks = [f"mark-{number}" for number in range(3)]
    params = [asking([form(mark)], mark=mark) for mark in marks]
    firsts = await asyncio.gather(*(parked(served, p) for p in params))
    pids = [asker(served, mark) for mark in marks]
    assert len(set(pids)) == 3
    for number in reversed(range(3)):
        answer = {"action": "accept", "content": {"n": number}}
        retry = retry_of(params[number], firsts[number], i1=answer)
        last = await served.result("tools/call", retry, FORM)
        said = text_of(last)
        assert (said["answers"], said["params"]) == ([answer], params[number])
    processes = set(served.processes())
    first = await parked(served, asking([form()], mark="next"))
    await served.result("tools/call", retry_of(asking([form()], mark="next"), first, i1=YES), FORM)
    assert set(served.processes()) == processes


@proves("C34")
async def test_equal_retries_at_once_answer_the_child_once(served: Stateless) -> None:
    """One of them is served, the others are told that the call no longer waits."""
    params = asking([form()], hold="twice")
    first = await parked(served, params)
    pid = asker(served, "twice")
    retry = served.request("tools/call", retry_of(params, first, i1=YES), FORM, id="a")
    one = asyncio.create_task(served.send(retry))
    await eventually(lambda: served.processes()[pid][-1].get("result") == YES, "the answer")
    error = await served.error("tools/call", retry_of(params, first, i1=YES), FORM)
    assert error["code"] == -32602
    assert served.processes()[pid][-1].get("result") == YES
    one.cancel()
    await eventually(lambda: "method" in served.processes()[pid][-1], "the cancellation")


@proves("C12", "C88")
async def test_closing_the_connection_of_a_retry_cancels_the_call(served: Stateless) -> None:
    """The child is told, is not used again, and the state is worth nothing any more."""
    params = asking([form()], hold="gone", mark="gone")
    first = await parked(served, params)
    pid = asker(served, '"gone"')
    retry = served.request("tools/call", retry_of(params, first, i1=YES), FORM)
    pending = asyncio.create_task(served.send(retry))
    await eventually(lambda: served.processes()[pid][-1].get("result") == YES, "the answer")
    pending.cancel()
    await eventually(lambda: "method" in served.processes()[pid][-1], "the cancellation")
    (call,) = [line for line in served.processes()[pid] if '"gone"' in json.dumps(line)]
    last = served.processes()[pid][-1]
    assert last["method"] == "notifications/cancelled"
    assert last["params"]["requestId"] == call["id"]
    await eventually(lambda: pid not in served.bridge.processes(), "the child is gone")
    error = await served.error("tools/call", retry_of(params, first, i1=YES), FORM)
    assert error["code"] == -32602


@proves("C54", "C88")
async def test_a_child_that_dies_ends_its_call(served: Stateless) -> None:
    """In a leg and while it is parked: an error that says so, to that call alone."""
    other = asking([form()], mark="bystander")
    waiting = await parked(served, other)
    error = await served.error("tools/call", asking([], exit=1), FORM)
    assert error["data"]["mcpbridge"]["reason"] == "child_exited"
    params = asking([form()], mark="doomed")
    first = await parked(served, params)
    os.kill(asker(served, "doomed"), signal.SIGKILL)
    error = await served.error("tools/call", retry_of(params, first, i1=YES), FORM)
    assert error["code"] == -32603
    assert error["data"]["mcpbridge"]["reason"] == "child_exited"
    last = await served.result("tools/call", retry_of(other, waiting, i1=YES), FORM)
    assert text_of(last)["answers"] == [YES]


@proves("C32")
async def test_an_answer_that_comes_before_the_retry_waits_for_it(served: Stateless) -> None:
    """A child that loses patience answers a parked call; the retry gets that answer."""
    params = asking([form()], mark="impatient")
    first = await parked(served, params)
    os.kill(asker(served, "impatient"), signal.SIGUSR1)
    last = await served.result("tools/call", retry_of(params, first, i1=YES), FORM)
    assert text_of(last)["answers"] in ([], [YES])
    # One that does not wait at all is answered as it answered.
    result = await served.result("tools/call", asking([form()], shrug=True), FORM)
    assert result["resultType"] == "complete"


@proves("C43", "C32")
async def test_pages_to_visit_are_input_that_is_required(served: Stateless) -> None:
    """-32042 of 2025-11-25 asks for each page, and the retry is the call again."""
    params = {"name": "do", "arguments": {"error": PAGES, "mark": "pages"}}
    calls = len(served.heard("tools/call"))
    first = await parked(served, params, ALL)
    page = {"mode": "url", "url": "https://a.example/", "message": "go"}
    asked = {"method": "elicitation/create", "params": page}
    assert first["inputRequests"] == {"i1": asked, "i2": asked}
    yes, no = {"action": "accept"}, {"action": "decline"}
    again = await parked(served, retry_of(params, first, i1=yes, i2=yes), ALL)
    assert len(served.heard("tools/call")) == calls + 2
    declined = await served.result("tools/call", retry_of(params, again, i1=yes, i2=no), ALL)
    assert (declined["isError"], declined["resultType"]) == (True, "complete")
    assert len(served.heard("tools/call")) == calls + 2
    prompt = {"name": "p", "arguments": {"error": PAGES}}
    asked_for = await served.result("prompts/get", prompt, ALL)
    error = await served.error("prompts/get", retry_of(prompt, asked_for, i1=no, i2=no), ALL)
    assert error["code"] == -32602


@proves("C43")
@pytest.mark.parametrize("capabilities", [{}, FORM], ids=str)
async def test_pages_for_a_client_that_can_visit_none(served: Stateless, capabilities: Any) -> None:
    """The error names the capability that is missing."""
    params = {"name": "do", "arguments": {"error": PAGES}}
    response = await served.post("tools/call", params, capabilities)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, -32021)
    assert error["data"]["requiredCapabilities"] == {"elicitation": {"url": {}}}


@proves("C43", "C33")
@pytest.mark.slow
async def test_pages_on_a_child_that_all_share(tmp_path_factory: pytest.TempPathFactory) -> None:
    """If no client has its own child, the retry goes to the shared one as well."""
    folder = tmp_path_factory.mktemp("shared")
    async with serving("legacy", folder, *ERA, "--isolation", "shared") as served:
        params = {"name": "do", "arguments": {"error": PAGES}}
        first = await parked(served, params, ALL)
        await parked(served, retry_of(params, first, i1=YES, i2=YES), ALL)
        result = await served.result("tools/call", asking([form()]), ALL)
        assert "code" in text_of(result)["answers"][0]
        assert len(served.processes()) == 1


@proves("C88")
@pytest.mark.slow
async def test_a_parked_call_has_an_end(tmp_path_factory: pytest.TempPathFactory) -> None:
    """After its time the child gets an end of each question and a cancellation, and goes."""
    folder = tmp_path_factory.mktemp("late")
    async with serving("legacy", folder, *ERA, "--parked-timeout", "0.3") as served:
        sample = {"method": "sampling/createMessage", "params": {"messages": []}}
        params = asking([form(), sample], mark="late")
        first = await parked(served, params, ALL)
        pid = asker(served, "late")
        await served.bridge.logged("call.parked_overdue")
        await eventually(lambda: pid not in served.bridge.processes(), "the child is gone")
        *_, form_end, sample_end, cancelled = served.processes()[pid]
        assert form_end["result"] == {"action": "cancel"}
        assert "error" in sample_end
        assert cancelled["method"] == "notifications/cancelled"
        error = await served.error("tools/call", retry_of(params, first, i1=YES), ALL)
        assert error["code"] == -32602


@proves("C88")
@pytest.mark.slow
async def test_parked_calls_are_few(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Beyond the caps a call is 503, and what cannot ask is served on."""
    folder = tmp_path_factory.mktemp("few")
    caps = ("--max-parked", "2", "--max-children", "3")
    async with serving("legacy", folder, *ERA, *caps) as served:
        params = asking([form()])
        firsts = [await parked(served, params), await parked(served, params)]
        response = await served.post("tools/call", params, FORM)
        assert response.status_code == 503
        assert response.json()["error"]["data"]["mcpbridge"]["reason"] == "capacity"
        assert (await served.do())["resultType"] == "complete"
        for first in firsts:
            await served.result("tools/call", retry_of(params, first, i1=YES), FORM)
        # Both places have children that no client uses: one makes room for another client's.
        other = await parked(served, params, ALL)
        await served.result("tools/call", retry_of(params, other, i1=YES), ALL)
        assert len(served.bridge.processes()) <= 3


def left(served: Stateless) -> int:
    """How many processes the bridge still knows."""
    return len(served.bridge.events("child.started")) - len(served.bridge.events("child.stopped"))


@proves("C88")
@pytest.mark.slow
async def test_calls_are_few_where_children_are(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A call that would need one child too many is 503, and one that ends makes room."""
    folder = tmp_path_factory.mktemp("one")
    caps = ("--max-children", "2", "--isolation", "session", "--queue-timeout", "100ms")
    async with serving("legacy", folder, *ERA, *caps) as served:
        params = asking([form()])
        first = await parked(served, params)
        assert (await served.post("tools/call", params, FORM)).status_code == 503
        await served.result("tools/call", retry_of(params, first, i1=YES), FORM)
        ambiguous = served.request("tools/call", params, FORM)
        ambiguous["params"]["_meta"] |= {"progressToken": 1, "ProgressToken": 2}
        for _ in range(3):
            assert "error" in (await served.send(ambiguous)).json()
        await eventually(lambda: left(served) == 1, "it has gone")
        first = await parked(served, params)
        # The bridge ends while it is parked; nothing may be left.


@proves("C12", "C88")
@pytest.mark.slow
async def test_a_client_that_leaves_while_its_child_starts(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The child never gets the call, and waits for the next one."""
    folder, readiness = tmp_path_factory.mktemp("gated"), tmp_path_factory.mktemp("gate") / "fifo"
    os.mkfifo(readiness)
    opening = asyncio.create_task(asyncio.to_thread(readiness.write_bytes, b""))
    caps = ("--max-parked", "1", "--max-children", "2")
    async with serving("legacy", folder, *ERA, *caps, manners=("gated", str(readiness))) as served:
        await opening
        call = served.request("tools/call", asking([form()], mark="left"), FORM)
        leaving = asyncio.create_task(served.send(call))
        await eventually(lambda: len(served.bridge.processes()) == 2, "its child starts")
        leaving.cancel()
        for _ in range(10):
            await served.result("tools/list")
        await asyncio.to_thread(readiness.write_bytes, b"")
        await eventually(lambda: len(served.heard("initialize")) == 2, "its child has started")
        params = asking([form()], mark="stays")

        async def has_left() -> bool:
            answer = await served.reply("tools/call", params, FORM)
            answers.append(answer)
            return "result" in answer

        answers: list[Any] = []
        await asked_until(has_left, "the place of the client that left is free")
        first = answers[-1]["result"]
        assert first["resultType"] == "input_required"
        await served.result("tools/call", retry_of(params, first, i1=YES), FORM)
        assert "left" not in json.dumps(served.heard("tools/call"))
        assert len(served.processes()) == 2
