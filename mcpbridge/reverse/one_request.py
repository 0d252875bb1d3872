"""`mcpbridge list` and `mcpbridge call`: one request to a server, for people and scripts.

The server is a URL, or a command that is started for the request. This client has no capabilities:
it answers `ping`, and refuses what else the server asks.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import anyio
import msgspec

from mcpbridge import __version__
from mcpbridge.channels.channel import InvalidLine
from mcpbridge.channels.pipes import PipeLimits, pipe_channel
from mcpbridge.errors import BridgeError, ChannelClosed, SpawnError
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.reaper import kept
from mcpbridge.process.spec import ChildSpec
from mcpbridge.process.subprocess_child import SubprocessChild
from mcpbridge.reverse.remote_client import RemoteClient
from mcpbridge.reverse.session.remote_http import Remote, RemoteHttp
from mcpbridge.reverse.session.tokens import Tokens
from mcpbridge.rules.faults import METHOD_NOT_FOUND, error_object
from mcpbridge.rules.mcp.era_probe import own_envelope
from mcpbridge.rules.mcp.initialize import bridge_introduction
from mcpbridge.rules.mcp.methods import INITIALIZE, INITIALIZED
from mcpbridge.rules.mcp.modern_checks import SUPPORTED
from mcpbridge.wire.messages import Failure, Message, Notification, Reply, Request, Result

_STOP_S = 2.0
_MOST_PAGES = 1000


class CannotReach(BridgeError):
    """A server that cannot be started or reached, or does not answer as an MCP server."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class ServerError(BridgeError):
    """A JSON-RPC error with which the server answered a request."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return f"{self.error.get('message')} (code {self.error.get('code')})"


class Conversation(Protocol):
    """A way to a server for a client without capabilities."""

    async def answer(self, request: Request) -> Reply:
        """Return the answer to a request."""

    async def send(self, message: Notification | Reply) -> None:
        """Send a notification or an answer."""


Respond = Callable[[Request], Reply]
"""Returns the answer to a request of the server."""


class OneClient:
    """A client that has made the handshake, or needs none, as the server's era asks."""

    def __init__(self, conversation: Conversation, meta: Mapping[str, Any]) -> None:
        self._conversation = conversation
        self._meta = meta
        self._next_id = 1

    @classmethod
    async def introduced(cls, conversation: Conversation) -> OneClient:
        """Make the handshake; if the server knows none, speak 2026-07-28."""
        introduction = bridge_introduction(__version__)
        reply = await conversation.answer(Request(b"0", INITIALIZE, introduction))
        if isinstance(reply, Result):
            await conversation.send(Notification(INITIALIZED))
            return cls(conversation, {})
        _raise_own(_read(reply.error))
        return cls(conversation, json.loads(own_envelope(SUPPORTED[0], __version__)))

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of a request.

        Raises:
            ServerError: The server answered with an error.
            CannotReach: It did not answer.
        """
        request_id, self._next_id = b"%d" % self._next_id, self._next_id + 1
        body = msgspec.json.encode({**params, **self._meta})
        reply = await self._conversation.answer(Request(request_id, method, body))
        if isinstance(reply, Failure):
            error = _read(reply.error)
            _raise_own(error)
            raise ServerError(error)
        return _read(reply.result)

    async def tools(self) -> list[dict[str, Any]]:
        """Return every tool, from all pages."""
        found: list[dict[str, Any]] = []
        params: dict[str, Any] = {}
        for _ in range(_MOST_PAGES):
            page = await self.ask("tools/list", params)
            listed = page.get("tools")
            if not isinstance(listed, list):
                raise CannotReach("the result of tools/list has no list of tools")
            found += [each for each in listed if isinstance(each, dict)]
            if not isinstance(page.get("nextCursor"), str):
                return found
            params = {"cursor": page["nextCursor"]}
        raise CannotReach(f"the list of tools has more than {_MOST_PAGES} pages")


@asynccontextmanager
async def at_url(
    remote: Remote, tokens: Tokens | None, within_s: float
) -> AsyncIterator[OneClient]:
    """A client of the server at a URL."""
    async with talking_to_url(remote, tokens, within_s, _own_answer) as conversation:
        yield await OneClient.introduced(conversation)


@asynccontextmanager
async def of_command(spec: ChildSpec, within_s: float) -> AsyncIterator[OneClient]:
    """A client of a server that is started for it, and stopped."""
    async with talking_to_command(spec, within_s, _own_answer) as conversation:
        yield await OneClient.introduced(conversation)


@asynccontextmanager
async def talking_to_url(
    remote: Remote, tokens: Tokens | None, within_s: float, respond: Respond
) -> AsyncIterator[Conversation]:
    """A conversation with the server at a URL, without a handshake so far.

    Args:
        remote: The server.
        tokens: Bearer tokens for it; None: none is sent.
        within_s: Seconds for each answer.
        respond: Answers the requests of the server.
    """
    back: list[RemoteClient] = []

    async def deliver(message: Message) -> None:
        if isinstance(message, Request):
            await back[0].send(respond(message))

    client = RemoteClient(RemoteHttp(remote, tokens), deliver, within_s)
    back.append(client)
    async with anyio.create_task_group() as tasks:
        await tasks.start(client.run)
        yield client
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def talking_to_command(
    spec: ChildSpec, within_s: float, respond: Respond
) -> AsyncIterator[Conversation]:
    """A conversation with a server that is started for it, and stopped: see `talking_to_url`."""
    with kept(spec.env) as reaper:
        child = _StartedServer(spec, ProcessTree(reaper), within_s, respond)
        async with child.running():
            yield child


class _StartedServer:
    """A process of the server, and the one request that waits for its answer."""

    def __init__(
        self, spec: ChildSpec, process_tree: ProcessTree, within_s: float, respond: Respond
    ) -> None:
        self._respond = respond
        ends = functools.partial(pipe_channel, limits=PipeLimits())
        self._child = SubprocessChild(spec, ends, process_tree)
        self._within_s = within_s
        self._awaited = b""
        self._ended = False
        self._reply: Reply | None = None
        self._news = anyio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the process until the block ends."""
        async with anyio.create_task_group() as tasks:
            try:
                await tasks.start(self._child.run)
            except SpawnError as error:
                raise CannotReach(str(error)) from error
            tasks.start_soon(self._read)
            try:
                yield
            finally:
                self._child.stop(_STOP_S)
                with anyio.CancelScope(shield=True):
                    await self._child.exited.wait()

    async def answer(self, request: Request) -> Reply:
        """Return the answer to a request; raise CannotReach if none comes."""
        if self._ended:
            raise CannotReach("the server has ended")
        self._awaited, self._reply, self._news = request.id, None, anyio.Event()
        await self.send(request)
        with anyio.move_on_after(self._within_s):
            reply = await self._settled()
            if reply is None:
                raise CannotReach(f"the server ended before it answered {request.method}")
            return reply
        raise CannotReach(f"no answer to {request.method} within {self._within_s:g} s (--timeout)")

    async def _settled(self) -> Reply | None:
        await self._news.wait()
        return self._reply

    async def send(self, message: Message) -> None:
        """Write a message to the server."""
        try:
            self._child.channel.send(message)
        except ChannelClosed as error:
            raise CannotReach("the server has ended") from error

    async def _read(self) -> None:
        while received := await self._child.channel.receive():
            for item in received:
                if isinstance(item, Request):
                    # It may ask something while it is being stopped.
                    with suppress(CannotReach):
                        await self.send(self._respond(item))
                elif isinstance(item, InvalidLine):
                    if item.answers is not None and b"%d" % item.answers == self._awaited:
                        self._settle(None)
                elif isinstance(item, Reply) and item.id == self._awaited:
                    self._settle(item)
        self._ended = True
        self._settle(None)

    def _settle(self, reply: Reply | None) -> None:
        if not self._news.is_set():
            self._reply = reply
            self._news.set()


def _read(text: bytes) -> dict[str, Any]:
    """Return the object in a JSON text; lone surrogates, which msgspec refuses, are accepted."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CannotReach(f"the answer of the server cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CannotReach("the answer of the server is not an object")
    return found


def checked_reply(reply: Reply) -> Reply:
    """Return an answer of the server; raise CannotReach for an error of mcpbridge."""
    if isinstance(reply, Failure):
        _raise_own(_read(reply.error))
    return reply


def _raise_own(error: Mapping[str, Any]) -> None:
    """Raise CannotReach if an error is of mcpbridge and not of the server."""
    data = error.get("data")
    if isinstance(data, Mapping) and "mcpbridge" in data:
        raise CannotReach(str(error.get("message")))


def _own_answer(request: Request) -> Reply:
    if request.method == "ping":
        return Result(request.id, b"{}")
    error = error_object(METHOD_NOT_FOUND, "this client has no capabilities")
    return Failure(request.id, error)


def arguments_of(words: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool's arguments from words such as `count=3`.

    A value is a text if the tool's schema says so, else JSON if it can be read as JSON.

    Raises:
        ValueError: A word has no `=`, or a name is given twice.
    """
    properties = schema.get("properties")
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise ValueError(f"{word!r} is not key=value")
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        declared = properties.get(name) if isinstance(properties, Mapping) else None
        kind = declared.get("type") if isinstance(declared, Mapping) else None
        found[name] = text if kind == "string" else _value(text)
    return found


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def as_json(value: Any) -> str:
    """Return a value as indented JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # A lone surrogate cannot be printed, and its escape is JSON.
    return text.encode("utf-8", "backslashreplace").decode()


def line_of(tool: Mapping[str, Any]) -> str:
    """Return one line about a tool: name, arguments, the beginning of its description."""
    schema = tool.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    required = schema.get("required") if isinstance(schema, Mapping) else None
    names = list(properties) if isinstance(properties, Mapping) else []
    needed = required if isinstance(required, list) else []
    words = [f"{name}=…" if name in needed else f"[{name}=…]" for name in names]
    described = str(tool.get("description") or tool.get("title") or "").strip().split("\n")[0]
    return _plain(" ".join([str(tool.get("name")), *words, *(["-", described] * bool(described))]))


def text_of_result(result: Mapping[str, Any]) -> str:
    """Return the content of a tool's result for people."""
    content = result.get("content")
    lines = [_block(each) for each in content] if isinstance(content, list) else []
    if not lines and "structuredContent" in result:
        lines = [as_json(result["structuredContent"])]
    return "\n".join(lines)


def _block(block: Any) -> str:
    if not isinstance(block, Mapping):
        return json.dumps(block)
    if block.get("type") == "text":
        return _plain(str(block.get("text")))
    size = len(str(block.get("data", "")))
    about = block.get("mimeType") or block.get("uri") or ""
    return _plain(f"[{block.get('type')} {about}{f', {size} characters of base64' * (size > 0)}]")


def _plain(text: str) -> str:
    """Return a text without control characters, which could change what a terminal shows."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "�" for sign in text)
