"""A listen on a child of 2026-07-28 that does not know the method, or honours less of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpbridge.wire.messages import Notification, Request
from tests.bridge.fake_server import (
    MODERN,
    SILENT,
    UNKNOWN,
    FakeProcess,
    content_of,
    params_of,
    profile_of,
    told_on,
    until,
)
from tests.bridge.modern.test_passthrough import LISTEN, TAG, TOOLS, Passed, passed
from tests.bridge.playbook import bounded, turns

ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
PROFILE = profile_of(MODERN)
WANTED = {"toolsListChanged": True, "promptsListChanged": True, "resourceSubscriptions": ["a:b"]}
LISTS = {"toolsListChanged": True, "promptsListChanged": True}


def grants(notifications: Any) -> Any:
    """An answer that acknowledges a listen with these notifications."""

    def acknowledge(process: FakeProcess, request: Request) -> None:
        params = {"notifications": notifications, "_meta": {TAG: json.loads(request.id)}, "x": 1}
        process.says(Notification(ACKNOWLEDGED, json.dumps(params).encode()))

    return acknowledge


async def listening(made: Passed, notifications: Any = None) -> Any:
    """The exchange of a listen that is acknowledged."""
    exchange = made.call(LISTEN, notifications=notifications or WANTED)
    await until(lambda: exchange.stream and exchange.stream.log.last)
    return exchange


@bounded
async def test_the_bridge_acknowledges_what_the_child_does_not_know() -> None:
    """With the lists that are wanted, and no resources; each next child is announced."""
    async with passed(keeps_listens=True, subscriptions_listen=UNKNOWN) as made:
        listen = await listening(made)
        (first,) = told_on(listen.stream)
        assert first["method"] == ACKNOWLEDGED
        assert first["params"] == {"notifications": LISTS, "_meta": {TAG: 7}}
        for _ in range(2):
            made.passthrough.announce_lists(PROFILE)
        assert [each["method"] for each in told_on(listen.stream)[1:]] == [TOOLS, TOOLS]
        made.lease.mux.stop_accepting()
        await turns()
        assert (listen.reply, made.passthrough.in_flight) == (None, {listen})


@bounded
async def test_nothing_is_cancelled_at_a_child_that_has_answered() -> None:
    """The client leaves, and its listen ends; of another the result is told at the end."""
    async with passed(keeps_listens=True, subscriptions_listen=UNKNOWN) as made:
        leaves, stays = await listening(made), await listening(made)
        made.passthrough.cancel(leaves)
        made.passthrough.end_listens()
        await turns()
        assert made.process.methods == [LISTEN, LISTEN]
        assert content_of(stays) == {"resultType": "complete", "_meta": {TAG: 7}}
        assert made.passthrough.in_flight == set()


@bounded
@pytest.mark.parametrize("granted", [{}, {"toolsListChanged": False}])
async def test_the_acknowledgement_of_a_child_is_completed(granted: Any) -> None:
    """All else in it stays, and what the child tells is passed on."""
    granted = {**granted, "resourceSubscriptions": ["a:b"]}
    async with passed(keeps_listens=True, subscriptions_listen=grants(granted)) as made:
        listen = await listening(made)
        (first,) = told_on(listen.stream)
        honoured = {**granted, **LISTS}
        assert first["params"] == {"notifications": honoured, "_meta": {TAG: 7}, "x": 1}
        (sent,) = made.listens
        tag = {"_meta": {TAG: json.loads(sent.id)}}
        made.process.says(Notification(TOOLS, json.dumps(tag).encode()))
        await until(lambda: len(told_on(listen.stream)) > 1)
        made.passthrough.cancel(listen)
        await until(lambda: len(made.process.got) == 2)
        assert params_of(made.process.got[-1])["requestId"] == json.loads(sent.id)


@bounded
async def test_an_acknowledgement_that_cannot_be_completed_is_passed_on() -> None:
    """What is wrong with it is for its client to say."""
    async with passed(keeps_listens=True, subscriptions_listen=grants([1])) as made:
        listen = await listening(made)
        (first,) = told_on(listen.stream)
        assert first["params"]["notifications"] == [1]


@bounded
@pytest.mark.parametrize(
    ("error", "keeps"), [({"code": -32603, "message": "broken"}, True), (UNKNOWN, False)]
)
async def test_any_other_error_is_passed_on_and_each_without_reloads(
    error: Any, keeps: bool
) -> None:
    """The bridge would have nothing to tell."""
    async with passed(keeps_listens=keeps, subscriptions_listen=error) as made:
        listen = made.call(LISTEN, notifications=WANTED)
        await until(lambda: listen.reply)
        assert content_of(listen) == error


@bounded
async def test_other_calls_are_not_kept() -> None:
    """A call of a method that the child does not know has its error."""
    async with passed(keeps_listens=True, tools_call=UNKNOWN) as made:
        call = made.call()
        await until(lambda: call.reply)
        assert content_of(call) == UNKNOWN


@bounded
async def test_a_listen_that_waits_for_the_next_child_is_kept_too() -> None:
    """That child does not know the method either."""
    async with passed(keeps_listens=True, subscriptions_listen=SILENT) as made:
        made.lease.mux.stop_accepting()
        made.server.answers[LISTEN] = UNKNOWN
        made.next, _ = await made.start()
        made.may_find.set()
        listen = await listening(made)
        assert told_on(listen.stream)[0]["params"]["notifications"] == LISTS
