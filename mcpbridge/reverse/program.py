"""`mcpbridge connect URL`: a stdio server that is a remote one.

Each line of stdin is a message of the client. Every request gets one line in answer, on stdout: the
remote's, or an error that says whether the call may have been executed. A request that the client
cancels gets none. At the end of stdin the calls in flight are finished.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
from anyio.abc import TaskGroup

from mcpbridge.channels.off_loop import read_off_loop
from mcpbridge.client.http_client import http_url
from mcpbridge.config.remote_server import headers_of, login_file
from mcpbridge.errors import ConfigError, WireError
from mcpbridge.reverse.client_calls import CallLimits, ClientCalls, RemoteServerClient
from mcpbridge.reverse.remote_client import RemoteClient
from mcpbridge.reverse.session import faults
from mcpbridge.reverse.session.remote_http import Remote, RemoteHttp, is_exposed
from mcpbridge.reverse.session.tokens import FileTokens, Tokens, read_token
from mcpbridge.reverse.stdio import Stdio
from mcpbridge.reverse.translation.either_era import EitherEra
from mcpbridge.rules.faults import INVALID_REQUEST, PARSE_ERROR, error_object
from mcpbridge.rules.mcp.era_probe import ChildEra
from mcpbridge.runtime.exit_status import EXIT_FORCED, EXIT_OK
from mcpbridge.runtime.signals import EndOrders, heard_signals
from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.telemetry.logs import LogSettings, logging_to_stderr
from mcpbridge.wire.lines import LineSplitter, OverlongLine
from mcpbridge.wire.messages import (
    Failure,
    Message,
    decode,
    decode_batch,
    encode,
    is_batch,
    is_request_id,
)

log = logging.getLogger("mcpbridge.reverse")

_GROUP = "Remote"
_ENDING = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGBREAK")
_ID = rb'("(?:[^"\\]|\\.)*"|-?[0-9]+)'
_HEAD_ID = re.compile(
    rb'\s*\{\s*(?:"(?:jsonrpc|method)"\s*:\s*"[^"\\]*"\s*,\s*)*"id"\s*:\s*' + _ID + rb"\s*[,}]"
)
_TAIL_ID = re.compile(rb',\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*' + _ID + rb"\s*\}\s*\Z")
_METHOD = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?(?:"id"[^,]*,\s*)?"method"')


class ConnectSettings(SettingsSection, frozen=True):
    """What requests to the remote server carry, and the limits."""

    headers: tuple[str, ...] = setting(
        (),
        "--header",
        "A header of every request; `${NAME}` in it is the variable of that name.",
        group=_GROUP,
        metavar="'NAME: VALUE'",
        repeatable=True,
    )
    token_file: str | None = setting(
        None,
        "--token-file",
        "A file with a bearer token; read again when the server answers 401.",
        group=_GROUP,
        metavar="FILE",
    )
    login_file: str | None = setting(
        None,
        "--login-file",
        "A file that `mcpbridge login` has written. If not given, the login at this URL, if any.",
        group=_GROUP,
        metavar="FILE",
    )
    connect_timeout_s: float = setting(
        0.9,
        "--connect-timeout",
        "Time to open a connection; then the request gets an error.",
        group=_GROUP,
        unit=Unit.SECONDS,
        minimum=0.05,
    )
    request_timeout_s: float = setting(
        600.0,
        "--request-timeout",
        "Time for a request; then it gets an error.",
        group=_GROUP,
        unit=Unit.SECONDS,
        minimum=0.1,
    )
    max_line_bytes: int = setting(
        16 << 20,
        "--max-line-bytes",
        "Longest message of the client.",
        group=_GROUP,
        unit=Unit.BYTES,
        minimum=1024,
    )
    max_response_bytes: int = setting(
        16 << 20,
        "--max-response-bytes",
        "Longest message of the server.",
        group=_GROUP,
        unit=Unit.BYTES,
        minimum=1024,
    )
    max_calls: int = setting(
        256,
        "--max-calls",
        "Requests in flight.",
        group=_GROUP,
        unit=Unit.INTEGER,
        minimum=1,
    )
    max_call_bytes: int = setting(
        64 << 20,
        "--max-call-bytes",
        "Bytes of all requests in flight.",
        group=_GROUP,
        unit=Unit.BYTES,
        minimum=1024,
    )
    grace_s: float = setting(
        30.0,
        "--grace",
        "Time for the requests in flight after the end of stdin, or after SIGTERM.",
        group=_GROUP,
        unit=Unit.SECONDS,
        minimum=0,
    )


def remote_of(url: str, settings: ConnectSettings) -> tuple[Remote, Tokens | None]:
    """Return the server at a URL, and the tokens for it.

    Raises:
        ConfigError: URL, header, token file or login is invalid.
    """
    try:
        place = http_url(url)
    except ValueError as error:
        raise ConfigError("URL", "", str(error), "write http://HOST:PORT/mcp") from None
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise ConfigError("URL", "", "a URL with credentials", "give them by --header or a file")
    headers = headers_of(settings.headers)
    file = Path(settings.token_file) if settings.token_file is not None else None
    given = ("authorization" in headers) + (file is not None) + (settings.login_file is not None)
    if given > 1:
        problem = "more than one of --token-file, --login-file and a header Authorization"
        raise ConfigError("--token-file", "", problem, "give one")
    limits = settings.connect_timeout_s, settings.max_response_bytes
    remote = Remote(place, headers, file, *limits)
    if "authorization" in headers:
        return remote, None
    if file is None:
        return remote, _saved_login(place, settings.login_file)
    try:
        return remote, FileTokens(file, read_token(file))
    except OSError as error:
        raise ConfigError("--token-file", "", f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError("--token-file", "", str(error)) from None


def _saved_login(place: httpx.URL, given: str | None) -> Tokens | None:
    """Return the tokens of a login; None if there was none at this address.

    Raises:
        ConfigError: The file of the login is invalid.
    """
    file = Path(given) if given is not None else login_file(str(place))
    if given is None and not file.exists():
        return None
    from mcpbridge.reverse.login.saved_login import tokens_of_login

    try:
        return tokens_of_login(file, place)
    except OSError as error:
        problem = f"cannot read {file}: {error.strerror}"
        raise ConfigError("--login-file", "", problem) from None
    except ValueError as error:
        raise ConfigError("--login-file", "", str(error)) from None


def run(url: str, settings: ConnectSettings, logs: LogSettings) -> int:
    """Serve stdin and stdout until the end of stdin; return the exit status.

    | status | meaning |
    |---|---|
    | 0 | end of stdin, or ended as asked |
    | 3 | ended by a second signal |
    """
    remote, tokens = remote_of(url, settings)
    with logging_to_stderr(logs):
        # It logs addresses with their query and the headers of responses, which may be secrets.
        for library in ("httpx", "httpcore"):
            logging.getLogger(library).setLevel(logging.WARNING)
        if is_exposed(remote):
            log.warning("connect.in_clear_text", extra={"url": remote.name})
        return anyio.run(_served, remote, tokens, settings)


async def _served(remote: Remote, tokens: Tokens | None, settings: ConnectSettings) -> int:
    return await _Connection(remote, tokens, settings, Stdio()).run()


class _Connection:
    """The client at stdin and stdout."""

    def __init__(
        self, remote: Remote, tokens: Tokens | None, settings: ConnectSettings, stdio: Stdio
    ) -> None:
        self._server = remote
        self._tokens = tokens
        self._settings = settings
        self._stdio = stdio
        http = RemoteHttp(remote, tokens)
        plain = RemoteClient(http, self._deliver, settings.request_timeout_s)
        either = EitherEra(plain, self._translated)
        limits = CallLimits(settings.max_calls, settings.max_call_bytes)
        self._calls = ClientCalls(either, self._deliver, limits)
        self._reading = anyio.CancelScope()
        self._tasks: TaskGroup

    async def run(self) -> int:
        """Serve the client to its end; return the exit status."""
        orders = EndOrders()
        with heard_signals() as signals:
            async with anyio.create_task_group() as self._tasks:
                await self._tasks.start(self._calls.run)
                self._tasks.start_soon(self._obey, signals, orders)
                self._tasks.start_soon(self._end_when_broken)
                log.info("connect.started", extra={"url": self._server.name})
                with self._reading:
                    await self._read()
                await self._finish()
                self._tasks.cancel_scope.cancel()
        status = EXIT_FORCED if orders.count > 1 else EXIT_OK
        log.info("connect.ended", extra={"status": status})
        return status

    def _translated(self, server: ChildEra) -> RemoteServerClient:
        # With all of a bridge, which most clients do not need.
        from mcpbridge.reverse.translation.bridged_client import BridgedClient, bridge_to

        timeout_s = self._settings.request_timeout_s
        bridge = bridge_to(self._server, self._tokens, server, timeout_s)
        return BridgedClient(bridge, self._deliver)

    async def _read(self) -> None:
        splitter = LineSplitter(self._settings.max_line_bytes)
        async for chunk in self._stdio.chunks():
            for line in splitter.feed(chunk):
                await self._take_line(line)
        for line in splitter.end():
            await self._take_line(line)

    async def _finish(self) -> None:
        """Wait until no request is in flight, but no longer than `--grace`."""
        with anyio.move_on_after(self._settings.grace_s) as limit:
            await self._calls.finish()
        if limit.cancelled_caught:
            log.warning("connect.cut_off", extra={"calls": len(self._calls)})

    async def _obey(self, signals: AsyncIterator[object], orders: EndOrders) -> None:
        async for each in signals:
            if getattr(each, "name", "") not in _ENDING:
                continue
            order = orders.received()
            if order == 1:
                log.info("connect.signal", extra={"signal": getattr(each, "name", "")})
                self._reading.cancel()
            elif order is not None:
                self._tasks.cancel_scope.cancel()

    async def _end_when_broken(self) -> None:
        await self._stdio.broken.wait()
        log.info("connect.client_gone")
        self._tasks.cancel_scope.cancel()

    async def _deliver(self, message: Message) -> None:
        await self._stdio.write(encode(message) + b"\n")

    async def _refuse(self, request_id: bytes | None, error: bytes) -> None:
        await self._deliver(Failure(request_id, error))

    async def _take_line(self, line: bytes | OverlongLine) -> None:
        if isinstance(line, OverlongLine):
            fault = faults.line_too_large(line.size, self._settings.max_line_bytes)
            log.warning("connect.line_refused", extra={"problem": fault.message})
            await self._refuse(_id_of(line), fault.error())
            return
        try:
            if is_batch(line):
                messages = await read_off_loop(decode_batch, line)
            else:
                messages = [await read_off_loop(decode, line)]
        except WireError as error:
            log.warning("connect.line_refused", extra={"problem": str(error)})
            code = INVALID_REQUEST if line.startswith((b"{", b"[")) else PARSE_ERROR
            await self._refuse(error.request_id, error_object(code, str(error)))
            return
        if not messages:
            await self._refuse(None, error_object(INVALID_REQUEST, "an empty batch"))
        for message in messages:
            await self._calls.take(message)


def _id_of(line: OverlongLine) -> bytes | None:
    """Return the id of a request over the limit, if it is certain."""
    found = _HEAD_ID.match(line.head)
    if found is None and _METHOD.match(line.head):
        found = _TAIL_ID.search(line.tail)
    return found[1] if found is not None and is_request_id(found[1]) else None
