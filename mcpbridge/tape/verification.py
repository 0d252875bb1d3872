"""What a recording asks again, what came of it, and reports of that.

Each recorded session, which is one server process, is a session again: its requests in their order,
each after the answer to the one before it. Only answers are compared.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET  # nosec B405 # written here, and not read
from collections.abc import Iterable, Sequence

import msgspec

from mcpbridge.rules.mcp.methods import CANCELLED, DISCOVER, INITIALIZE, LISTEN, PING
from mcpbridge.tape.comparison import Difference, printable, read_value
from mcpbridge.tape.frame import Direction, Frame, value_at
from mcpbridge.tape.redaction import MASK
from mcpbridge.wire.messages import (
    Failure,
    Notification,
    Reply,
    Request,
    Result,
    canonical_id,
    text_of,
)

_NEVER_ASKED = (PING, LISTEN)
"""What has the same answer from any server, and what has none."""
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST_SHOWN = 20
"""Differences of one answer that are shown."""


class RecordedRequest(msgspec.Struct, frozen=True):
    """A recorded request, with its answer."""

    request: Request
    answer: Reply
    frame: Frame
    """The frame of the answer."""
    skipped: str = ""
    """Why it cannot be asked again; empty if it can."""

    @property
    def name(self) -> str:
        """The request for people: its method, and the tool, prompt or resource."""
        params = self.request.params
        names = (text_of(value_at(params, each)) for each in ("name", "uri"))
        found = "" if self.request.method == INITIALIZE else next(filter(None, names), "")
        return f"{self.request.method} {found}".rstrip()


class RecordedConversation(msgspec.Struct):
    """One recorded session: what its client said, in order, and how it answered the server."""

    server: str
    steps: list[RecordedRequest | Notification]
    answers: list[tuple[Request, Reply]]

    def answer_to(self, question: Request) -> Reply | None:
        """Return the recorded answer to a request of the server, each one once; None without one.

        The first one of an equal request, else the first one of that method.
        """
        same = [each for each in self.answers if each[0].method == question.method]
        equal = [each for each in same if each[0].params == question.params]
        found = next(iter(equal or same), None)
        if found is None:
            return None
        self.answers.remove(found)
        return msgspec.structs.replace(found[1], id=question.id)


class CheckedRequest(msgspec.Struct, frozen=True):
    """What came of one request."""

    server: str
    name: str
    differences: Sequence[Difference] = ()
    problem: str = ""
    """Why it has no answer; empty if it has one."""
    skipped: str = ""
    seconds: float = 0.0

    @property
    def differs(self) -> bool:
        """Whether the server is another one than the recorded."""
        return bool(self.differences or self.problem)

    @property
    def lines(self) -> list[str]:
        """What is wrong, a line each."""
        found = [self.problem] if self.problem else []
        found += map(str, self.differences[:_MOST_SHOWN])
        more = len(self.differences) - _MOST_SHOWN
        return [*found, f"and {more} more"] if more > 0 else found


def conversations(frames: Sequence[Frame]) -> list[RecordedConversation]:
    """Return what can be asked again, session by session."""
    found: dict[str, _Reader] = {}
    for frame in frames:
        found.setdefault(frame.session_id, _Reader(frame.server_label)).read(frame)
    made = [each.conversation() for each in found.values()]
    return [each for each in made if any(isinstance(step, RecordedRequest) for step in each.steps)]


class _Reader:
    """A reader of the frames of one session."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._steps: list[Request | Notification] = []
        self._replies: dict[bytes, tuple[Frame, Reply]] = {}
        self._questions: dict[bytes, Request] = {}
        self._answers: list[tuple[Request, Reply]] = []

    def read(self, frame: Frame) -> None:
        """Take the next frame."""
        match frame.direction, frame.message:
            case Direction.TO_SERVER, Request() | Notification() as said:
                self._steps.append(said)
            case Direction.FROM_SERVER, Result() | Failure() as reply if reply.id is not None:
                self._replies[canonical_id(reply.id)] = (frame, reply)
            case Direction.FROM_SERVER, Request() as question:
                self._questions[canonical_id(question.id)] = question
            case Direction.TO_SERVER, Result() | Failure() as reply if reply.id is not None:
                asked = self._questions.pop(canonical_id(reply.id), None)
                if asked is not None:
                    self._answers.append((asked, reply))

    def conversation(self) -> RecordedConversation:
        """Return the whole of it."""
        legacy = any(
            isinstance(each, Request)
            and each.method == INITIALIZE
            and isinstance(self._replies.get(canonical_id(each.id), (None, None))[1], Result)
            for each in self._steps
        )
        # The probe for the other era, which a server of this one need not understand.
        never = (*_NEVER_ASKED, DISCOVER) if legacy else _NEVER_ASKED
        steps: list[RecordedRequest | Notification] = []
        for each in self._steps:
            if isinstance(each, Notification):
                steps += [each] if each.method != CANCELLED else []
            elif each.method not in never:
                steps += self._asked(each)
        return RecordedConversation(self._server, steps, self._answers)

    def _asked(self, request: Request) -> list[RecordedRequest]:
        answered = self._replies.get(canonical_id(request.id))
        if answered is None:
            return []  # cancelled, or the recording ends before it
        hidden = request.params is not None and MASK.encode() in request.params
        why = "a secret was removed from its params" if hidden else ""
        return [RecordedRequest(request, answered[1], answered[0], why)]


def value_of(reply: Reply) -> dict[str, object]:
    """Return what is compared of an answer."""
    if isinstance(reply, Result):
        return {"result": read_value(reply.result)}
    return {"error": read_value(reply.error)}


def line_of(outcome: CheckedRequest) -> str:
    """Return what came of a request as text, below it a line for each difference."""
    if outcome.skipped:
        return f"skip  {printable(outcome.name)}: {outcome.skipped}"
    if not outcome.differs:
        return f"ok    {printable(outcome.name)}"
    return "\n".join([f"DIFF  {printable(outcome.name)}", *(f"      {x}" for x in outcome.lines)])


def summary(outcomes: Sequence[CheckedRequest]) -> str:
    """Return the numbers as one line."""
    wrong = sum(each.differs for each in outcomes)
    skipped = sum(bool(each.skipped) for each in outcomes)
    more = f", {skipped} skipped" if skipped else ""
    return f"{len(outcomes)} requests: {wrong} with another answer{more}"


def junit(outcomes: Iterable[CheckedRequest], name: str) -> str:
    """Return the outcomes as a JUnit report, a test case for each request."""
    cases = list(outcomes)
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(each.differs for each in cases)),
        "errors": "0",
        "skipped": str(sum(bool(each.skipped) for each in cases)),
        "time": f"{sum(each.seconds for each in cases):.3f}",
    }
    builder = ET.TreeBuilder()
    builder.start("testsuites", counts)
    builder.start("testsuite", {"name": _xml(name), **counts})
    for number, each in enumerate(cases, 1):
        _add_case(builder, number, each)
    builder.end("testsuite")
    builder.end("testsuites")
    report = builder.close()
    ET.indent(report)
    return ET.tostring(report, encoding="unicode")


def _add_case(builder: ET.TreeBuilder, number: int, outcome: CheckedRequest) -> None:
    facts = {
        "classname": _xml(outcome.server or "server"),
        # Numbered: most readers take two of a name for one.
        "name": _xml(f"{number} {outcome.name}"),
        "time": f"{outcome.seconds:.3f}",
    }
    builder.start("testcase", facts)
    if outcome.skipped:
        builder.start("skipped", {"message": outcome.skipped})
        builder.end("skipped")
    elif outcome.differs:
        builder.start("failure", {"type": "difference", "message": _xml(outcome.lines[0])})
        builder.data(_xml("\n".join(outcome.lines)))
        builder.end("failure")
    builder.end("testcase")


def _xml(text: str) -> str:
    """Return a text without characters that XML 1.0 cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
