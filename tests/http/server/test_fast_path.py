"""The fast path of a call under a known head, and every way off it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.calls.exchange import Exchange
from mcpbridge.bridge.calls.stream import Stream
from mcpbridge.errors import WireError
from mcpbridge.http.body import BodyLimits
from mcpbridge.http.request import STARTED, HttpRequest, RequestHead, StartedCall
from mcpbridge.http.responses import HttpResponse, send_json
from mcpbridge.http.server.connection import HttpConnection
from mcpbridge.http.server.fast_path import FastPath, Heads, KnownHead
from mcpbridge.http.server.giving_way import Standing
from mcpbridge.http.server.limits import ArrivalLimits, ConnectionLimits, Connections
from mcpbridge.rules.access.hosts import HostRules
from mcpbridge.rules.access.shares import Account
from mcpbridge.rules.event_log import Window
from mcpbridge.rules.faults import child_exited
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.wire.messages import Notification, Request, Result, decode, encode
from tests.bridge.playbook import turns
from tests.support.proofs import proves

RULES = HostRules(loopback=True, allowed_origins=("https://page.example",))
LIMITS = BodyLimits(max_bytes=1 << 16, max_depth=512)
PLAIN = ("Host: x", "Accept: application/json", "Content-Type: application/json")


def call(number: int = 1, *lines: str, size: int = 2, method: str = "POST") -> bytes:
    """A request on the wire; `size` is that of an argument."""
    body = encode(Request(b"%d" % number, "tools/call", b'{"a":"%b"}' % (b"x" * size)))
    head = [f"{method} /mcp HTTP/1.1", *PLAIN, f"Content-Length: {len(body)}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


class Socket(asyncio.Transport):
    """The client's end of a connection; remembers what it was sent."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.read = b""
        self.closed = False
        self.ended = asyncio.Event()
        self.written = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """To the client."""
        self.read += bytes(data)
        self.written.set()

    def close(self) -> None:
        """By the server."""
        self.closed = True
        self.ended.set()

    def abort(self) -> None:
        """At once, by the server."""
        self.close()

    def is_closing(self) -> bool:
        """The server has closed it."""
        return self.closed

    def can_write_eof(self) -> bool:
        """It ends as a whole."""
        return False

    def pause_reading(self) -> None:
        """A request on the heels of another waits."""

    def resume_reading(self) -> None:
        """It is its turn."""

    def answers(self) -> list[bytes]:
        """The bodies of the responses so far; all must be JSON with a length."""
        found: list[bytes] = []
        rest = self.read
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
            (length,) = (
                int(line.split()[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            found.append(rest[:length])
            rest = rest[length:]
        return found


class FakeScope:
    """What the calls of the handler belong to: see `Scope`."""

    outside = False
    client_name = "tester"

    def __init__(self) -> None:
        self.account = Account()

    def begin_stream(self, call_id: bytes) -> Stream:
        """See `Scope`."""
        return Stream(Window(), Meters(), answers_due=1)

    def ended(self, exchange: Exchange) -> None:
        """See `Scope`."""

    def on_notification(self, notification: Notification) -> None:
        """See `Scope`."""

    def admits(self, notification: Notification) -> bool:
        """See `Scope`."""
        return True


class FakeHandler:
    """The endpoint: keeps every call open until the test answers it."""

    def __init__(self) -> None:
        self.ordinary: list[bytes] = []
        """Ids that came as requests of HTTP."""
        self.adopted: list[bytes] = []
        """Ids that came so after the fast path."""
        self.fast_path: list[bytes] = []
        """Ids that came by the fast path."""
        self.open: dict[bytes, Exchange] = {}
        self.left: list[bytes] = []
        """Ids whose clients left."""
        self.admits = True
        self.answers_at_once = False
        self.heads: list[RequestHead] = []

    def handle(self, head: RequestHead, body: bytes) -> StartedCall | HttpResponse | None:
        """Start every call but those of the methods that the tests name."""
        self.heads.append(head)
        try:
            message = decode(body)
        except WireError:
            return HttpResponse(400, b'{"refused":1}')
        if not isinstance(message, Request):
            return HttpResponse(202)
        if message.method == "only_http!":
            return None
        self.fast_path.append(message.id)
        if message.method == "headers!!!":
            return HttpResponse(200, encode(Result(message.id, b"{}")), [(b"x-more", b"1")])
        exchange = self.exchange(message)

        async def finish(http_request: HttpRequest) -> None:
            self.adopted.append(message.id)
            assert http_request.head is head
            await self._finish(http_request, exchange)

        if message.method == "stream!!!!":
            return StartedCall(finish)
        return StartedCall(finish, exchange, lambda: self.left.append(message.id))

    def exchange(self, request: Request) -> Exchange:
        """A call of one client."""
        now = asyncio.get_running_loop().time()
        self.open[request.id] = Exchange(request, FakeScope(), now, streams=True, stream=None)
        if self.answers_at_once:
            asyncio.get_running_loop().call_soon(self.answer, int(request.id))
        return self.open[request.id]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ordinary way."""
        http_request = HttpRequest.of(scope, receive, send)
        if http_request.started is not None:
            await http_request.started(http_request)
            return
        if self.admits:
            http_request.remember_head()
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        request_id = body.partition(b'"id":')[2].partition(b",")[0]
        self.ordinary.append(request_id)
        await self._finish(http_request, self.exchange(Request(request_id, "tools/call")))

    async def _finish(self, http_request: HttpRequest, exchange: Exchange) -> None:
        await exchange.finished()
        assert exchange.reply is not None
        await send_json(http_request.send, 200, encode(exchange.reply))

    def answer(self, number: int, result: bytes = b"{}") -> None:
        """The child answers."""
        request_id = b"%d" % number
        if self.open[request_id].reply is None:
            self.open[request_id].answered(Result(request_id, result))


class Connection:
    """One connection to a handler."""

    def __init__(
        self,
        handler: FakeHandler,
        window_s: float,
        keep_alive_s: float,
        body_s: float = 100.0,
        max_memory: int | None = None,
    ) -> None:
        self.handler = handler
        self.requests = 0
        """Number of ASGI requests so far."""
        self.asked = asyncio.Event()
        """Set by each ASGI request."""
        self.socket = Socket()
        self.ending = False
        config = uvicorn.Config(
            cast(Any, self._serve),
            interface="asgi3",
            log_config=None,
            access_log=False,
            ws="none",
            timeout_keep_alive=cast(Any, keep_alive_s),
        )
        config.load()
        fast_path = FastPath(handler, LIMITS, RULES, window_s)
        self.protocol = HttpConnection(
            config=config,
            server_state=ServerState(),
            app_state={},
            limits=ArrivalLimits(body_s=body_s),
            connections=Connections(
                ConnectionLimits(),
                cast(Any, None),
                most=8,
                max_request_bytes=1 << 20,
                rules=RULES,
                budget=Budget(max_memory),
            ),
            ending=lambda: self.ending,
            fast_path=fast_path,
        )
        self.protocol.connection_made(self.socket)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        self.asked.set()
        await self.handler(scope, receive, send)

    async def send(self, *pieces: bytes) -> None:
        """Bytes of the client, each piece its own read."""
        for piece in pieces:
            self.protocol.data_received(piece)
            await turns()

    async def served(self, number: int, data: bytes) -> None:
        """One whole call."""
        await self.send(data)
        self.handler.answer(number)
        await turns()

    async def learn(self) -> None:
        """The two calls after which a head is known; forgets them."""
        await self.served(1, call(1))
        await self.served(2, call(2))
        assert self.handler.ordinary == [b"1", b"2"]
        assert not self.handler.fast_path
        self.socket.read = b""
        self.socket.written.clear()
        self.handler.ordinary.clear()
        self.asked.clear()

    async def heard_of(self) -> None:
        """Wait until the server has sent something."""
        async with asyncio.timeout(10):
            await self.socket.written.wait()


@asynccontextmanager
async def connected(
    *,
    window_s: float = 100.0,
    keep_alive_s: float = 100.0,
    body_s: float = 100.0,
    max_memory: int | None = None,
) -> AsyncIterator[Connection]:
    """A connection to its own handler, closed at the end."""
    connection = Connection(FakeHandler(), window_s, keep_alive_s, body_s, max_memory)
    yield connection
    for exchange in connection.handler.open.values():
        exchange.fail(child_exited(None, "no"))
    connection.protocol.connection_lost(None)
    await turns()


async def test_a_call_under_a_known_head_takes_the_fast_path_to_the_same_answer() -> None:
    """The response is byte for byte what the ordinary path gives."""
    async with connected() as connection:
        await connection.served(1, call(1))
        await connection.served(2, call(2))
        ordinary = connection.socket.read[len(connection.socket.read) // 2 :]
        connection.socket.read = b""
        await connection.served(3, call(3))
        assert connection.handler.fast_path == [b"3"]
        assert connection.socket.read == ordinary.replace(b'"id":2', b'"id":3')


async def test_lengths_of_any_number_of_digits_are_the_same_head() -> None:
    """Only the digits of Content-Length differ."""
    async with connected() as connection:
        await connection.learn()
        sizes = [0, 9, 40, 99, 500, 999, 5000, 40000]
        for number, size in enumerate(sizes, 3):
            await connection.served(number, call(number, size=size))
        assert connection.handler.fast_path == [
            b"%d" % number for number in range(3, 3 + len(sizes))
        ]
        assert len(connection.socket.answers()) == len(sizes)


@pytest.mark.parametrize(
    "lines",
    [["X: y"], ["Origin: http://evil.example"], ["Content-Length: 5"], ["Connection: close"]],
    ids=lambda lines: lines[0],
)
async def test_any_other_head_is_looked_at_again(lines: list[str]) -> None:
    """One more line, and the fast path is not taken."""
    async with connected() as connection:
        await connection.learn()
        await connection.send(call(3, *lines))
        assert not connection.handler.fast_path


async def test_heads_in_turn_are_all_known() -> None:
    """A client that names its tool in a header alternates between heads."""
    async with connected() as connection:
        await connection.learn()
        for number, name in enumerate("abcabc", 3):
            await connection.served(number, call(number, f"Mcp-Name: {name}"))
        assert connection.handler.ordinary == [b"3", b"4", b"5"]
        assert connection.handler.fast_path == [b"6", b"7", b"8"]


@pytest.mark.parametrize(
    "data",
    [
        call(3, "Transfer-Encoding: identity"),
        call(3, "Expect: 100-continue"),
        call(3, "X: " + "y" * 5000),
        call(3).replace(b"HTTP/1.1", b"HTTP/1.0"),
        call(3, method="PUT"),
    ],
    ids=["transfer-encoding", "expect", "long", "1.0", "method"],
)
async def test_a_head_that_is_not_plain_is_not_remembered(data: bytes) -> None:
    """What the parser must see each time is shown to it each time."""
    async with connected() as connection:
        await connection.learn()
        connection.handler.admits = b"PUT" not in data
        await connection.send(data)
        for exchange in connection.handler.open.values():
            exchange.fail(child_exited(None, "no"))
        await turns()
        await connection.send(data)
        assert not connection.handler.fast_path


async def test_a_request_cut_in_two_is_answered_wherever_the_cut_is() -> None:
    """On the fast path if the cut is behind the head, by the parser if it is in the head."""
    async with connected() as connection:
        await connection.learn()
        data = call(3)
        head = data.index(b"\r\n\r\n") + 4
        for cut in range(1, len(data)):
            handler, before = connection.handler, connection.socket.read
            await connection.send(data[:cut])
            assert connection.socket.read == before
            await connection.send(data[cut:])
            taken, passed = (b"3" in way for way in (handler.fast_path, handler.ordinary))
            assert (taken, passed) == (cut >= head, cut < head), cut
            handler.answer(3)
            await turns()
            handler.fast_path.clear()
            handler.ordinary.clear()
        assert connection.socket.answers() == [encode(Result(b"3", b"{}"))] * (len(data) - 1)


@given(data=st.data())
async def test_requests_cut_anywhere_are_answered_in_their_order(data: st.DataObject) -> None:
    """One after the other or at once; each read ends somewhere in a head, a body, or between."""
    calls = [call(number, size=number) for number in range(3, 6)]
    whole = b"".join(calls)
    ends = [0, len(calls[0]), len(calls[0] + calls[1]), len(whole)]
    heads = [end + call(3).index(b"\r\n\r\n") + 4 for end in ends[:-1]]
    places = st.sampled_from([*ends, *heads]) | st.integers(0, len(whole))
    edges = sorted({0, len(whole), *data.draw(st.lists(places, max_size=8))})
    async with connected() as connection:
        await connection.learn()
        connection.handler.answers_at_once = data.draw(st.booleans())
        for start, end in itertools.pairwise(edges):
            await connection.send(whole[start:end])
        for number in range(3, 6):
            connection.handler.answer(number)
            await turns()
        wanted = [encode(Result(b"%d" % number, b"{}")) for number in range(3, 6)]
        assert connection.socket.answers() == wanted
        assert connection.protocol.is_idle
        assert connection.protocol.held == 0


async def test_a_head_whose_body_comes_later_is_remembered() -> None:
    """A client that writes head and body apart does so with every request."""
    async with connected() as connection:
        for number in range(1, 6):
            data = call(number)
            cut = data.index(b"\r\n\r\n") + 4
            await connection.send(data[:cut], data[cut : cut + 9], data[cut + 9 :])
            connection.handler.answer(number)
            await turns()
        assert connection.handler.ordinary == [b"1", b"2"]
        assert connection.handler.fast_path == [b"3", b"4", b"5"]
        assert len(connection.socket.answers()) == 5


@pytest.mark.parametrize("cut", [None, -20, -1])
async def test_a_head_with_more_than_its_body_behind_it_is_not_remembered(cut: int | None) -> None:
    """The newest request is not the one whose head came first, and may be another user's."""
    async with connected() as connection:
        await connection.learn()
        first, second = call(3, "X: y"), call(4, "X: z")
        await connection.send(
            *([first + second] if cut is None else [first[:cut], first[cut:] + second])
        )
        for number in (3, 4):
            connection.handler.answer(number)
            await turns()
        await connection.served(5, call(5, "X: y"))
        assert connection.handler.ordinary == [b"3", b"4", b"5"]


async def test_only_a_head_whose_request_came_alone_is_noted() -> None:
    """Whatever the newest scope is: it may be that of the bytes behind the request."""
    first, behind = call(3, "X: y"), call(4, "X: z")
    async with connected() as connection:
        await connection.served(3, first)
        scope: Any = connection.protocol.scope
    for reads, remembered in (
        ([first], True),
        ([first[:-5], first[-5:]], True),
        ([first[:-5], first[-5:-1]], True),
        ([first + behind], False),
        ([first, behind[:1]], False),
        ([first[:-5], first[-5:] + behind[:1]], False),
    ):
        heads = Heads(FastPath(FakeHandler(), LIMITS, RULES, 100.0))
        heads.see(reads[0])
        for more in reads[1:]:
            heads.follow(len(more))
        heads.learn(scope)
        assert (heads.find(first) is not None) is remembered, reads


@pytest.mark.parametrize("behind", [b"\0 is no HTTP\r\n\r\n", call(4)[:9]])
async def test_what_comes_behind_a_body_that_was_awaited_is_for_the_parser(behind: bytes) -> None:
    """The request gets its answer, and only then does it count that more came."""
    async with connected() as connection:
        await connection.learn()
        await connection.send(call(3)[:-5], call(3)[-5:] + behind)
        assert connection.handler.ordinary == [b"3"]
        connection.handler.answer(3)
        await turns()
        assert len(connection.socket.answers()) == 1
        assert connection.socket.closed is behind.startswith(b"\0")


@pytest.mark.parametrize("size", [LIMITS.max_bytes, LIMITS.max_bytes // 2])
async def test_a_body_that_will_be_over_the_limit_is_not_waited_for(size: int) -> None:
    """Its request is answered with the limit at its head."""
    async with connected() as connection:
        await connection.learn()
        await connection.send(call(3, size=size)[: -(size // 4)])
        assert connection.requests == 3 - (size < LIMITS.max_bytes)


@proves("fault 52")
async def test_a_body_that_does_not_come_ends_with_408_at_its_limit() -> None:
    """The limit runs from the head, whether it was read by the parser at once or not."""
    async with connected(body_s=0.01) as connection:
        await connection.learn()
        await connection.send(call(3)[:-5])
        await connection.heard_of()
        assert connection.socket.read.startswith(b"HTTP/1.1 408 ")
        assert b"--body-timeout 0.01 s" in connection.socket.read


async def test_a_body_that_is_late_comes_to_the_parser_within_the_same_limit() -> None:
    """What the parser begins is checked and counted; its time limit is no longer for that."""
    async with connected(body_s=1000.0) as connection:
        await connection.learn()
        began = asyncio.get_running_loop().time()
        await connection.send(call(3)[:-5])
        assert connection.requests == 2
        async with asyncio.timeout(10):
            await connection.asked.wait()
        protocol: Any = connection.protocol
        assert protocol._timer.when() - began < 1000.0 + (protocol.loop.time() - began) / 2
        await connection.send(call(3)[-5:])
        connection.handler.answer(3)
        await turns()
        assert connection.handler.ordinary == [b"3"]
        assert len(connection.socket.answers()) == 1


async def test_a_connection_whose_request_is_half_there_is_not_idle() -> None:
    """It counts as one that sends a body, and what it sent is counted."""
    async with connected() as connection:
        await connection.learn()
        await connection.send(call(3)[:-5])
        connection.protocol.timeout_keep_alive = 0
        assert not connection.protocol.is_idle
        standings = [connection.protocol.standing]
        assert connection.protocol.held == len(call(3)) - 5
        connection.protocol.timeout_keep_alive_handler()
        assert not connection.socket.closed
        await connection.send(call(3)[-5:])
        assert connection.protocol.held == 0
        assert [*standings, connection.protocol.standing] == [Standing.BODY, Standing.BUSY]
        connection.handler.answer(3)
        await turns()
        assert connection.handler.fast_path == [b"3"]
        assert len(connection.socket.answers()) == 1


async def test_a_request_that_is_half_there_when_the_server_ends_is_answered() -> None:
    """As one that the parser has begun: with the last answer of its connection."""
    async with connected() as connection:
        await connection.learn()
        await connection.send(call(3)[:-5])
        connection.protocol.shutdown()
        assert not connection.socket.closed
        await connection.send(call(3)[-5:])
        connection.handler.answer(3)
        await turns()
        assert b"connection: close\r\n" in connection.socket.read
        assert len(connection.socket.answers()) == 1
        assert connection.socket.closed


@pytest.mark.parametrize("full", [True, False])
async def test_a_request_that_is_half_there_is_refused_if_memory_is_short(full: bool) -> None:
    """Because of others' bytes or its own; it is the application's to count."""
    async with connected(max_memory=30_000 if full else None) as connection:
        await connection.learn()
        await connection.send(call(3, size=40_000)[:-5])
        if not full:
            connection.protocol.cut()
            await turns()
        assert connection.socket.read.startswith(b"HTTP/1.1 503 ")
        assert connection.socket.read.count(b"HTTP/1.1 ") == 1
        assert connection.protocol.held == 0
        assert connection.requests == 3


async def test_a_client_that_leaves_before_its_body_leaves_nothing_behind() -> None:
    """Neither bytes that count nor a timer."""
    connection = Connection(FakeHandler(), 100.0, 100.0)
    await connection.learn()
    await connection.send(call(3)[:-5])
    connection.protocol.connection_lost(None)
    protocol: Any = connection.protocol
    assert (protocol.held, protocol._timer) == (0, None)
    assert not connection.handler.fast_path


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        (b"{", b"400 Bad Request", b'{"refused":1}'),
        (b"", b"400 Bad Request", b'{"refused":1}'),
        (b'{"jsonrpc":"2.0","method":"notifications/x"}', b"202 Accepted", b""),
    ],
)
async def test_what_is_answered_at_once_takes_the_fast_path(
    body: bytes, status: bytes, answer: bytes
) -> None:
    """Refusals and notifications: the same bytes as an ASGI server would send."""
    async with connected() as connection:
        await connection.learn()
        head = call(3).partition(b"\r\n\r\n")[0]
        length = head.rpartition(b" ")[2]
        await connection.send(head.removesuffix(length) + b"%d" % len(body) + b"\r\n\r\n" + body)
        assert not connection.handler.ordinary
        kind = b"content-type: application/json\r\n" if answer else b""
        lines = b"%bcontent-length: %d\r\n\r\n%b" % (kind, len(answer), answer)
        assert connection.socket.read == b"HTTP/1.1 %b\r\n%b" % (status, lines)
        await connection.served(4, call(4))
        assert connection.handler.fast_path == [b"4"]


@pytest.mark.parametrize("method", [b"headers!!!", b"stream!!!!"])
async def test_an_answer_that_is_more_than_a_body_is_sent_by_asgi(method: bytes) -> None:
    """With its own headers, or of an unknown form: handled once, and the next call is fast."""
    async with connected() as connection:
        await connection.learn()
        await connection.send(call(3).replace(b"tools/call", method))
        if method == b"stream!!!!":
            connection.handler.answer(3)
            await turns()
        assert not connection.handler.ordinary
        assert connection.socket.answers() == [encode(Result(b"3", b"{}"))]
        assert (b"x-more: 1\r\n" in connection.socket.read) is (method == b"headers!!!")
        await connection.served(4, call(4))
        assert connection.handler.fast_path == [b"3", b"4"]


async def test_a_client_of_event_streams_alone_is_handled_at_once_and_answered_by_asgi() -> None:
    """Nothing is parsed under a known head; the response is one of ASGI, so it may be a stream."""
    async with connected() as connection:
        for number in range(1, 6):
            data = call(number).replace(PLAIN[1].encode(), b"Accept: text/event-stream")
            await connection.served(number, data)
        assert connection.handler.ordinary == [b"1", b"2"]
        assert connection.handler.fast_path == connection.handler.adopted == [b"3", b"4", b"5"]
        assert len(connection.socket.answers()) == 5


async def test_a_request_that_is_served_is_not_idle() -> None:
    """The timer of an idle connection looks, and leaves a request alone that takes longer."""
    async with connected(keep_alive_s=0) as connection:
        await connection.send(call(1))
        connection.protocol.timeout_keep_alive_handler()
        await turns()
        closed = connection.socket.closed
        assert not closed
        connection.handler.answer(1)
        await turns()
        assert connection.socket.closed
        assert len(connection.socket.answers()) == 1


async def test_a_page_that_may_read_answers_is_served_by_asgi() -> None:
    """Its answers have their own headers."""
    async with connected() as connection:
        for number in range(1, 4):
            await connection.served(number, call(number, "Origin: https://page.example"))
        for number in range(4, 7):
            await connection.served(number, call(number, "Origin: http://localhost"))
        assert connection.handler.ordinary == [b"1", b"2", b"3", b"4"]
        assert connection.handler.fast_path == [b"5", b"6"]


async def test_a_body_over_the_limit_goes_the_ordinary_way() -> None:
    """Where it is refused."""
    async with connected() as connection:
        await connection.learn()
        await connection.send(call(3, size=LIMITS.max_bytes))
        assert not connection.handler.fast_path


async def test_a_call_that_only_http_may_serve_is_left_untouched() -> None:
    """The endpoint has the last word."""
    async with connected() as connection:
        await connection.learn()
        await connection.send(call(3).replace(b"tools/call", b"only_http!"))
        assert not connection.handler.fast_path
        assert connection.handler.ordinary == [b"3"]


@pytest.mark.parametrize("lines", [(), ("X: y",)], ids=["known head", "new head"])
@pytest.mark.parametrize("in_flight", [True, False])
async def test_once_the_process_ends_each_response_says_close(
    in_flight: bool, lines: tuple[str, ...]
) -> None:
    """The call that is in flight then, and the one that comes after; the connection closes."""
    async with connected() as connection:
        await connection.learn()
        if in_flight:
            await connection.send(call(3, *lines))
        connection.ending = True
        connection.protocol.end_keep_alive()
        assert not connection.socket.closed
        if not in_flight:
            await connection.send(call(3, *lines))
        connection.handler.answer(3)
        await turns()
        assert connection.socket.read.lower().count(b"connection: close\r\n") == 1
        assert len(connection.socket.answers()) == 1
        assert connection.socket.closed


Way = Callable[[Connection], Any]


def _says_something(connection: Connection) -> None:
    connection.handler.open[b"3"].tell(b"{}", sheddable=True)


def _is_cancelled_by_the_end(connection: Connection) -> None:
    connection.ending = True
    connection.handler.answer(3)


def _is_shut_down(connection: Connection) -> None:
    connection.protocol.shutdown()


def _fails(connection: Connection) -> None:
    connection.handler.open[b"3"].fail(child_exited(None, "maybe"))


@pytest.mark.parametrize(
    "leaves", [_says_something, _is_cancelled_by_the_end, _is_shut_down, _fails]
)
async def test_a_call_that_needs_more_than_one_answer_goes_on_as_a_request(leaves: Way) -> None:
    """It is the same call, begun once, and answered once."""
    async with connected() as connection:
        await connection.learn()
        await connection.send(call(3))
        assert connection.handler.fast_path == [b"3"]
        leaves(connection)
        await turns()
        assert connection.handler.adopted == [b"3"]
        connection.handler.answer(3)
        await turns()
        assert connection.handler.fast_path == [b"3"]
        assert not connection.handler.ordinary
        assert len(connection.socket.answers()) == 1


async def test_a_call_that_takes_longer_than_the_window_goes_on_as_a_request() -> None:
    """From then on its answer may be a stream."""
    async with connected(window_s=0.02) as connection:
        await connection.learn()
        await connection.send(call(3))
        async with asyncio.timeout(10):
            while not connection.handler.adopted:  # noqa: ASYNC110 - the protocol has no event
                await asyncio.sleep(0.005)  # looks again
        connection.handler.answer(3)
        await turns()
        assert len(connection.socket.answers()) == 1


async def test_without_a_window_nothing_takes_the_fast_path() -> None:
    """Then every answer is a stream."""
    async with connected(window_s=0) as connection:
        await connection.learn()
        await connection.served(3, call(3))
        assert not connection.handler.fast_path


@proves("fault 86")
async def test_a_request_on_the_heels_of_another_is_answered_after_it() -> None:
    """In order, whatever comes first."""
    async with connected() as connection:
        await connection.learn()
        await connection.send(call(3), call(4))
        assert connection.handler.adopted == [b"3"]
        connection.handler.answer(3)
        await turns()
        connection.handler.answer(4)
        await turns()
        assert [b'"id":3' in body for body in connection.socket.answers()] == [True, False]
        await connection.served(5, call(5))
        assert connection.handler.fast_path == [b"3", b"5"]


async def test_a_client_that_leaves_is_told_of_and_gets_nothing() -> None:
    """The face decides what becomes of the call."""
    connection = Connection(FakeHandler(), 100.0, 100.0)
    await connection.learn()
    await connection.send(call(3))
    connection.socket.closed = True
    connection.protocol.connection_lost(None)
    connection.handler.answer(3)
    await turns()
    assert connection.handler.left == [b"3"]
    assert connection.socket.read == b""


async def test_a_connection_that_is_used_is_not_closed_as_idle() -> None:
    """Calls on the fast path count; the time runs from the last answer."""
    async with connected(keep_alive_s=0.05) as connection:
        await connection.learn()
        await connection.send(call(3))
        connection.protocol.timeout_keep_alive_handler()
        assert not connection.socket.closed
        connection.handler.answer(3)
        connection.protocol.timeout_keep_alive_handler()
        assert not connection.socket.closed
        async with asyncio.timeout(10):
            while not connection.socket.closed:  # noqa: ASYNC110 - the protocol has no event
                await asyncio.sleep(0.005)  # looks again


@given(
    before=st.binary(max_size=8),
    after=st.binary(max_size=8).map(b"\r".__add__),
    body=st.binary(max_size=300),
    data=st.binary(max_size=40),
    digits=st.integers(0, 400),
)
def test_only_the_same_head_with_no_more_than_its_body_is_known(
    before: bytes, after: bytes, body: bytes, data: bytes, digits: int
) -> None:
    """Whatever else is read is not taken for it."""
    known = KnownHead(before, after, cast(RequestHead, None), {})
    head = before + b"%d" % len(body) + after
    for size in range(len(body) + 1):
        assert known.body_of(head + body[:size]) == (body[:size], len(body) - size)
    assert known.body_of(head + body + b"x") is None
    assert known.body_of(head[:-1]) is None
    assert known.body_of(before + after + body) is None
    if digits < len(body):
        assert known.body_of(before + b"%d" % digits + after + body) is None
    if not data.startswith(before):
        assert known.body_of(data) is None


async def test_a_request_that_leaves_the_fast_path_is_the_request_that_came() -> None:
    """What serves it sees the same scope as if the parser had read it."""
    async with connected() as connection:
        scopes: list[Scope] = []
        app = connection.protocol.app

        async def seen(scope: Scope, receive: Receive, send: Send) -> None:
            scopes.append(scope)
            await app(scope, receive, send)

        connection.protocol.app = cast(Any, seen)
        data = call(3, "X: y").replace(b"/mcp", b"/mc%70?a=b")
        await connection.served(1, call(1))
        await connection.served(3, data)
        await connection.send(data)
        assert connection.handler.fast_path == [b"3"]
        connection.handler.open[b"3"].tell(b"{}", sheddable=True)
        await turns()
        _, parsed, made = scopes
        assert {name: value for name, value in made.items() if name != STARTED} == parsed
        assert parsed["path"] == "/mcp"


async def test_a_connection_that_breaks_leaves_no_timer_behind() -> None:
    """A timer would keep all that belonged to it, for as long as idle connections are kept."""
    connection = Connection(FakeHandler(), 100.0, 100.0)
    await connection.learn()
    await connection.served(3, call(3))
    assert connection.protocol.timeout_keep_alive_task is not None
    connection.protocol.connection_lost(ConnectionResetError())
    assert connection.protocol.timeout_keep_alive_task is None


async def test_a_refusal_does_not_take_the_place_of_an_answer_that_is_due() -> None:
    """The request before it gets its own answer, then the connection ends."""
    async with connected() as connection:
        await connection.learn()
        await connection.send(call(3, "X: y"), b"\0 is no HTTP\r\n\r\n")
        before = len(connection.socket.read)
        assert b"HTTP/1.1 400 " not in connection.socket.read
        connection.handler.answer(3)
        await turns()
        assert connection.socket.read[before:].startswith(b"HTTP/1.1 200 ")
        assert connection.socket.read.count(b"HTTP/1.1 ", before) == 1
        assert connection.protocol.transport.is_closing()
