"""What a client asks for counts at once, and what was granted stays."""

from __future__ import annotations

from mcpbridge.bridge.legacy.client_state import ClientState
from mcpbridge.rules.mcp.initialize import ClientProfile
from mcpbridge.wire.messages import Notification, Request

PROFILE = ClientProfile(b"{}", "2025-11-25", frozenset())
SIMPLE = ClientProfile(b"{}", "2024-11-05", frozenset())
INFO = Notification("notifications/message", b'{"level":"info"}')


def subscribe(number: int, uri: str = "a:1") -> Request:
    """A request for one resource."""
    return Request(b"%d" % number, "resources/subscribe", b'{"uri":"%b"}' % uri.encode())


def test_a_subscription_is_wanted_from_the_request_to_its_refusal() -> None:
    """Another session's unsubscribe must not take it away in between."""
    client = ClientState(PROFILE, 0.0)
    first, second = subscribe(1), subscribe(2)
    for request in (first, second):
        client.intend(request)
    client.settle(first, granted=False)
    assert (client.wanted, set(client.subscriptions)) == ({"a:1"}, set())
    client.settle(second, granted=False)
    assert client.wanted == set()


def test_a_refused_request_that_was_never_sent_takes_no_other_back() -> None:
    """One over a limit is settled without having been intended."""
    client = ClientState(PROFILE, 0.0)
    client.intend(subscribe(1))
    client.settle(subscribe(2), granted=False)
    assert client.wanted == {"a:1"}


def test_an_unsubscribe_counts_before_its_answer() -> None:
    """What comes of the resource from then on concerns others."""
    client = ClientState(PROFILE, 0.0)
    client.settle(subscribe(1), granted=True)
    assert client.subscribes("a:1")
    client.intend(Request(b"2", "resources/unsubscribe", b'{"uri":"a:1"}'))
    assert not client.subscribes("a:1")


def test_a_level_that_is_refused_is_the_servers_own_choice_again() -> None:
    """Until then it counts, since a log message may come before the answer."""
    client = ClientState(PROFILE, 0.0)
    request = Request(b"1", "logging/setLevel", b'{"level":"error"}')
    client.intend(request)
    assert (client.level, client.admits(INFO)) == ("error", False)
    client.settle(request, granted=False)
    assert (client.level, client.admits(INFO)) == (None, True)


def test_a_client_that_reads_no_streams_gets_logs_it_asked_for() -> None:
    """2024-11-05 by POST: one answer is all it expects, unless it set a level."""
    client = ClientState(SIMPLE, 0.0)
    assert not client.admits(INFO)
    client.set_level("debug")
    assert client.admits(INFO)
    assert ClientState(SIMPLE, 0.0, one_streamed=True).admits(INFO)


def test_subscriptions_of_one_client_are_bounded() -> None:
    """Those without an answer count; one that is there already may be asked for again."""
    client = ClientState(PROFILE, 0.0)
    client.settle(subscribe(1, "a:1"), granted=True)
    client.intend(subscribe(2, "a:2"))
    assert client.subscription_problem(subscribe(3, "a:1"), 2) is None
    assert client.subscription_problem(subscribe(3, "a:3"), 3) is None
    assert client.subscription_problem(subscribe(3, "a:3"), 2) == (
        "limit reached: --max-subscriptions 2 of one session"
    )
    problem = client.subscription_problem(subscribe(3, "b" * 9000), 3)
    assert problem == "the URI of a resource has 9000 bytes (at most 8192)"
