"""The load generator where there is no C compiler: `load.c` in Python.

Run as a program, with the arguments, the input, the output and the rules that are told at the top
of `load.c`. It costs about 35 µs a call (`load.c` 16, nearly all the kernel's), so it may be what
limits the rate of a fast target: its report says how busy it was. The target's processor time per
call is right all the same.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

DIGITS = 9
READ_BYTES = 64 * 1024
FAILURES_BEFORE_STOP = 1000
REASONS = ("right", "status", "shape", "id", "text", "notes", "lost")


class NotHttp(Exception):
    """Bytes whose end as an answer cannot be known."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The arguments, in their order on the command line; see `load.c`."""

    host: str
    port: int
    connections: int
    warm_s: float
    seconds: float
    max_calls: int
    patience_s: float
    step: int
    id_at: int
    text_at: int
    text_bytes: int
    notes: int
    rate: float
    templates: int
    size: int

    @classmethod
    def parse(cls, argv: list[str]) -> Plan:
        """The plan of a command line; ValueError or TypeError if it is invalid."""
        kinds: tuple[Callable[[str], object], ...] = (
            str, int, int, float, float, int, float, int, int, int, int, int, float, int, int,
        )  # fmt: skip
        return cls(*[kind(text) for kind, text in zip(kinds, argv, strict=True)])  # type: ignore[arg-type] # the kinds stand in the order of the fields


@dataclass(slots=True)
class Phase:
    """One stretch of load: until when, and what has come of it so far."""

    ends_at: float
    max_calls: int
    next_due: float
    calls: int = 0
    reopened: int = 0
    latencies_s: list[float] = field(default_factory=list)
    """Of calls with an answer."""
    outcome: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))

    def may_call(self) -> bool:
        """Whether another call may begin."""
        failures = sum(self.outcome.values()) - self.outcome["right"]
        within = self.max_calls == 0 or self.calls < self.max_calls
        return within and failures < FAILURES_BEFORE_STOP and time.monotonic() < self.ends_at

    def quantile_us(self, share: float) -> float:
        """Microseconds within which this share of the answers came; 0 if none came."""
        if not self.latencies_s:
            return 0.0
        return sorted(self.latencies_s)[int(share * (len(self.latencies_s) - 1) + 0.5)] * 1e6


class Connection:
    """A keep-alive connection with at most one call outstanding."""

    def __init__(self, plan: Plan, template: bytes) -> None:
        self.plan = plan
        self.request = bytearray(template)
        asked = json.loads(template.partition(b"\r\n\r\n")[2])
        self.token = asked["params"].get("_meta", {}).get("progressToken")
        self.structured = asked["params"]["arguments"].get("structured")
        self.unsent = memoryview(b"")
        self.received = bytearray()
        self.waiting = False
        self.due = 0.0
        """When the call was to begin, or began."""
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        connected = socket.create_connection((self.plan.host, self.plan.port))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        return connected

    def reopen(self) -> None:
        """Drop what is left of the old connection and open another."""
        self.socket.close()
        self.socket = self._connect()

    def begin(self, call_id: int, due: float) -> None:
        """Write the id into the request and send as much of it as the socket takes."""
        self.due = due
        digits = b"%09d" % call_id
        plan = self.plan
        marked = min(plan.text_bytes, DIGITS)
        self.request[plan.id_at : plan.id_at + DIGITS] = digits
        self.request[plan.text_at : plan.text_at + marked] = digits[DIGITS - marked :]
        self.received.clear()
        self.waiting = True
        self.unsent = memoryview(self.request)
        self.send_rest()

    def send_rest(self) -> None:
        """Send on; a failed write is not looked at, the read that follows says how it ended."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.unsent = memoryview(b"")

    def check(self, answer: Answer) -> str:
        """What the answer to the outstanding call is: one of `REASONS`."""
        if answer.status != 200:
            return "status"
        try:
            messages = [json.loads(text) for text in answer.texts()]
        except ValueError:
            return "shape"
        answers = messages
        if answer.events:
            answers = [m for m in messages if not (isinstance(m, dict) and "method" in m)]
        if len(answers) != 1:
            return "shape"
        verdict = self._check_message(answers[0])
        if verdict == "right" and self.plan.notes and not self._told_all(messages):
            return "notes"
        return verdict

    def _told_all(self, messages: list[dict[str, Any]]) -> bool:
        told = [m["params"] for m in messages[:-1] if m.get("method") == "notifications/progress"]
        wanted = range(1, self.plan.notes + 1)
        return told == [{"progressToken": self.token, "progress": number} for number in wanted]

    def _check_message(self, message: object) -> str:
        match message:
            case {"error": _} | {"result": {"isError": True}}:
                return "shape"
            case {
                "jsonrpc": "2.0",
                "id": answered,
                "result": {"content": [{"text": text}, *_], **more},
            }:
                plan = self.plan
                asked = int(self.request[plan.id_at : plan.id_at + DIGITS])
                if type(answered) is not int or answered != asked:
                    return "id"
                sent = self.request[plan.text_at : plan.text_at + plan.text_bytes].decode()
                structured = more.get("structuredContent")
                return "right" if (text, structured) == (sent, self.structured) else "text"
        return "shape"


@dataclass(slots=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes | bytearray

    @property
    def events(self) -> bool:
        """Whether the body is an event stream."""
        return self.headers.get(b"content-type", b"").startswith(b"text/event-stream")

    @property
    def closes(self) -> bool:
        """Whether the target ends the connection with this answer."""
        return self.headers.get(b"connection", b"").lower() == b"close"

    def texts(self) -> list[bytes | bytearray]:
        """The JSON texts in it: the body, or the data of each whole event."""
        if not self.events:
            return [self.body]
        *whole, _ = self.body.replace(b"\r\n", b"\n").split(b"\n\n")
        joined = [
            b"\n".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:"))
            for event in whole
        ]
        return [text for text in joined if text.strip()]


def whole_answer(received: bytearray, *, ended: bool) -> Answer | None:
    """The answer that `received` is, or None while it is not all there.

    Raises:
        NotHttp: It is invalid, or more than one, or the connection `ended` before it did.
    """
    head, blank, _ = received.partition(b"\r\n\r\n")
    if not blank:
        if ended:
            raise NotHttp
        return None
    status_line, *lines = head.split(b"\r\n")
    if not (status_line.startswith(b"HTTP/1.1 ") and status_line[9:12].isdigit()):
        raise NotHttp
    pairs = (line.partition(b":") for line in lines)
    headers = {bytes(name).lower(): bytes(value).strip() for name, _, value in pairs}
    status, at = int(status_line[9:12]), len(head) + 4
    if b"transfer-encoding" in headers:
        body = _joined_chunks(received, at)
    elif b"content-length" in headers:
        size = int(headers[b"content-length"])
        if len(received) - at > size:
            raise NotHttp  # a byte too many may be a second answer
        body = received[at:] if len(received) - at == size else None
    else:
        headers[b"connection"] = b"close"
        return Answer(status, headers, received[at:]) if ended else None
    if body is None and ended:
        raise NotHttp
    return Answer(status, headers, body) if body is not None else None


def _joined_chunks(received: bytearray, at: int) -> bytearray | None:
    body = bytearray()
    try:
        while (line_end := received.find(b"\r\n", at)) >= 0:
            size, at = int(received[at:line_end].split(b";")[0], 16), line_end + 2
            if size == 0:
                rest = bytes(received[at:])
                if rest not in (b"", b"\r", b"\r\n"):
                    raise NotHttp  # no trailers are asked for; what is there is a second answer
                return body if rest == b"\r\n" else None
            body += received[at : at + size]
            at += size + 2
    except ValueError:
        raise NotHttp from None
    return None


class Generator:
    """The connections, and the loop that keeps each at one call after the other."""

    def __init__(self, plan: Plan, templates: list[bytes]) -> None:
        self.plan = plan
        self.call_id = int(templates[0][plan.id_at : plan.id_at + DIGITS])
        # Before the connections: `select` takes no descriptor over 1023.
        self.poller = select.epoll()
        self.connections = [
            Connection(plan, templates[number % len(templates)])
            for number in range(plan.connections)
        ]
        self.idle: deque[Connection] = deque()
        """Those without a call; used with a rate only."""
        self.by_fd = {connection.socket.fileno(): connection for connection in self.connections}
        for fd in self.by_fd:
            self.poller.register(fd, select.EPOLLIN)

    def run(self, seconds: float, max_calls: int) -> Phase:
        """Load for that long or that many calls (0: any number) and wait for the last answer."""
        phase = Phase(time.monotonic() + seconds, max_calls, next_due=time.monotonic())
        self.idle.clear()
        for connection in self.connections:
            self._rest(connection, phase)
        until_due, heard_at = self._begin_due(phase), time.monotonic()
        while until_due is not None or any(each.waiting for each in self.connections):
            if self._turn(phase, until_due) or not any(each.waiting for each in self.connections):
                heard_at = time.monotonic()
            if time.monotonic() - heard_at >= self.plan.patience_s:
                phase.ends_at = 0  # what is waited for is lost, and the load is over
                for connection in self.connections:
                    if connection.waiting:
                        self._end(connection, phase, "lost", closes=True)
            until_due = self._begin_due(phase)
        return phase

    def _begin_due(self, phase: Phase) -> float | None:
        """Begin what is due; the seconds until the next call is, None if none will be."""
        while self.plan.rate and phase.may_call():
            wait = phase.next_due - time.monotonic()
            if wait > 0:
                return wait
            if not self.idle:
                return self.plan.patience_s
            self._begin(self.idle.popleft(), phase, phase.next_due)
            phase.next_due += 1 / self.plan.rate
        return None

    def _turn(self, phase: Phase, until_due: float | None) -> bool:
        """Wait for sockets and serve them; False if none was ready in time."""
        most = self.plan.patience_s if until_due is None else min(until_due, self.plan.patience_s)
        # `epoll` waits for whole milliseconds, `select` for microseconds.
        readable, _, _ = select.select([self.poller], [], [], most)
        ready = self.poller.poll(0) if readable else []
        for fd, events in ready:
            connection = self.by_fd[fd]
            if events & select.EPOLLOUT:
                connection.send_rest()
                if not connection.unsent:
                    self.poller.modify(fd, select.EPOLLIN)
            if events & ~select.EPOLLOUT:
                self._read(connection, phase)
        return bool(ready)

    def _reopen(self, connection: Connection, phase: Phase) -> None:
        self.poller.unregister(connection.socket)
        del self.by_fd[connection.socket.fileno()]
        connection.reopen()
        self.by_fd[connection.socket.fileno()] = connection
        self.poller.register(connection.socket, select.EPOLLIN)
        phase.reopened += 1

    def _rest(self, connection: Connection, phase: Phase) -> None:
        """What a connection without a call does: call at once, or wait until one is due."""
        if self.plan.rate:
            self.idle.append(connection)
        elif phase.may_call():
            self._begin(connection, phase, time.monotonic())

    def _begin(self, connection: Connection, phase: Phase, due: float) -> None:
        self.call_id += self.plan.step
        phase.calls += 1
        connection.begin(self.call_id, due)
        if connection.unsent:
            self.poller.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def _end(self, connection: Connection, phase: Phase, reason: str, *, closes: bool) -> None:
        phase.outcome[reason] += 1
        connection.waiting = False
        if reason != "lost":
            phase.latencies_s.append(time.monotonic() - connection.due)
        if closes:
            self._reopen(connection, phase)
        self._rest(connection, phase)

    def _read(self, connection: Connection, phase: Phase) -> None:
        try:
            piece = connection.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not connection.waiting:  # closed while nothing was asked, or an answer to nothing
            phase.outcome["shape"] += bool(piece)
            self._reopen(connection, phase)
            return
        connection.received += piece
        try:
            answer = whole_answer(connection.received, ended=not piece)
        except NotHttp:
            self._end(connection, phase, "lost", closes=True)
            return
        if answer is not None:
            self._end(connection, phase, connection.check(answer), closes=answer.closes)


def main() -> None:
    """Warm up, wait for the word, load, report, and stay until the input ends."""
    plan = Plan.parse(sys.argv[1:])
    words = sys.stdin.buffer
    generator = Generator(plan, [words.read(plan.size) for _ in range(plan.templates)])
    if plan.warm_s > 0:
        generator.run(plan.warm_s, 0)
    print("warm", flush=True)
    if not words.readline():
        return
    started, busy_before = time.monotonic(), time.process_time()
    phase = generator.run(plan.seconds, plan.max_calls)
    seconds, busy_s = time.monotonic() - started, time.process_time() - busy_before
    report = {"calls": phase.calls, "seconds": seconds, "busy_s": busy_s}
    shares = {"p50_us": 0.5, "p99_us": 0.99, "max_us": 1.0}
    latency = {name: phase.quantile_us(share) for name, share in shares.items()}
    report |= {"reopened": phase.reopened, **phase.outcome, **latency}
    print(json.dumps(report), flush=True)
    words.read()


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        raise SystemExit(f"load: {error}") from None
