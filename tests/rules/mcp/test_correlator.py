"""Ids and tokens on one pipe: whatever the interleaving, a reply reaches its own asker."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcpbridge.errors import DuplicateMember, NotJson, NotMessage, WireError
from mcpbridge.rules.mcp.correlator import (
    Answered,
    Asked,
    Correlator,
    Dropped,
    Progressed,
    Tagged,
    Told,
    Withdrawn,
    number_of,
)
from mcpbridge.rules.mcp.methods import SUBSCRIPTION_ID
from mcpbridge.wire.json_object import LONG_BYTES, Payload, member
from mcpbridge.wire.messages import (
    Failure,
    Message,
    Notification,
    Reply,
    Request,
    Result,
    decode,
    encode,
    walked,
)

PROGRESS = "notifications/progress"
CANCELLED = "notifications/cancelled"

CLIENT_IDS = (
    b"0",
    b"-0",
    b"1",
    b'"1"',
    b'""',
    b"2",
    b"9007199254740992",
    b"12345678901234567890",
    b'"\\u0061"',
)
TOKENS = (None, b"0", b"1", b'"1"', b'""', b"1.0", b"2", b'"\\u0061"', b"null", b'{"a":1}')


class Asking(NamedTuple):
    """What a client wrote, to be held against what it gets."""

    owner: str
    client_id: bytes
    token: bytes | None
    nonce: int


class PipeMachine(RuleBasedStateMachine):
    """Clients with colliding ids before a child that answers late, twice, as strings, or lies.

    The child echoes the nonce of the request it answers, so that each delivery shows whose it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.correlator: Correlator[str] = Correlator()
        self.askings: list[Asking] = []
        self.pipe: list[Request] = []
        self.waiting: set[int] = set()
        self.delivered: Counter[int] = Counter()

    @rule(
        owner=st.sampled_from("ABCD"),
        client_id=st.sampled_from(CLIENT_IDS),
        token=st.sampled_from(TOKENS),
        key=st.sampled_from((b'"progressToken"', b'"progress\\u0054oken"')),
        meta=st.sampled_from((b'"_meta"', b'"_m\\u0065ta"')),
    )
    def ask(
        self, owner: str, client_id: bytes, token: bytes | None, key: bytes, meta: bytes
    ) -> None:
        """A client asks; the child sees a new number in the role of id and of token."""
        nonce = len(self.askings)
        params = b'{"nonce":%d}' % nonce
        if token is not None:
            params = b'{"nonce":%d,%b:{"x":1.0,%b: %b },"y":[ ]}' % (nonce, meta, key, token)
        number, sent = self.correlator.outbound(Request(client_id, "m", params), owner)
        assert sent.id == b"%d" % number
        assert sent.id not in {earlier.id for earlier in self.pipe}
        assert sent.params is not None
        expected = sent.id if token is not None else None
        assert member(sent.params, "_meta", "progressToken") == expected
        assert decode(encode(sent)) == sent
        self.askings.append(Asking(owner, client_id, token, nonce))
        self.pipe.append(sent)
        self.waiting.add(nonce)

    @rule(data=st.data(), as_text=st.booleans(), good=st.booleans())
    def answer(self, data: st.DataObject, as_text: bool, good: bool) -> None:
        """The child answers something it was asked, perhaps again, perhaps too late."""
        if not self.pipe:
            return
        nonce = data.draw(st.integers(0, len(self.pipe) - 1))
        raw = b'"%b"' % self.pipe[nonce].id if as_text else self.pipe[nonce].id
        body = b'{"nonce":%d}' % nonce
        reply: Reply = Result(raw, body, b',"x":1') if good else Failure(raw, body, b',"x":1')
        heard = self.correlator.inbound(reply)
        if nonce not in self.waiting:
            assert heard is Dropped.UNKNOWN_ANSWER
            return
        asking = self.askings[nonce]
        kind = Result if good else Failure
        reply = kind(asking.client_id, body, b',"x":1')
        assert heard == Answered(asking.owner, reply, int(self.pipe[nonce].id))
        self.waiting.discard(nonce)
        self.delivered[nonce] += 1

    @rule(data=st.data(), as_text=st.booleans())
    def progress(self, data: st.DataObject, as_text: bool) -> None:
        """The child reports progress under a number it was given, as a token or only as an id."""
        if not self.pipe:
            return
        nonce = data.draw(st.integers(0, len(self.pipe) - 1))
        raw = b'"%b"' % self.pipe[nonce].id if as_text else self.pipe[nonce].id
        params = b'{"progress":0.50,"progressToken" : %b}'
        heard = self.correlator.inbound(Notification(PROGRESS, params % raw, b',"x":1'))
        asking = self.askings[nonce]
        if nonce not in self.waiting or asking.token is None:
            assert heard is Dropped.UNKNOWN_PROGRESS
        else:
            own = Notification(PROGRESS, params % asking.token, b',"x":1')
            assert heard == Progressed(asking.owner, own)

    @rule(
        raw=st.one_of(
            st.none(),
            st.sampled_from(CLIENT_IDS),
            st.integers(-5, 10**18).map(lambda n: b"%d" % n),
            st.sampled_from((b'"x"', b'"-1"', b'"\\ud800"', b'" 1"', b'"+1"', '"١"'.encode())),
        )
    )
    def invent(self, raw: bytes | None) -> None:
        """The child answers and reports under ids that it was never given."""
        if raw is not None and raw.strip(b'"') in {sent.id for sent in self.pipe}:
            return
        assert self.correlator.inbound(Failure(raw, b"{}")) is Dropped.UNKNOWN_ANSWER
        if raw is not None:
            assert self.correlator.inbound(Result(raw, b"{}")) is Dropped.UNKNOWN_ANSWER
            told = Notification(PROGRESS, b'{"progressToken":%b}' % raw)
            assert self.correlator.inbound(told) is Dropped.UNKNOWN_PROGRESS

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """A call is given up; whatever comes for it is late from then on."""
        if not self.pipe:
            return
        nonce = data.draw(st.integers(0, len(self.pipe) - 1))
        self.correlator.forget(int(self.pipe[nonce].id))
        self.waiting.discard(nonce)

    @invariant()
    def nobody_is_answered_twice_and_none_forgotten(self) -> None:
        """Each call waits, was answered once, or was given up; the table holds the waiting ones."""
        assert all(count == 1 for count in self.delivered.values())
        assert len(self.correlator) == len(self.waiting)
        expected = [self.askings[nonce].owner for nonce in sorted(self.waiting)]
        assert self.correlator.owners() == expected
        for nonce, sent in enumerate(self.pipe):
            owner = self.askings[nonce].owner if nonce in self.waiting else None
            assert self.correlator.owner(int(sent.id)) == owner


TestPipe = PipeMachine.TestCase
TestPipe.settings = settings(stateful_step_count=30)
TestPipe.pytestmark = [pytest.mark.slow]  # type: ignore[attr-defined]  # read by pytest


def sent_params(params: bytes | None) -> bytes | None:
    """What becomes of a request's params on the pipe, under number 1."""
    number, sent = Correlator[str]().outbound(Request(b"7", "m", params, b',"x":1'), "A")
    assert (number, sent.id, sent.method, sent.extra) == (1, b"1", "m", b',"x":1')
    return sent.params


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (None, None),
        (b"{}", b"{}"),
        (b'{"_meta":{}}', b'{"_meta":{}}'),
        (b'{"_meta":{"progressToken":"t"}}', b'{"_meta":{"progressToken":1}}'),
        (
            b'{ "a" : 1.0, "_meta" : { "x":[ ], "progressToken" : "t" } , "b":2}',
            b'{ "a" : 1.0, "_meta" : { "x":[ ], "progressToken" : 1 } , "b":2}',
        ),
        (b'{"_meta":{"progress\\u0054oken":5}}', b'{"_meta":{"progress\\u0054oken":1}}'),
        (b'{"\\u005fmeta":{"progressToken":5}}', b'{"\\u005fmeta":{"progressToken":1}}'),
        (b'{"_meta":{"progressToken":null}}', b'{"_meta":{"progressToken":1}}'),
        (b'{"_meta":{"progressToken":{"a":[5]}}}', b'{"_meta":{"progressToken":1}}'),
        # Not in the role of a token: these travel as they came.
        (b'{"progressToken":5}', b'{"progressToken":5}'),
        (b'{"x":{"_meta":{"progressToken":5}}}', b'{"x":{"_meta":{"progressToken":5}}}'),
        (b'{"_meta":{"x":{"progressToken":5}}}', b'{"_meta":{"x":{"progressToken":5}}}'),
        (b'{"_meta":[{"progressToken":5}]}', b'{"_meta":[{"progressToken":5}]}'),
        (b'{"_meta":null}', b'{"_meta":null}'),
        (b'[{"_meta":{"progressToken":5}}]', b'[{"_meta":{"progressToken":5}}]'),
        (b'{"x":"\\"_meta\\":{\\"progressToken\\":5}"}', None),
        (b'{"x":"\\ud800","_meta":{"progressToken":"\\udfff"}}', None),
        (b'{"x":1,"x":2}', b'{"x":1,"x":2}'),
    ],
)
def test_a_token_is_replaced_where_it_stands(params: bytes | None, expected: bytes | None) -> None:
    """The token in `_meta`, however its name is spelled, becomes the number; nothing else does."""
    sent = sent_params(params)
    if params is not None and expected is None:
        expected = params.replace(b'"progressToken":"\\udfff"', b'"progressToken":1')
    assert sent == expected


@pytest.mark.parametrize(
    "params",
    [
        b'{"_meta":{"progressToken":1,"progressToken":5}}',
        b'{"_meta":{"progressToken":5,"progress\\u0054oken":5}}',
        b'{"_meta":{"progress\\u0054oken":5,"progress\\u0054oken":1}}',
        b'{"_meta":{},"_meta":{"progressToken":5}}',
        b'{"_meta":{"progressToken":5},"_meta":{}}',
        b'{"_meta":{},"_m\\u0065ta":{"progressToken":5}}',
        b'{"_m\\u0065ta":{},"_m\\u0065ta":{"progressToken":5}}',
        b'{"_meta":{"x":1,"x":2}}',
        b'{"_META":{"progressToken":5}}',
        b'{"_Meta":{"progressToken":5}}',
        b'{"_meta":{},"_Meta":{"progressToken":5}}',
        b'{"_\\u004deta":{"progressToken":5}}',
        b'{"_meta":{"ProgressToken":5}}',
        b'{"_meta":{"progressToken":5,"progresstoken":5}}',
        b'{"_meta":{"progre\\u017f\\u017fToken":5}}',
        '{"_meta":{"progressTo\u212aen":5}}'.encode(),
    ],
)
def test_no_client_puts_a_token_of_its_choice_on_the_pipe(params: bytes) -> None:
    """Names that stand twice, or that a reader without regard to case confuses, are refused."""
    correlator: Correlator[str] = Correlator()
    with pytest.raises(DuplicateMember):
        correlator.outbound(Request(b"7", "m", params), "A")
    assert len(correlator) == 0
    number, sent = correlator.outbound(Request(b"7", "m"), "A")
    assert sent.id == b"%d" % number


@pytest.mark.parametrize("lenient", [False, True])
def test_no_parser_finds_a_foreign_token(lenient: bool) -> None:
    """Whichever of several members a parser of the child prefers, it finds the number or none."""
    names = (b'"_meta"', b'"_META"', b'"_m\\u0065ta"', b'"other"')
    tokens = (b'"progressToken"', b'"PROGRESSTOKEN"', b'"progress\\u0054oken"', b'"x"')
    for meta, other, token, repeated in itertools.product(names, names, tokens, tokens):
        params = b"{%b:{%b:5,%b:6},%b:{%b:7}}" % (meta, token, repeated, other, token)
        try:
            sent = sent_params(params)
        except DuplicateMember:
            continue
        assert sent is not None
        for pick in (0, -1):
            assert seen_token(sent, pick, lenient) in (None, 1)


def seen_token(params: bytes, pick: int, lenient: bool) -> object:
    """The token as a parser finds it that takes the first or the last of several members."""

    def get(pairs: object, name: str) -> object:
        if not isinstance(pairs, tuple):
            return None
        fold = str.casefold if lenient else str
        found = [value for key, value in pairs if fold(key) == fold(name)]
        return found[pick] if found else None

    return get(get(json.loads(params, object_pairs_hook=tuple), "_meta"), "progressToken")


def test_other_messages_of_the_child_are_told_by_their_kind() -> None:
    """Questions, withdrawals and notifications come out as what they are, unchanged."""
    correlator: Correlator[str] = Correlator()
    correlator.outbound(Request(b"7", "m"), "A")
    request = Request(b"1", "roots/list", b"{}")
    assert correlator.inbound(request) == Asked(request)
    told = Notification("notifications/message", b'{"progressToken":1,"requestId":1}')
    assert correlator.inbound(told) == Told(told)
    cancel = Notification(CANCELLED, b'{"requestId": "q" }')
    assert correlator.inbound(cancel) == Withdrawn(b'"q"', cancel)
    for params in (None, b"{}", b"[]", b'{"reason":"x"}'):
        heard = correlator.inbound(Notification(CANCELLED, params))
        assert heard is Dropped.UNKNOWN_CANCEL
    assert len(correlator) == 1
    assert correlator.owner(None) is None


@pytest.mark.parametrize(
    ("params", "error"),
    [
        (None, NotJson),
        (b"[]", NotMessage),
        (b'{"progressToken":1,"progressToken":1}', DuplicateMember),
        (b'{"progressToken":1,"progress\\u0054oken":2}', DuplicateMember),
    ],
)
def test_progress_that_is_none_concerns_nobody(
    params: bytes | None, error: type[WireError]
) -> None:
    """Progress without params that can be read raises instead of being guessed at."""
    correlator: Correlator[str] = Correlator()
    correlator.outbound(Request(b"7", "m", b'{"_meta":{"progressToken":"t"}}'), "A")
    with pytest.raises(error):
        correlator.inbound(Notification(PROGRESS, params))


def test_progress_without_a_token_is_dropped() -> None:
    """Progress that names no token reaches no client, though a call waits."""
    correlator: Correlator[str] = Correlator()
    correlator.outbound(Request(b"7", "m", b'{"_meta":{"progressToken":"t"}}'), "A")
    assert correlator.inbound(Notification(PROGRESS, b"{}")) is Dropped.UNKNOWN_PROGRESS


@pytest.mark.parametrize("params", [None, b"{}", b'{"_meta":{}}'])
def test_progress_of_a_call_that_asked_for_none_is_dropped(params: bytes | None) -> None:
    """The server may know the number from the call's id; the client gave no token."""
    correlator: Correlator[str] = Correlator()
    number, _ = correlator.outbound(Request(b"7", "m", params), "A")
    told = Notification(PROGRESS, b'{"progressToken":%d}' % number)
    assert correlator.inbound(told) is Dropped.UNKNOWN_PROGRESS


def task(correlator: Correlator[str], owner: str, token: bytes) -> Notification:
    """Begin and answer a call that starts a task; returns progress for it."""
    params = b'{"task":{},"_meta":{"progressToken":%b}}' % token
    number, _ = correlator.outbound(Request(b"7", "m", params), owner)
    answered = correlator.inbound(Result(b'"%d"' % number, b"{}"))
    assert answered == Answered(owner, Result(b"7", b"{}"), number)
    return Notification(PROGRESS, b'{"progressToken":%d}' % number)


def test_a_task_reports_progress_after_its_answer() -> None:
    """Progress of a task reaches its owner when the call is answered already, and never ends it."""
    correlator: Correlator[str] = Correlator()
    told = task(correlator, "A", b'"t"')
    own = Notification(PROGRESS, b'{"progressToken":"t"}')
    for _ in range(2):
        assert correlator.inbound(told) == Progressed("A", own)
    assert len(correlator) == 0
    assert correlator.inbound(Result(b"1", b"{}")) is Dropped.UNKNOWN_ANSWER


def test_a_task_without_a_token_or_given_up_is_forgotten() -> None:
    """Only an answered task with a token is remembered."""
    correlator: Correlator[str] = Correlator()
    silent, _ = correlator.outbound(Request(b"7", "m", b'{"task":{}}'), "A")
    correlator.inbound(Result(b"%d" % silent, b"{}"))
    params = b'{"task":{},"_meta":{"progressToken":1}}'
    given_up, _ = correlator.outbound(Request(b"7", "m", params), "A")
    correlator.forget(given_up)
    for number in (silent, given_up):
        told = Notification(PROGRESS, b'{"progressToken":%d}' % number)
        assert correlator.inbound(told) is Dropped.UNKNOWN_PROGRESS


def test_tasks_are_remembered_up_to_a_number() -> None:
    """Of answered tasks the last 256 are kept, so that a child's memory of them costs little."""
    correlator: Correlator[str] = Correlator()
    told = [task(correlator, "A", b"0") for _ in range(257)]
    assert correlator.inbound(told[0]) is Dropped.UNKNOWN_PROGRESS
    assert all(isinstance(correlator.inbound(later), Progressed) for later in told[1:])


def test_forgetting_twice_is_as_forgetting_once() -> None:
    """A call that is over already, or never was, may be forgotten."""
    correlator: Correlator[str] = Correlator()
    number, _ = correlator.outbound(Request(b"7", "m"), "A")
    correlator.forget(number)
    correlator.forget(number)
    correlator.forget(99)
    assert correlator.owners() == []


def test_what_belongs_to_a_subscription_bears_its_clients_own_id() -> None:
    """Two clients number theirs alike; each gets what bears its own number."""
    table: Correlator[str] = Correlator()
    for owner in ("a", "b"):
        table.outbound(Request(b'"mine"', "subscriptions/listen", b"{}"), owner)
    tag = b'{"_meta":{"io.modelcontextprotocol/subscriptionId":%b}}'
    heard = table.inbound(Notification("x", tag % b"2"))
    assert isinstance(heard, Tagged)
    assert (heard.owner, heard.notification.params) == ("b", tag % b'"mine"')


@pytest.mark.parametrize("raw", [b"1" * 16, b"9" * 5000, b'"%b"' % (b"1" * 16), b"-1", b"1.0"])
def test_no_other_spelling_is_a_number_of_ours(raw: bytes) -> None:
    """Python refuses to read thousands of digits; none of ours has more than fifteen."""
    assert number_of(raw) is None


@pytest.mark.parametrize("known", [False, True])
def test_long_messages_are_mapped_as_short_ones_are(known: bool) -> None:
    """Their tokens and tags are replaced, and only where they have a meaning."""
    correlator: Correlator[str] = Correlator()
    filler = b'"a":"%b"' % (b"x_" + SUBSCRIPTION_ID.encode() + b"x" * LONG_BYTES)
    params = b'{"_meta":{"progressToken":"own"},%b}' % filler
    number, _ = correlator.outbound(Request(b'"c"', "tools/call", params), "caller")
    tag = b'"_meta":{"%b":%d}' % (SUBSCRIPTION_ID.encode(), number)
    messages: list[Message] = [
        Notification(PROGRESS, Payload(b'{"progressToken":%d,%b}' % (number, filler))),
        Notification("x", Payload(b"{%b,%b}" % (tag, filler))),
        Notification("x", Payload(b'{"a":{%b},%b}' % (tag, filler.replace(b"a", b"b", 1)))),
        Result(b"%d" % number, Payload(b"{%b,%b}" % (tag, filler))),
    ]
    if known:
        walked(messages)
    progressed, tagged, told, answered = (correlator.inbound(message) for message in messages)
    own = tag.replace(b":%d}" % number, b':"c"}')
    assert progressed == Progressed(
        "caller", Notification(PROGRESS, b'{"progressToken":"own",%b}' % filler)
    )
    assert tagged == Tagged("caller", Notification("x", b"{%b,%b}" % (own, filler)))
    assert isinstance(told, Told)
    assert told.notification is messages[2]
    assert answered == Answered("caller", Result(b'"c"', b"{%b,%b}" % (own, filler)), number)
