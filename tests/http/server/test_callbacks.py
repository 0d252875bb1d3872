"""An exception in any callback of the event loop ends its connection, is logged, frees its slot."""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from mcpbridge.http.server import connection as connection_module
from mcpbridge.http.server.connection import HttpConnection
from mcpbridge.http.server.fast_path import FastPath
from mcpbridge.http.server.limits import (
    ArrivalLimits,
    ConnectionLimits,
    Connections,
    SendWatch,
)
from mcpbridge.rules.access.hosts import HostRules
from tests.http.server.test_fast_path import Connection, call, connected

WITHIN_S = 20.0
GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _protocol(state: ServerState) -> HttpConnection:
    config = uvicorn.Config(cast(Any, _app), interface="asgi3", log_config=None, ws="none")
    config.load()
    connections = Connections(
        ConnectionLimits(),
        cast(Any, None),
        most=8,
        max_request_bytes=1 << 20,
        rules=HostRules(loopback=True),
    )
    return HttpConnection(
        config=config,
        server_state=state,
        app_state={},
        limits=ArrivalLimits(header_s=0.01),
        connections=connections,
    )


class Peer:
    """The client's end of a real connection, and the protocol behind the other end."""

    def __init__(self, client: socket.socket, protocol: HttpConnection, state: ServerState) -> None:
        self.client = client
        self.protocol = protocol
        self.state = state

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await asyncio.get_running_loop().sock_sendall(self.client, data)

    async def closed(self) -> None:
        """Read until the other end closes the connection."""
        async with asyncio.timeout(WITHIN_S):
            try:
                while await asyncio.get_running_loop().sock_recv(self.client, 1 << 16):
                    pass
            except ConnectionResetError:
                pass
        for _ in range(5):
            await asyncio.sleep(0)  # one turn of the loop
        assert not self.state.connections


@asynccontextmanager
async def _connected() -> AsyncIterator[Peer]:
    ours, client = socket.socketpair()
    client.setblocking(False)
    state = ServerState()
    protocol = _protocol(state)
    await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, ours)
    with client:
        yield Peer(client, protocol, state)


async def _nothing(peer: Peer) -> None:
    """The callback comes by itself."""


async def _request(peer: Peer) -> None:
    await peer.send(GET)


async def _end_of_sending(peer: Peer) -> None:
    peer.client.shutdown(socket.SHUT_WR)


async def _leaving(peer: Peer) -> None:
    await peer.send(GET)
    peer.client.shutdown(socket.SHUT_RDWR)


async def _slow_reading(peer: Peer) -> None:
    peer.protocol.pause_writing()


async def _reading_again(peer: Peer) -> None:
    peer.protocol.resume_writing()


async def _keep_alive_over(peer: Peer) -> None:
    peer.protocol.timeout_keep_alive_handler()


CALLBACKS: list[tuple[str, type, str, Callable[[Peer], Any]]] = [
    ("connection_made", HttpToolsProtocol, "connection_made", _nothing),
    ("connection_made", HttpConnection, "_set_timer", _nothing),
    ("data_received", HttpConnection, "_parse", _request),
    ("data_received", HttpToolsProtocol, "on_message_begin", _request),
    ("data_received", HttpToolsProtocol, "on_headers_complete", _request),
    ("data_received", HttpToolsProtocol, "on_message_complete", _request),
    ("eof_received", HttpToolsProtocol, "eof_received", _end_of_sending),
    ("connection_lost", HttpConnection, "_let_go", _leaving),
    ("connection_lost", HttpToolsProtocol, "connection_lost", _leaving),
    ("pause_writing", SendWatch, "begin", _slow_reading),
    ("resume_writing", HttpToolsProtocol, "resume_writing", _reading_again),
    (
        "timeout_keep_alive_handler",
        HttpToolsProtocol,
        "timeout_keep_alive_handler",
        _keep_alive_over,
    ),
    ("cut", HttpConnection, "_say", _request),
]


@pytest.mark.parametrize(("callback", "owner", "name", "cause"), CALLBACKS)
async def test_a_failure_ends_the_connection_and_frees_its_slot(
    callback: str,
    owner: type,
    name: str,
    cause: Callable[[Peer], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each callback is made to fail by what it calls; the log names it, with the traceback."""

    def fails(*_: object) -> None:
        raise RuntimeError("injected")

    monkeypatch.setattr(owner, name, fails)
    with caplog.at_level(logging.ERROR, "mcpbridge.http"):
        async with _connected() as peer:
            await cause(peer)
            if callback == "cut":
                await peer.send(b"GET / HT")
            await peer.closed()
    (record,) = [r for r in caplog.records if r.message == "http.callback_failed"]
    assert vars(record)["callback"] == callback
    assert "RuntimeError: injected" in caplog.text


async def _half_a_request(connection: Connection) -> None:
    await connection.send(call(3)[:-1])


async def _long_call(connection: Connection) -> None:
    await connection.send(call(3))


async def _answer(connection: Connection) -> None:
    await connection.send(call(3))
    connection.handler.answer(3)


OF_THE_FAST_PATH: list[tuple[str, type, str, dict[str, Any], Callable[[Connection], Any]]] = [
    ("unhold", HttpConnection, "_read", {"body_s": 0.01}, _half_a_request),
    ("window_over", HttpConnection, "_leave_fast_path", {"window_s": 0.01}, _long_call),
    ("heard", FastPath, "answer_of", {}, _answer),
]


@pytest.mark.parametrize(("callback", "owner", "name", "limits", "cause"), OF_THE_FAST_PATH)
async def test_a_failure_on_the_fast_path_ends_the_connection(
    callback: str,
    owner: type,
    name: str,
    limits: dict[str, Any],
    cause: Callable[[Connection], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A call under a known head has further callbacks."""

    def fails(*_: object) -> None:
        raise RuntimeError("injected")

    async with connected(**limits) as connection:
        await connection.learn()
        with monkeypatch.context() as broken, caplog.at_level(logging.ERROR, "mcpbridge.http"):
            broken.setattr(owner, name, fails)
            await cause(connection)
            async with asyncio.timeout(WITHIN_S):
                await connection.socket.ended.wait()
        assert connection.protocol not in connection.protocol.connections
    (record,) = [r for r in caplog.records if r.message == "http.callback_failed"]
    assert vars(record)["callback"] == callback


def test_each_callback_of_a_connection_is_made_to_fail() -> None:
    """Those that are guarded, among them each that the module gives to the loop or to a call."""
    guarded = {name for name, each in vars(HttpConnection).items() if hasattr(each, "__wrapped__")}
    failed = {callback for callback, *_ in (*CALLBACKS, *OF_THE_FAST_PATH)}
    assert {name.strip("_") for name in guarded} == failed
    given = {
        word.attr
        for node in ast.walk(ast.parse(inspect.getsource(connection_module)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in ("call_soon", "call_later", "call_at", "listen")
        for word in node.args
        if isinstance(word, ast.Attribute)
        and isinstance(word.value, ast.Name)
        and word.value.id == "self"
        and callable(getattr(HttpConnection, word.attr, None))
    }
    assert given <= guarded
    assert len(given) > 3
