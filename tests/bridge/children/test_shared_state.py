"""One log level and one set of subscriptions of a child that many clients share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from typing import Any

import pytest

from mcpbridge.bridge.children.lease import Lease
from mcpbridge.bridge.children.shared_state import (
    catch_up,
    restore,
    shared_verb,
    unsubscribe,
    updated_uri,
)
from mcpbridge.channels.memory import MemoryChannel
from mcpbridge.rules.mcp.initialize import read_profile
from mcpbridge.rules.uri_set import MAX_URI_BYTES, UriSet
from mcpbridge.wire.messages import Failure, Notification, Request, Result
from tests.bridge.legacy.parts import lease_on_memory
from tests.bridge.playbook import bounded


class Client:
    """A client that shares the child."""

    def __init__(self, *uris: str, level: str | None = None, asked: Collection[str] = ()) -> None:
        self.level = level
        self.subscriptions = UriSet(uris)
        self.lease: Lease | None = None
        self.got: list[str] = []
        self.asked = set(asked)

    def take(self, lease: Lease) -> None:
        """Use this child."""
        self.lease = lease

    def on_notification(self, notification: Notification) -> None:
        """Hear it."""
        self.got.append(notification.method)

    def wants(self, uri: str) -> bool:
        """Granted or asked for."""
        return uri in self.subscriptions or uri in self.asked


class Server:
    """The child, which answers everything and remembers what it was asked."""

    def __init__(self, *refuses: str) -> None:
        self.lease, self._far = lease_on_memory(shared=True)
        self.asked: list[str] = []
        self._refuses = refuses
        self._tasks = [
            asyncio.create_task(self.lease.mux.run()),
            asyncio.create_task(self._serve(self._far)),
        ]

    async def _serve(self, far: MemoryChannel) -> None:
        while received := await far.receive():
            for item in received:
                assert isinstance(item, Request)
                params = json.loads(item.params or b"{}")
                self.asked.append(
                    f"{item.method.split('/')[1]} {params.get('uri', params.get('level'))}"
                )
                refused = item.method in self._refuses
                error = Failure(item.id, b'{"code":1,"message":"no"}')
                far.send(error if refused else Result(item.id, b"{}"))

    async def end(self) -> None:
        """The process ends."""
        self._far.close()
        await asyncio.gather(*self._tasks)


def level(name: str) -> Request:
    """A client asks for a log level."""
    return Request(b"7", "logging/setLevel", b'{"x":1,"level":"%b"}' % name.encode())


def params_of(verb: Request | Result) -> Any:
    """What the child is asked."""
    assert isinstance(verb, Request)
    return json.loads(verb.params or b"{}")


@pytest.mark.parametrize(
    ("wanted", "others", "sent"),
    [
        ("error", [], "error"),
        ("error", ["debug"], "debug"),
        ("debug", ["error"], "debug"),
        ("error", [None], "info"),
        ("error", ["critical", "warning"], "warning"),
    ],
)
def test_the_child_logs_what_any_client_wants(
    wanted: str, others: list[str | None], sent: str
) -> None:
    """One that set no level has the server's default; other members are kept."""
    clients = [Client(level=each) for each in others]
    assert params_of(shared_verb(level(wanted), clients)) == {"x": 1, "level": sent}


@pytest.mark.parametrize("params", [b"[]", b'{"level":7}', b"{}", None])
def test_a_level_that_is_none_is_for_the_server_to_refuse(params: bytes | None) -> None:
    """It is passed on as it came."""
    request = Request(b"7", "logging/setLevel", params)
    assert shared_verb(request, [Client(level="debug")]) == request


def test_only_the_first_subscriber_and_the_last_one_reach_the_child() -> None:
    """The others are answered here."""
    subscribe = Request(b"7", "resources/subscribe", b'{"uri":"a:1"}')
    unsubscribing = Request(b"8", "resources/unsubscribe", b'{"uri":"a:1"}')
    assert shared_verb(subscribe, [Client("b:1")]) is subscribe
    assert shared_verb(subscribe, [Client("a:1")]) == Result(b"7", b"{}")
    assert shared_verb(unsubscribing, [Client("b:1")]) is unsubscribing
    assert shared_verb(unsubscribing, [Client("a:1")]) == Result(b"8", b"{}")


def test_what_another_client_asks_for_at_this_moment_is_neither_granted_nor_taken_back() -> None:
    """The child may still refuse it, and may still grant it."""
    asking = Client(asked=["a:1"])
    subscribe = Request(b"7", "resources/subscribe", b'{"uri":"a:1"}')
    unsubscribing = Request(b"8", "resources/unsubscribe", b'{"uri":"a:1"}')
    assert shared_verb(subscribe, [asking]) is subscribe
    assert shared_verb(unsubscribing, [asking]) == Result(b"8", b"{}")


@bounded
async def test_a_new_child_gets_the_level_and_every_subscription_once() -> None:
    """Then each client is told that the lists may differ."""
    server = Server()
    clients = [Client("a:1", "b:1", level="error"), Client("b:1", level="debug")]
    profile = read_profile(
        b'{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true}}}'
    )
    assert profile is not None
    await restore(server.lease, profile, clients)
    assert server.asked == ["setLevel debug", "subscribe a:1", "subscribe b:1"]
    assert [client.got for client in clients] == [["notifications/tools/list_changed"]] * 2
    await server.end()


@bounded
async def test_only_what_has_changed_since_is_told() -> None:
    """While one child took over from another, calls of the old one may have changed it."""
    server = Server()
    client = Client("a:1", "b:1", level="error")
    await catch_up(server.lease, [client])
    server.asked.clear()
    client.subscriptions.discard("a:1")
    client.subscriptions.add("c:1")
    await catch_up(server.lease, [client])
    await catch_up(server.lease, [client])
    assert server.asked == ["subscribe c:1", "unsubscribe a:1"]
    await server.end()


@bounded
async def test_two_that_catch_up_at_once_do_not_tell_the_child_twice() -> None:
    """What is under way counts as told."""
    server = Server()
    client = Client("a:1", level="error")
    await asyncio.gather(catch_up(server.lease, [client]), catch_up(server.lease, [client]))
    assert sorted(server.asked) == ["setLevel error", "subscribe a:1"]
    await server.end()


@bounded
async def test_a_refusal_does_not_keep_a_child_from_serving(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged, and the rest is told; so is a child that ends."""
    server = Server("resources/subscribe")
    await catch_up(server.lease, [Client("a:1", "b:1")])
    assert server.asked == ["subscribe a:1", "subscribe b:1"]
    await server.end()
    await catch_up(server.lease, [Client("a:1", "b:1", "c:1")])
    assert [record.message for record in caplog.records] == ["child.restore_failed"] * 3


@bounded
async def test_what_another_client_has_asked_for_in_between_stays_subscribed() -> None:
    """The look at the others is taken before each request, not once."""
    server = Server()
    others: list[Client] = []

    def now() -> list[Client]:
        if server.asked:
            others.append(Client(asked=["b:1"]))
        return others

    await unsubscribe(server.lease.mux, ["a:1", "b:1", "c:1"], now)
    assert server.asked == ["unsubscribe a:1", "unsubscribe c:1"]
    await server.end()


@pytest.mark.parametrize("written", ["a", "\\u0061", "é", "\\ud83d\\ude00", "😀", "\\n", '\\"'])
@pytest.mark.parametrize("shift", range(12))
def test_the_beginning_of_a_long_name_is_enough(written: str, shift: int) -> None:
    """It is cut off between two characters, behind the longest name to subscribe to."""
    name = f"a:{'b' * shift}/{written * (14 * MAX_URI_BYTES // len(written))}"
    whole: str = json.loads(f'"{name}"')
    found = updated_uri(b'{"x":1,"uri":"%b"}' % name.encode())
    assert found is not None
    assert whole.startswith(found)
    assert len(found.encode()) > MAX_URI_BYTES
    assert UriSet([f"a:{'b' * shift}"]).concerned(found)


@pytest.mark.parametrize(
    ("params", "uri"),
    [
        (None, None),
        (b"[]", None),
        (b"{}", None),
        (b'{"uri":1}', None),
        (b'{"uri":"a","uri":"b"}', None),
        (b'{"uri":"a\\u0062"}', "ab"),
        (b'{"uri":[%b1]}' % (b"1," * (3 * MAX_URI_BYTES)), None),
    ],
)
def test_an_update_names_one_resource(params: bytes | None, uri: str | None) -> None:
    """Or none, if it does not name one beyond doubt."""
    assert updated_uri(params) == uri
