"""A listen on a shared legacy child: what is granted, what is passed on, and how it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.bridge.modern.subscriptions import Subscription
from mcpbridge.errors import WireError
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.event_log import Window
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Notification, Request, whole
from tests.bridge.legacy.parts import lease_on_memory
from tests.bridge.playbook import bounded

TOOLS = "notifications/tools/list_changed"
PROMPTS = "notifications/prompts/list_changed"


def listen(wanted: Any, most: int = 3) -> Subscription:
    """A listen under the id "l"."""
    params = json.dumps({"notifications": wanted}).encode()
    request = Request(b'"l"', "subscriptions/listen", params)
    return Subscription(request, Stream(Window(), Meters()), most, Account())


def on(listening: Subscription) -> list[Any]:
    """The messages on its stream."""
    return [json.loads(whole(entry.payload)) for entry in listening.stream.log.after(0)]


def updated(uri: str) -> Notification:
    """A resource has changed."""
    return Notification("notifications/resources/updated", json.dumps({"uri": uri}).encode())


def test_only_what_is_granted_is_acknowledged_and_passed_on() -> None:
    """Of lists those that the server announces, of resources those that it granted."""
    listening = listen(
        {
            "toolsListChanged": True,
            "promptsListChanged": True,
            "resourcesListChanged": "yes",
            "resourceSubscriptions": ["a:1", "b:1", "a:1"],
        }
    )
    assert listening.wanted_uris == ["a:1", "b:1"]
    listening.ask("a:1")
    listening.ask("b:1")
    listening.settle("a:1", granted=True)
    listening.settle("b:1", granted=False)
    listening.acknowledge({TOOLS})
    for notification in (
        Notification(TOOLS),
        Notification(PROMPTS),
        Notification("notifications/message", b'{"level":"info"}'),
        updated("a:1"),
        updated("b:1"),
        updated("c:1"),
        Notification("notifications/resources/updated", b'{"uri":7}'),
        Notification("notifications/resources/updated"),
    ):
        listening.on_notification(notification)
    acknowledged, tools, resource = on(listening)
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["notifications"] == {
        "toolsListChanged": True,
        "resourceSubscriptions": ["a:1"],
    }
    assert (tools["method"], resource["params"]["uri"]) == (TOOLS, "a:1")
    tags = {
        each["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] for each in on(listening)
    }
    assert tags == {"l"}


def test_the_childs_own_meta_stays_beside_the_tag() -> None:
    """Unknown members survive; a child cannot choose the tag."""
    listening = listen({"toolsListChanged": True})
    tag = "io.modelcontextprotocol/subscriptionId"
    params = json.dumps({"x": 1, "_meta": {"y": 2, tag: "other"}}).encode()
    listening.on_notification(Notification(TOOLS, params))
    (said,) = on(listening)
    assert said["params"] == {"x": 1, "_meta": {"y": 2, tag: "l"}}


def test_until_the_child_has_answered_a_resource_is_wanted_and_not_granted() -> None:
    """Another client that unsubscribes must leave it; at the end it is taken back."""
    listening = listen({"resourceSubscriptions": ["a:1", "b:1"]})
    listening.ask("a:1")
    listening.settle("b:1", granted=True)
    assert (listening.wants("a:1"), "a:1" in listening.subscriptions) == (True, False)
    assert listening.asked_for == {"a:1", "b:1"}
    listening.settle("a:1", granted=False)
    assert (listening.wants("a:1"), listening.asked_for) == (False, {"b:1"})


@pytest.mark.parametrize("uris", [["a:1", "b:1", "c:1", "d:1"], ["a:1", "b:" + "x" * 100_000]])
def test_too_many_resources_or_a_huge_one_are_refused(uris: list[str]) -> None:
    """Before a stream is begun."""
    with pytest.raises(WireError):
        listen({"resourceSubscriptions": uris})


@pytest.mark.parametrize("wanted", [None, [], 7, {}, {"resourceSubscriptions": {"a:1": 1}}])
def test_a_listen_for_nothing_is_valid_and_hears_nothing(wanted: Any) -> None:
    """Its client learns what was granted."""
    listening = listen(wanted)
    listening.acknowledge({TOOLS})
    listening.on_notification(Notification(TOOLS))
    (acknowledged,) = on(listening)
    assert acknowledged["params"]["notifications"] == {}


def test_updates_that_no_client_has_read_are_not_repeated() -> None:
    """One of each resource and list stands for those that follow."""
    listening = listen({"toolsListChanged": True, "resourceSubscriptions": ["a:1", "b:1"]})
    for uri in ("a:1", "b:1"):
        listening.settle(uri, granted=True)
    for _ in range(3):
        listening.on_notification(Notification(TOOLS))
        listening.on_notification(updated("a:1"))
        listening.on_notification(updated("b:1"))
    assert len(on(listening)) == 3


def test_the_end_of_the_process_ends_a_listen_with_its_result() -> None:
    """Once, and nothing comes behind it."""
    listening = listen({"toolsListChanged": True})
    listening.end()
    listening.end()
    listening.on_notification(Notification(TOOLS))
    (result,) = on(listening)
    assert (result["id"], result["result"]["resultType"]) == ("l", "complete")
    assert listening.stream.log.closed


@bounded
async def test_the_next_child_takes_the_place_of_the_one_before() -> None:
    """A listen is attached to one child at a time, and to none after its client has left."""
    listening = listen({"toolsListChanged": True})
    first, second = (lease_on_memory(shared=True)[0] for _ in range(2))
    listening.take(first)
    listening.take(second)
    assert "listeners=0" in repr(first.mux)
    assert "listeners=1" in repr(second.mux)
    listening.leave()
    assert "listeners=0" in repr(second.mux)


def test_for_want_of_memory_a_listen_ends_without_its_result() -> None:
    """What its client has not read is dropped."""
    listening = listen({"toolsListChanged": True})
    listening.on_notification(Notification(TOOLS))
    assert listening.held > 0
    listening.cut()
    assert (listening.stream.log.held, listening.stream.log.closed) == (0, True)
