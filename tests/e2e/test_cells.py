"""Every kind of client in front of every kind of server: tools, questions, changes, cancellation.

The servers are those of the referees, made with the Python SDKs: 1.x for one that knows only the
handshake, 2.x for one that speaks both eras, and the same refusing the handshake. The clients of
the first tests are raw; those of the last ones are the SDKs' own, which in auto mode choose.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.support.bridge_process import RunningBridge, bridge, rpc
from tests.support.mcp_clients import (
    ASKED,
    Enveloped,
    McpSession,
    answered,
    called,
    enveloped,
    one_stream,
    streamable,
    tool,
    until,
)
from tests.support.proofs import proves
from tests.support.sdk_clients import python_clients, reported
from tests.support.sdk_servers import PEERS, gist, interpreter, said

pytestmark = [pytest.mark.sdk, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

WITHIN_S = 20.0
CALL = "tools/call"
KINDS = {
    "legacy": (interpreter, 1, ("server_referees.py",)),
    "modern": (interpreter, 2, ("server_referees2.py", "--modern")),
    "dual": (interpreter, 2, ("server_referees2.py",)),
}
CLIENTS = ["2024-11-05", "2025-06-18", "2026-07-28"]
CONTENT = {"username": "ann", "email": "ann@example"}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(KINDS))
async def kind(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, RunningBridge]]:
    """A bridge over each kind of server in turn, which finds out for itself what it is."""
    python, version, (program, *words) = KINDS[request.param]
    command = ("--", python(version), str(PEERS / program), *words)
    async with bridge(*command, env={"MCPBRIDGE_CHILD_ERA": "auto"}) as between:
        (record,) = await between.logged("child.eras_found")
        # Whether one of 2026-07-28 speaks the other era too is tried by its first client.
        spoken = {"legacy": (True, False), "modern": (False, True), "dual": (False, True)}
        assert ("legacy" in record["speaks"], "modern" in record["speaks"]) == spoken[request.param]
        yield request.param, between


@asynccontextmanager
async def client(
    between: RunningBridge, revision: str, offers: Any = None
) -> AsyncIterator[McpSession]:
    """A raw client of this revision over the transport that is its own."""
    async with AsyncExitStack() as stack:
        if revision == "2024-11-05":
            yield await stack.enter_async_context(one_stream(between, revision, offers))
        elif revision == "2026-07-28":
            yield await stack.enter_async_context(enveloped(between, offers))
        else:
            yield await stack.enter_async_context(streamable(between, revision, offers))


async def interrupted(
    mcp_session: McpSession, params: dict[str, Any], answer: Any
) -> tuple[Any, Any]:
    """A call that asks once: the question as it came, and the result after the answer."""
    if not isinstance(mcp_session, Enveloped):
        asked, last = await called(mcp_session, CALL, params, [answer])
        return asked, last["result"]
    first = await answered(mcp_session, CALL, params)
    assert first["resultType"] == "input_required"
    ((key, asked),) = first["inputRequests"].items()
    again = {**params, "inputResponses": {key: answer}}
    if "requestState" in first:
        again["requestState"] = first["requestState"]
    return asked, await answered(mcp_session, CALL, again)


@proves("C82")
@pytest.mark.parametrize("revision", CLIENTS)
async def test_tools_and_their_progress(kind: tuple[str, RunningBridge], revision: str) -> None:
    """A result, an error of a tool, and three steps before an answer, in each cell."""
    name, between = kind
    async with client(between, revision) as mcp_session:
        result = await answered(mcp_session, CALL, tool("test_simple_text"))
        assert result["content"][0]["text"].startswith("This is a simple text")
        assert ("resultType" in result) == (revision == "2026-07-28")
        assert (await answered(mcp_session, CALL, tool("test_error_handling")))["isError"] is True
        params = {**tool("test_tool_with_progress"), "_meta": {"progressToken": "mine"}}
        *steps, last = await called(mcp_session, CALL, params)
        assert [step["params"]["progress"] for step in steps] == [0, 50, 100], name
        assert {step["params"]["progressToken"] for step in steps} == {"mine"}
        assert last["result"]["content"][0]["text"].startswith("progress was told")


@proves("C82")
@pytest.mark.parametrize(
    ("revision", "question"),
    [
        ("2024-11-05", "sampling"),
        ("2025-06-18", "sampling"),
        ("2025-06-18", "elicitation"),
        ("2026-07-28", "sampling"),
        ("2026-07-28", "elicitation"),
    ],
)
async def test_a_question_comes_back_answered(
    kind: tuple[str, RunningBridge], revision: str, question: str
) -> None:
    """Asked as the client's revision asks; 2024-11-05 has no elicitation."""
    _, between = kind
    async with client(between, revision, ASKED) as mcp_session:
        if question == "sampling":
            text = {"type": "text", "text": "hummed"}
            answer: Any = {"role": "assistant", "content": text, "model": "m"}
            params = tool("test_sampling", prompt="hum")
        else:
            answer = {"action": "accept", "content": CONTENT}
            params = tool("test_elicitation", message="who?")
        asked, result = await interrupted(mcp_session, params, answer)
    found = result["content"][0]["text"]
    if question == "sampling":
        assert asked["method"] == "sampling/createMessage"
        assert asked["params"]["messages"][0]["content"] == {"type": "text", "text": "hum"}
        assert found == "LLM response: hummed"
    else:
        assert asked["method"] == "elicitation/create"
        assert asked["params"]["message"] == "who?"
        assert json.loads(found.partition("content=")[2]) == CONTENT


@proves("C83")
@pytest.mark.parametrize("revision", CLIENTS)
async def test_a_change_of_the_tools_is_heard(
    kind: tuple[str, RunningBridge], revision: str
) -> None:
    """By a session and by a subscription alike, after a change by any client."""
    _, between = kind
    async with client(between, revision) as mcp_session, mcp_session.listening() as told:
        await _changed(mcp_session)
        await until(told, lambda each: each.get("method") == "notifications/tools/list_changed")


async def _changed(mcp_session: McpSession) -> None:
    """Call for the change, and wait for nothing: on one stream the change may come first."""
    request = rpc("change", CALL, tool("test_trigger_tool_change"))
    if isinstance(mcp_session, Enveloped):
        await answered(mcp_session, CALL, request["params"])
        return
    await asyncio.create_task(_posted(mcp_session, request))


async def _posted(mcp_session: McpSession, request: Any) -> None:
    async with mcp_session.calling(request):
        pass


@pytest.mark.parametrize("revision", CLIENTS)
async def test_a_cancelled_call_ends_at_the_server(
    kind: tuple[str, RunningBridge], revision: str
) -> None:
    """By a notification in a session, by the end of the connection without one."""
    _, between = kind
    async with client(between, revision) as mcp_session:
        # With a token of progress the response begins before the answer.
        waits = {**tool("wait"), "_meta": {"progressToken": "waits"}}
        async with (
            mcp_session.calling(rpc("waits", CALL, waits))
            if not isinstance(mcp_session, Enveloped)
            else _connected(mcp_session) as following
        ):
            await _until_waiting(between, revision, 1)
            if not isinstance(mcp_session, Enveloped):
                params = {"requestId": "waits"}
                told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
                await mcp_session.send(told)
                assert (await until(following, lambda each: each.get("id") == "waits"))[-1]
        await _until_waiting(between, revision, 0)


@asynccontextmanager
async def _connected(mcp_session: Enveloped) -> AsyncIterator[Any]:
    """A call of which nothing is read; the connection closes at the end."""
    body, headers = mcp_session.whole(rpc("waits", CALL, tool("wait")))
    posting = asyncio.create_task(mcp_session.client.post("/mcp", json=body, headers=headers))
    try:
        yield None
    finally:
        posting.cancel()
        await asyncio.wait([posting])


async def _until_waiting(between: RunningBridge, revision: str, count: int) -> None:
    """Ask the same server, as a client of the same kind, how many calls wait there."""
    async with client(between, revision) as mcp_session, asyncio.timeout(WITHIN_S):
        while True:
            result = await answered(mcp_session, CALL, tool("waiting"))
            if result["content"][0]["text"] == str(count):
                return


PLAN = {
    "lists": ["tools", "resources", "resourceTemplates", "prompts"],
    "counted": {"steps": ["test_tool_with_progress", {}]},
    "reads": {"static": "test://static-text"},
    "questions": {
        "text": ["test_simple_text", {}],
        "sampled": ["test_sampling", {"prompt": "hum"}],
        "asked": ["test_elicitation_sep1034_defaults", {}],
    },
}
SDKS = {
    "mcp1": ("mcp1", "http"),
    "mcp1-sse": ("mcp1", "sse"),
    "mcp2": ("mcp2-legacy", "http"),
    "mcp2-sse": ("mcp2-legacy", "sse"),
    "mcp2-auto": ("mcp2-auto", "http"),
}


async def _reported(between: RunningBridge, sdk: str, scenario: str, *options: str) -> Any:
    """What a client of an SDK saw."""
    name, transport = SDKS[sdk]
    target = (f"{between.url}/{'sse' if transport == 'sse' else 'mcp'}",)
    words = ("--plan", json.dumps(PLAN), "--transport", transport, *options)
    return await reported(python_clients()[name], scenario, *words, target=target)


@proves("C82")
@pytest.mark.parametrize("sdk", ["mcp1-sse", "mcp2", "mcp2-auto"])
async def test_sdk_clients_are_asked_whatever_the_server_speaks(
    kind: tuple[str, RunningBridge], sdk: str
) -> None:
    """A plain call and two that ask; in auto mode by 2026-07-28, whose questions are others.

    With a server that knows the handshake only, the auto client takes emulation: the bridge offers
    2026-07-28 in front of each.
    """
    _, between = kind
    asked = await _reported(between, sdk, "questions", "--declare")
    revision = asked["hello"]["protocolVersion"]
    assert (revision == "2026-07-28") == (sdk == "mcp2-auto"), revision
    assert asked["hello"]["serverInfo"]["name"] == "referees"
    assert gist(asked["text"]) == said("This is a simple text response for testing.")
    assert gist(asked["sampled"]) == said("LLM response: sampled from: hum")
    assert "action=accept" in str(gist(asked["asked"]))
    assert "said to: Every field has a default" in str(gist(asked["asked"]))


@proves("C81", "C84")
async def test_sdk_clients_see_what_there_is_whatever_the_server_speaks(
    kind: tuple[str, RunningBridge],
) -> None:
    """Lists, progress and resources pass the SDKs' own checks."""
    name, between = kind
    # In front of a handshake what SDK 1.x sees is test_sdk_clients' affair.
    for sdk in ("mcp1", "mcp2-auto") if name == "modern" else ("mcp2-auto",):
        toured = await _reported(between, sdk, "tour")
        assert {"test_simple_text", "wait"} <= {each["name"] for each in toured["tools"]}
        assert len(toured["prompts"]) == 5
        assert len(toured["resources"]) == 3
        assert toured["steps-progress"] == [[0, 100], [50, 100], [100, 100]]
        assert toured["static"]["result"]["contents"][0]["text"].startswith("This is the content")
