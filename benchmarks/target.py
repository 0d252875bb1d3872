"""A server under load, as a process of its own: started, found, greeted and stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

REVISION = "2025-11-25"
START_WITHIN_S = 30
STOP_WITHIN_S = 30
KEPT_WORDS = 4096
"""Bytes of standard error kept to tell why a target failed."""


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
def running(name: str, argv: Sequence[str], stdin: bytes = b"") -> Iterator[Target]:
    """Start a server that announces its address, and stop it with SIGTERM at the end.

    It must write a JSON line with the event "serve.started" and its "url" to standard error.
    `stdin` is all of its standard input. The bridge's settings in our environment do not reach it.

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
            said = words.last.decode(errors="replace").strip()
            raise TargetFailed(f"{name} told no address (bound {START_WITHIN_S} s): {said}")
        place = urlsplit(words.url)
        path = place.path if place.path not in ("", "/") else "/mcp"
        yield Target(name, process.pid, place.hostname or "127.0.0.1", place.port or 80, path)
    finally:
        _stop(process)
        words.close()


def _give(process: subprocess.Popen[bytes], stdin: bytes) -> None:
    if process.stdin is None:
        raise ValueError("the target was started without a pipe for its standard input")
    try:
        process.stdin.write(stdin)
        process.stdin.close()
    except BrokenPipeError:
        return  # it has ended; that it told no address says so


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def session(target: Target) -> Iterator[dict[str, str]]:
    """An initialized session on a target: the headers its requests carry. Deleted at the end.

    Raises:
        TargetFailed: The handshake is refused.
    """
    hello = {
        "protocolVersion": REVISION,
        "capabilities": {},
        "clientInfo": {"name": "benchmark", "version": "1"},
    }
    request = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
    session_id = _ask(target, "POST", {}, request)
    headers = {"MCP-Protocol-Version": REVISION}
    if session_id is not None:
        headers["Mcp-Session-Id"] = session_id
    _ask(target, "POST", headers, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    try:
        yield headers
    finally:
        if session_id is not None:
            # Not every server deletes, and it may have died under load, which is told already.
            with suppress(TargetFailed):
                _ask(target, "DELETE", headers, None)


def _ask(target: Target, method: str, headers: dict[str, str], message: object) -> str | None:
    """Send one request; the session id its answer names, if any."""
    fixed = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    body = None if message is None else json.dumps(message)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=START_WITHIN_S)
    try:
        connection.request(method, target.path, body, {**fixed, **headers})
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise TargetFailed(f"{target.name}, {method}: {error!r}") from error
    finally:
        connection.close()
    if answer.status >= 300 or b'"error"' in text:
        raise TargetFailed(f"{target.name}, {method}: {answer.status} {text[:500]!r}")
    return answer.headers["Mcp-Session-Id"]


def bridge_command(isolation: str, child: Sequence[str]) -> list[str]:
    """The bridge as a user would start it, on a free port of the loopback."""
    options = ["--port", "0", "--isolation", isolation]
    return [sys.executable, "-m", "mcpbridge", *options, "--", *child]


def bare_command() -> list[str]:
    """The limit; the answer it gives is its standard input."""
    return [sys.executable, str(Path(__file__).with_name("bare_asgi.py"))]
