"""A server under load, as a separate process: started, found, greeted and stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.measure import own_pids

REVISION = "2025-11-25"
HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": REVISION,
        "capabilities": {},
        "clientInfo": {"name": "benchmark", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
FIXED = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
START_WITHIN_S = 120
"""Enough for a bridge under an instrument that makes it fifty times slower."""
STOP_WITHIN_S = 30
KEPT_WORDS = 1 << 20
"""Bytes of standard error kept: why a target failed, what it imports, its state."""
TOLD_WORDS = 4096
NO_MARK = "\0\0"
"""Stands in no command line: whatever the target has started is its own."""


class TargetFailed(Exception):
    """A target that did not start, or did not answer the handshake."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running server; it ends with the context that gave it."""

    name: str
    pid: int
    host: str
    port: int
    path: str
    mark: str
    """Stands in the command lines of the stdio servers it starts and of no other process."""
    words: Callable[[], bytes]
    """The last it has written to standard error."""

    def own_pids(self) -> tuple[int, ...]:
        """The processes it is made of, without the stdio servers it has started."""
        return own_pids(self.pid, self.mark)


class _Words:
    """Standard error of a target: read to its end in a thread, searched for the start-up line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.url: str | None = None
        self.known = threading.Event()
        """Set when the address is there, or when it will never be."""
        self.last = b""
        self._pipe = process.stderr
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        if self._pipe is None:
            raise ValueError("the target was started without a pipe for its standard error")
        while self.url is None and (line := self._pipe.readline()):
            self.last = (self.last + line)[-KEPT_WORDS:]
            self.url = _announced_url(line)
        self.known.set()
        # From here on in large pieces: a target that logs each call must not cost us a processor.
        while piece := os.read(self._pipe.fileno(), 65536):
            self.last = (self.last + piece)[-KEPT_WORDS:]

    def close(self) -> None:
        """Wait for the end of the output, which is there once the process has ended."""
        self._thread.join(STOP_WITHIN_S)
        if self._pipe is not None and not self._thread.is_alive():
            self._pipe.close()


def _announced_url(line: bytes) -> str | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if isinstance(record, dict) and record.get("event") == "serve.started":
        return str(record.get("url"))
    return None


@contextmanager
def running(
    name: str, argv: Sequence[str], stdin: bytes = b"", mark: str = NO_MARK
) -> Iterator[Target]:
    """Start a server that announces its address, and stop it with SIGTERM at the end.

    It must write a JSON line with the event "serve.started" and its "url" to standard error.
    `stdin` is all of its standard input; see `Target` for `mark`. The bridge's settings in
    our environment do not reach it.

    Raises:
        TargetFailed: No address within `START_WITHIN_S`; holds its last words.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MCPBRIDGE_") and k != "PORT"}
    process = subprocess.Popen(
        argv, env=kept, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    words = _Words(process)
    try:
        _give(process, stdin)
        words.known.wait(START_WITHIN_S)
        if words.url is None:
            said = words.last[-TOLD_WORDS:].decode(errors="replace").strip()
            raise TargetFailed(f"{name} told no address (bound {START_WITHIN_S} s): {said}")
        place = urlsplit(words.url)
        path = place.path if place.path not in ("", "/") else "/mcp"
        host, port = place.hostname or "127.0.0.1", place.port or 80
        yield Target(name, process.pid, host, port, path, mark, lambda: words.last)
    finally:
        stop(process)
        words.close()


def _give(process: subprocess.Popen[bytes], stdin: bytes) -> None:
    if process.stdin is None:
        raise ValueError("the target was started without a pipe for its standard input")
    try:
        process.stdin.write(stdin)
        process.stdin.close()
    except BrokenPipeError:
        return  # it has ended; that it told no address says so


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server with SIGTERM, and kill it where that does not do."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def session_headers(session_id: str | None) -> dict[str, str]:
    """What the requests of a session carry; of a server that names none, the revision alone."""
    named = {} if session_id is None else {"Mcp-Session-Id": session_id}
    return {"MCP-Protocol-Version": REVISION, **named}


class Client:
    """A client of a target, over one connection."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection = http.client.HTTPConnection(
            target.host, target.port, timeout=START_WITHIN_S
        )

    def open_session(self) -> dict[str, str]:
        """Do the handshake; the headers that the session's requests carry.

        Raises:
            TargetFailed: It is refused.
        """
        session_id = self.ask("POST", {}, HELLO)
        headers = session_headers(session_id)
        self.ask("POST", headers, INITIALIZED)
        return headers

    def end_session(self, headers: Mapping[str, str]) -> None:
        """Delete a session, if it is one.

        Raises:
            TargetFailed: It is refused.
        """
        if "Mcp-Session-Id" in headers:
            self.ask("DELETE", headers, None)

    def ask(self, method: str, headers: Mapping[str, str], message: object) -> str | None:
        """Send one request; the session id its answer names, if any.

        Raises:
            TargetFailed: There is no answer, or one that is not a success.
        """
        self.say(method, headers, message)
        return self.hear()

    def say(self, method: str, headers: Mapping[str, str], message: object) -> None:
        """Send one request; `hear` is its answer.

        Raises:
            TargetFailed: It cannot be sent.
        """
        body = None if message is None else json.dumps(message)
        try:
            self._connection.request(method, self._target.path, body, {**FIXED, **headers})
        except OSError as error:
            self.close()
            raise TargetFailed(f"{self._target.name}, {method}: {error!r}") from error

    def hear(self) -> str | None:
        """The session id that the answer to what was said names, if any.

        Raises:
            TargetFailed: There is no answer, or one that is not a success.
        """
        try:
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise TargetFailed(f"{self._target.name}: {error!r}") from error
        if answer.status >= 300 or b'"error"' in text:
            raise TargetFailed(f"{self._target.name}: {answer.status} {text[:500]!r}")
        return answer.headers["Mcp-Session-Id"]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def sessions(target: Target, count: int = 1) -> Iterator[tuple[dict[str, str], ...]]:
    """Initialized sessions on a target: the headers each one's requests carry. Deleted at the end.

    Raises:
        TargetFailed: A handshake is refused.
    """
    client = Client(target)
    opened = tuple(client.open_session() for _ in range(count))
    client.close()  # idle for as long as the load lasts, which not every server allows
    try:
        yield opened
    finally:
        # Not every server deletes, and it may have died under load, which is told already.
        with suppress(TargetFailed):
            for headers in opened:
                client.end_session(headers)
        client.close()


def bridge_command(child: Sequence[str], *options: str) -> list[str]:
    """The bridge as a user would start it, on a free port of the loopback."""
    words = ["--port", "0", *options]
    return [sys.executable, "-m", "mcpbridge", *words, "--", *child]


def program_command(name: str, *words: str) -> list[str]:
    """A program beside this file: a limit, the prototype."""
    return [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *words]
