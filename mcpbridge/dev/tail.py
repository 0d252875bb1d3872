"""Prints what passes: `mcpbridge tail` reads it from a bridge, `dev --tail` prints its own."""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import msgspec

from mcpbridge.client.http_client import LineTooLong, bounded_events, cause_of, http_url
from mcpbridge.errors import BridgeError, WireError
from mcpbridge.tape.export import Pairs
from mcpbridge.tape.frame import Frame
from mcpbridge.tape.frame_filter import FrameFilter, Shown
from mcpbridge.tape.recording import frame_of, line_of, redacted
from mcpbridge.tape.redaction import Redactor
from mcpbridge.wire.headers import EVENT_STREAM

PAGE_PATH = "/ui"
_FRAMES = "/frames"
_CONNECT_S = 10.0
_SILENT_S = 60.0
"""Seconds without a byte after which the bridge is taken for gone: it sends a comment each 15 s."""
_EVENT_BYTES = 1 << 20
"""Most bytes of an event; a frame has at most 256 KiB and what is known of it."""
_ERROR_BYTES = 1 << 12
_QUEUED = 10_000
"""Frames that wait to be printed; more are lost, and counted."""
_LAST_S = 2.0
"""Seconds to print what is queued at the end."""

Write = Callable[[str], None]


class CannotRead(BridgeError):
    """A bridge whose frames cannot be read."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class PageAddress(msgspec.Struct, frozen=True):
    """Where the frames of a bridge are read, and with which token."""

    url: str
    token: str


def page_address(text: str, token: str | None) -> PageAddress:
    """Return the address of the frames.

    Args:
        text: The address of the page, as it is printed; or of anything else of the same bridge.
        token: The token, if the address has none in its fragment.

    Raises:
        ValueError: Not an http URL, or there is no token; the text says so.
    """
    url = http_url(text)
    found = url.fragment.removeprefix("token=") if url.fragment.startswith("token=") else token
    if not found or not found.isascii() or not found.isprintable():
        raise ValueError(
            "there is no token: give the whole address of the page, with its #token=…, as"
            " `mcpbridge dev` prints it"
        )
    path = url.path if url.path.rstrip("/").endswith(PAGE_PATH) else PAGE_PATH
    place = url.copy_with(path=path.rstrip("/") + _FRAMES, query=None, fragment=None)
    return PageAddress(str(place), found)


def print_line(line: str) -> None:
    """Print a line at once, also into a pipe: what passes is read while it passes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class FrameLines:
    """Writes frames that a filter shows, as text or as JSON, one a line."""

    def __init__(self, wanted: FrameFilter, write: Write, *, as_json: bool) -> None:
        """Make it; `write` takes a line without its end."""
        self._wanted = wanted
        self._write = write
        self._as_json = as_json
        self._pairs = Pairs()

    def frame(self, frame: Frame) -> None:
        """Write a frame if it is shown."""
        shown = Shown(frame, self._pairs.request_of(frame))
        if self._wanted.shows(shown):
            as_json = self._as_json
            self._write(line_of(frame).decode().rstrip("\n") if as_json else shown.line)

    def lost(self, frames: int) -> None:
        """Write that this number of frames is missing before the next one."""
        if self._as_json:
            facts = {"direction": "meta", "text": "frames_lost", "mcpbridge": {"frames": frames}}
            self._write(json.dumps(facts))
        else:
            self._write(f"-- {frames} frames are missing: they passed faster than they were read")


async def read_frames(address: PageAddress, lines: FrameLines) -> None:
    """Write the frames that a bridge keeps, then each one as it passes, until the bridge ends.

    Raises:
        CannotRead: The bridge cannot be reached, refuses to be read, or is gone without an end.
    """
    timeout = httpx.Timeout(_CONNECT_S, read=_SILENT_S)
    headers = {"accept": EVENT_STREAM, "authorization": f"Bearer {address.token}"}
    try:
        # Not through the proxies of the environment: the bridge is on this machine or near it.
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False) as client,
            client.stream("GET", address.url, headers=headers) as response,
        ):
            if response.status_code != 200:
                raise CannotRead(await _refusal(address, response))
            async for event in bounded_events(response, _EVENT_BYTES):
                if event.event == "frame":
                    lines.frame(frame_of(event.data.encode("utf-8", "surrogatepass")))
                elif event.event == "lost":
                    lines.lost(int(json.loads(event.data)["frames"]))
    except httpx.HTTPError as error:
        cause = cause_of(error) or f"no answer within {_CONNECT_S:g} s"
        raise CannotRead(f"{address.url} cannot be read: {cause}") from error
    except (LineTooLong, WireError, ValueError, KeyError, TypeError) as error:
        problem = f"{address.url} sends something other than frames: {error}"
        raise CannotRead(problem) from error


async def _refusal(address: PageAddress, response: httpx.Response) -> str:
    status = response.status_code
    if status == 401:
        return f"{address.url} refuses the token: each run of mcpbridge dev prints another one"
    if status == 404:
        return f"{address.url} is not there: mcpbridge dev serves it, without --no-page"
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > _ERROR_BYTES:
            break
    try:
        told = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        told = response.reason_phrase
    return f"{address.url} answers {status}: {told}"


class TailSink:
    """A sink that prints frames in a thread, without their secrets; works within `open`."""

    def __init__(self, lines: FrameLines) -> None:
        self._lines = lines
        self._queue: queue.Queue[tuple[Frame, Redactor | None] | None] = queue.Queue(_QUEUED)
        self._lost = 0
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Print until the block ends, then what is queued."""
        self._thread.start()
        try:
            yield
        finally:
            try:
                self._queue.put(None, timeout=_LAST_S)
            except queue.Full:
                pass  # the reader of stdout does not read
            else:
                self._thread.join(_LAST_S)

    def put(self, frame: Frame, redactor: Redactor | None) -> None:
        """Take a frame, in any thread: see `Sink`."""
        try:
            self._queue.put_nowait((frame, redactor))
        except queue.Full:
            self._lost += 1

    def _run(self) -> None:
        while (found := self._queue.get()) is not None:
            lost, self._lost = self._lost, 0
            if self._broken:
                continue
            try:
                if lost:
                    self._lines.lost(lost)
                self._lines.frame(redacted(*found))
            except OSError:
                # The reader of stdout is gone; the servers are served all the same.
                self._broken = True
