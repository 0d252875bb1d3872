"""Questions of a legacy child as `input_required`, and the answers on their way back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpbridge.rules.mcp.input_required import (
    all_accepted,
    digest,
    input_request,
    input_required,
    input_responses,
    pages_to_visit,
    refusal_to_ask,
    request_state,
)
from mcpbridge.rules.mcp.request_meta import (
    CLIENT_CAPABILITIES,
    PROTOCOL_VERSION,
    RequestMeta,
    read_envelope,
)
from mcpbridge.wire.messages import Request
from tests.support.proofs import proves

BOTH: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}}


def envelope(capabilities: Any) -> RequestMeta:
    """The envelope of a client that offers this."""
    meta = {PROTOCOL_VERSION: "2026-07-28", CLIENT_CAPABILITIES: capabilities}
    found = read_envelope(json.dumps({"_meta": meta}).encode())
    assert isinstance(found, RequestMeta)
    return found


def question(method: str = "elicitation/create", params: Any = None) -> Request:
    """A question of a child."""
    return Request(b"0", method, None if params is None else json.dumps(params).encode())


@proves("C33")
@pytest.mark.parametrize(
    ("asked", "offered", "code"),
    [
        (question(), BOTH, None),
        (question(params={}), {"elicitation": {}}, None),
        (question(params={"mode": "form"}), {"elicitation": {}}, None),
        (question(params={"mode": "url"}), BOTH, None),
        (question(params={"mode": "url"}), {"elicitation": {}}, -32602),
        (question(params={"mode": "form"}), {"elicitation": {"url": {}}}, -32602),
        (question(params={"mode": "dream"}), BOTH, -32602),
        (question(params={"mode": 7}), BOTH, None),
        (question(), {}, -32601),
        (question("sampling/createMessage"), BOTH, -32601),
        (question("sampling/createMessage"), {"sampling": {}}, None),
        (question("roots/list"), {"roots": {}}, None),
        (question("x/other"), BOTH, -32601),
    ],
)
def test_only_what_is_offered_is_asked(asked: Request, offered: Any, code: int | None) -> None:
    """Kind and mode."""
    refusal = refusal_to_ask(asked, envelope(offered))
    assert (None if refusal is None else json.loads(refusal)["code"]) == code


@proves("C32")
@pytest.mark.parametrize(
    ("params", "entry"),
    [
        (None, {}),
        ({"message": "m", "x": 1}, {"message": "m", "x": 1}),
        ({"elicitationId": "e", "task": {}, "mode": "url"}, {"mode": "url"}),
        ({"_meta": {"progressToken": 1, "a": 2}}, {"_meta": {"a": 2}}),
        ({"_meta": {"progressToken": 1}}, {"_meta": {}}),
        ({"_meta": 7}, {"_meta": 7}),
    ],
)
def test_a_question_becomes_an_entry(params: Any, entry: Any) -> None:
    """Without what only the child's revision knows."""
    found = json.loads(input_request(question("roots/list", params)))
    assert found == {"method": "roots/list", "params": entry}


@proves("C32")
def test_what_asks_for_input_is_a_result() -> None:
    """With its result type, the questions by key and the state."""
    found = json.loads(input_required({"i1": b'{"method":"m"}'}, "s\u2028"))
    assert found == {
        "resultType": "input_required",
        "inputRequests": {"i1": {"method": "m"}},
        "requestState": "s\u2028",
    }


@proves("C35")
@pytest.mark.parametrize(
    ("params", "responses"),
    [
        (None, {}),
        (b"{}", {}),
        (b'{"inputResponses":[]}', {}),
        (b'{"inputResponses":{"a":{"x": 1},"b":7,"c":null,"d":"{"}}', {"a": b'{"x": 1}'}),
    ],
)
def test_answers_are_objects(params: bytes | None, responses: Any) -> None:
    """Anything else is not an answer."""
    assert input_responses(params) == responses


@proves("C34")
@pytest.mark.parametrize(
    ("params", "state"),
    [
        (None, None),
        (b"{}", None),
        (b'{"requestState":null}', None),
        (b'{"requestState":"s"}', "s"),
        (b'{"requestState":""}', ""),
        (b'{"requestState":7}', ""),
        (b'{"requestState":"\\ud800"}', ""),
    ],
)
def test_a_state_is_a_text(params: bytes | None, state: str | None) -> None:
    """An invalid one opens nothing."""
    assert request_state(params) == state


@proves("C34")
def test_the_digest_is_of_what_must_not_change() -> None:
    """Neither order nor envelope nor answers; the method and every argument."""
    plain = digest("tools/call", b'{"name":"a","arguments":{"x":1,"y":2}}')
    same = (
        b'{"arguments":{"y":2,"x":1},"name":"a"}',
        b'{"name":"a","arguments":{"x":1,"y":2},"_meta":{"progressToken":1,"a":2}}',
        b'{"name":"a","arguments":{"x":1,"y":2},"inputResponses":{"q":{}},"requestState":"s"}',
    )
    assert {digest("tools/call", params) for params in same} == {plain}
    other = (b'{"name":"b","arguments":{"x":1,"y":2}}', b'{"name":"a","arguments":{"x":2,"y":1}}')
    found = {digest("tools/call", params) for params in other}
    assert len({*found, plain, digest("prompts/get", same[0]), digest("tools/call", None)}) == 5


@pytest.mark.parametrize("value", [b'"\\ud800"', b"1e999"])
def test_what_cannot_be_read_counts_as_it_is_spelled(value: bytes) -> None:
    """It is legal JSON, and a change of it is a change."""
    one = digest("tools/call", b'{"a":%b}' % value)
    assert one == digest("tools/call", b'{"a":%b,"requestState":"s"}' % value)
    assert one != digest("tools/call", b'{"a":%b,"b":1}' % value)


@proves("C43")
@pytest.mark.parametrize(
    ("error", "count"),
    [
        (b"{}", None),
        (b'{"data":{}}', None),
        (b'{"data":{"elicitations":{}}}', None),
        (b'{"data":{"elicitations":[]}}', None),
        (b'{"data":{"elicitations":[7]}}', None),
        (b'{"data":{"elicitations":[{"url":"u"}]}}', 1),
        (b'{"data":{"elicitations":[{"url":"u"},{"mode":"url","elicitationId":"e"}]}}', 2),
    ],
)
def test_pages_become_entries(error: bytes, count: int | None) -> None:
    """One for each, by url, without ids; what cannot be read is left out."""
    pages = pages_to_visit(error)
    assert (None if pages is None else len(pages)) == count
    for page in (pages or {}).values():
        found = json.loads(page)
        assert found["method"] == "elicitation/create"
        assert found["params"]["mode"] == "url"
        assert "elicitationId" not in found["params"]


@proves("C43")
@pytest.mark.parametrize(
    ("responses", "count", "accepted"),
    [
        ({"i1": b'{"action":"accept"}'}, 1, True),
        ({"i1": b'{"action":"accept"}'}, 2, False),
        ({"i1": b'{"action":"accept"}', "i2": b'{"action":"decline"}'}, 2, False),
        ({"i1": b"{}"}, 1, False),
        ({}, 1, False),
    ],
)
def test_every_page_must_be_agreed_to(responses: Any, count: int, accepted: bool) -> None:
    """A missing answer is not an agreement."""
    assert all_accepted(responses, count) is accepted
