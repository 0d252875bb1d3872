"""Runs one process of the server, started as the bridge starts it, and talks to it.

The doctor is a separate client: it answers server requests, and never calls a tool, since a tool
may do anything.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import msgspec

from mcpbridge.channels.channel import InvalidLine, Received
from mcpbridge.channels.pipes import PipeLimits, pipe_channel
from mcpbridge.doctor.server.report import Ending, Listing, Noise, StopStep
from mcpbridge.errors import ChannelClosed, SpawnError
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.spec import ChildSpec
from mcpbridge.process.subprocess_child import ExitReport, SubprocessChild
from mcpbridge.rules.faults import INVALID_REQUEST, error_object
from mcpbridge.wire.messages import Failure, Message, Notification, Reply, Request, Result

STOP_GRACE_S = 2.0
"""Seconds that a process may take after the end of its input, and again after SIGTERM, when it is
no longer examined: as long as the bridge gives at its own end."""
FAIR_WAIT_S = 5.0
"""Seconds for the process whose end is reported, since the machine may be busy."""
_GOING_S = 0.25
_STOP_STEPS: tuple[StopStep, ...] = ("end_of_input", "SIGTERM", "SIGKILL")
_SAMPLES = 3
_SHOWN_ID = 40
_NAMES = 100
_PAGES = 100

_ANSWERS: Mapping[str, bytes] = {
    "ping": b"{}",
    "roots/list": b'{"roots":[]}',
    "elicitation/create": b'{"action":"decline"}',
}


class ServerProcess:
    """A process from its start to its end; works within `running`."""

    def __init__(self, spec: ChildSpec, limits: PipeLimits, process_tree: ProcessTree) -> None:
        ends = functools.partial(pipe_channel, limits=limits)
        self._child = SubprocessChild(spec, ends, process_tree)
        self._next_id = 0
        self._replies: dict[bytes, Reply] = {}
        self._news = anyio.Event()
        self._over = False
        self._started_at = 0.0
        self._sample: list[str] = []
        self._noise_lines = 0
        self._noise_bytes = 0
        self.overlong_bytes = 0
        """Length of the longest line that was too long to read."""
        self.refused: SpawnError | None = None
        """The reason why the system did not start it."""
        self.questions: list[str] = []
        """Methods that the server requested, each once."""
        self.notifications: Counter[str] = Counter()
        self.foreign_ids: list[str] = []
        """Ids of answers that match no request, each once."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the process until the block ends; check `refused` first."""
        async with anyio.create_task_group() as tasks:
            self._started_at = anyio.current_time()
            try:
                await tasks.start(self._child.run)
            except SpawnError as error:
                self.refused = error
            else:
                tasks.start_soon(self._read)
            try:
                yield
            finally:
                self._child.stop(STOP_GRACE_S)
            if self.refused is None:
                await self._child.exited.wait()

    @property
    def age_s(self) -> float:
        """Seconds since the start."""
        return anyio.current_time() - self._started_at

    @property
    def pid(self) -> int:
        """The pid, which is also the id of its process group."""
        return self._child.pid

    @property
    def over(self) -> bool:
        """Whether its output has ended."""
        return self._over

    async def goes(self) -> bool:
        """Return whether the process has ended, or ends now: its stdout ends slightly earlier."""
        with anyio.move_on_after(_GOING_S):
            await self._child.gone.wait()
        return self._child.gone.is_set()

    @property
    def report(self) -> ExitReport | None:
        """The end of the process; set after `running`."""
        return self._child.report

    @property
    def noise(self) -> Noise | None:
        """The lines on stdout that are not messages; None if there are none."""
        if not self._noise_lines:
            return None
        return Noise(self._noise_lines, self._noise_bytes, tuple(self._sample))

    def begin(self, method: str, params: bytes | None = None) -> bytes:
        """Send a request without waiting and return its id."""
        self._next_id += 1
        request_id = b"%d" % self._next_id
        self._send(Request(request_id, method, params))
        return request_id

    def tell(self, method: str) -> None:
        """Send a notification."""
        self._send(Notification(method))

    async def answer(self, request_id: bytes, within_s: float) -> Reply | None:
        """Wait for the answer to a request; None on time-out or at the end of the process."""
        with anyio.move_on_after(within_s):
            while request_id not in self._replies and not self._over:
                await self._news.wait()
        return self._replies.get(request_id)

    async def ask(self, method: str, params: bytes | None, within_s: float) -> Reply | None:
        """Send a request and wait for its answer; None if none comes."""
        return await self.answer(self.begin(method, params), within_s)

    async def listing(
        self, method: str, member: str, common: Mapping[str, Any], within_s: float
    ) -> Listing:
        """Read a whole list, page by page.

        Args:
            method: `tools/list` or a similar method.
            member: The member of the result that holds the entries.
            common: Params of every request.
            within_s: Seconds for each page.
        """
        names: list[str] = []
        count = size = pages = 0
        params = dict(common)
        problem: str | None = None
        unanswered = False
        while pages < _PAGES:
            reply = await self.ask(method, msgspec.json.encode(params), within_s)
            page = _page_of(reply, member)
            if isinstance(page, str) or not isinstance(reply, Result):
                problem = f"{method}: {page}"
                unanswered = reply is None
                break
            entries, cursor = page
            pages, count, size = pages + 1, count + len(entries), size + len(reply.result)
            names += [_name_of(entry) for entry in entries[: _NAMES - len(names)]]
            if cursor is None:
                break
            params["cursor"] = cursor
        return Listing(count, size, pages, tuple(names), problem, unanswered)

    async def end(self, grace_s: float = STOP_GRACE_S) -> Ending:
        """Close its stdin, then send signals as the bridge does; return how it ended.

        Args:
            grace_s: Seconds after the end of its input, and again after SIGTERM.
        """
        by_itself = self._child.gone.is_set()
        asked_at = anyio.current_time()
        self._child.stop(grace_s)
        await self._child.gone.wait()
        took_s = anyio.current_time() - asked_at
        await self._child.exited.wait()
        how = str(self._child.how)
        if by_itself:
            return Ending("itself", 0.0, how)
        return Ending(_STOP_STEPS[min(2, int(took_s / grace_s))], round(took_s, 3), how)

    def _send(self, message: Message) -> None:
        with suppress(ChannelClosed):  # `_read` handles its end.
            self._child.channel.send(message)

    async def _read(self) -> None:
        while received := await self._child.channel.receive():
            for item in received:
                self._take(item)
            self._tell_news()
        self._over = True
        self._tell_news()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    def _take(self, item: Received) -> None:
        match item:
            case Request(id, method):
                if method not in self.questions and method != "ping":
                    self.questions.append(method)
                self._send(_own_answer(id, method))
            case Notification(method):
                self.notifications[method] += 1
            case InvalidLine():
                self._take_invalid_line(item)
            case Result(id) | Failure(id):
                # Some servers write every id as a string; the bridge accepts them too.
                plain = (id or b"null").strip(b'"')
                if plain.isdigit() and 0 < int(plain) <= self._next_id:
                    self._replies[plain] = item
                elif len(self.foreign_ids) < _SAMPLES:
                    self.foreign_ids.append((id or b"null")[:_SHOWN_ID].decode("utf-8", "replace"))

    def _take_invalid_line(self, line: InvalidLine) -> None:
        if line.answers is not None:
            error = error_object(0, f"an answer of {line.size} bytes: {line.reason}")
            request_id = b"%d" % line.answers
            self._replies.setdefault(request_id, Failure(request_id, error))
        if line.reason == "message_too_large":
            self.overlong_bytes = max(self.overlong_bytes, line.size)
            return
        self._noise_lines += 1
        self._noise_bytes += line.size
        if len(self._sample) < _SAMPLES:
            self._sample.append(line.sample.decode("utf-8", "backslashreplace"))


def error_text(reply: Failure) -> str:
    """Return the code and the message of an error, for people."""
    try:
        error = msgspec.json.decode(reply.error)
        return f"error {error.get('code')}: {error.get('message')}"
    except (msgspec.DecodeError, AttributeError):
        return "an error that cannot be read"


def _own_answer(request_id: bytes, method: str) -> Reply:
    result = _ANSWERS.get(method)
    if result is not None:
        return Result(request_id, result)
    return Failure(request_id, error_object(INVALID_REQUEST, "the doctor answers no questions"))


def _page_of(reply: Reply | None, member: str) -> tuple[list[Any], str | None] | str:
    """Return entries and cursor of one page, or the problem as a text."""
    if reply is None:
        return "no answer"
    if isinstance(reply, Failure):
        return error_text(reply)
    try:
        result = msgspec.json.decode(reply.result)
    except msgspec.DecodeError as error:
        return f"cannot be read: {error}"
    if not isinstance(result, dict) or not isinstance(result.get(member), list):
        return f"no list in {member!r}"
    cursor = result.get("nextCursor")
    return result[member], cursor if isinstance(cursor, str) else None


def _name_of(entry: Any) -> str:
    return str(entry.get("name", "unnamed")) if isinstance(entry, dict) else "unnamed"
