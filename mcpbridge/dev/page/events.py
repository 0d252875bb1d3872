"""Makes frames of what passes on no channel: refused requests, reloads, failures of a server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from mcpbridge.http.refusals import problem_of
from mcpbridge.http.request import RequestHead
from mcpbridge.rules.access.hosts import shown
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.tape.frame import Direction
from mcpbridge.tape.redaction import Redactor
from mcpbridge.tape.tapped_channel import Sink, Tape
from mcpbridge.telemetry.logs import SERVER, fields_of

_SHOWN = frozenset((
    "call.finished", "child.probed", "child.ready", "child.restarting", "child.spawn_failed",
    "child.stalled", "child.start_held", "child.starting", "child.stderr_suppressed",
    "recording.failed",
    "recording.frames_lost", "serve.gave_up", "server.capabilities_changed", "server.gave_up",
    "server.idle_stopped", "server.reload_failed", "server.reloaded", "server.replace_failed",
    "server.replaced", "server.unusable", "servers.reload_failed", "servers.reloaded",
    "session.evicted", "session.expired", "session.opened", "session.reload_failed",
    "watch.failed",
))  # fmt: skip
"""Records that become frames; starts, ends and stderr of a child come with its channel."""
_CALL = "call.finished"


class PageEvents(logging.Handler):
    """A maker of frames of the direction `meta`, from log records and from refusals."""

    def __init__(self, sink: Sink, numbers: Iterator[int]) -> None:
        """Make it.

        Args:
            sink: Takes the frames.
            numbers: Gives each frame its number.
        """
        super().__init__()
        self._sink = sink
        self._numbers = numbers
        self._tapes: dict[str, Tape] = {}
        """By the name of a server."""
        self._values: frozenset[str] = frozenset()
        self._redactor = Redactor()
        self._label = ""

    def hide(self, values: Iterable[str]) -> None:
        """Count these values as secrets of what is shown from now on."""
        self._values |= frozenset(values)
        self._redactor = Redactor(self._values)

    @contextmanager
    def listening(self, label: str) -> Iterator[None]:
        """Take the records that are logged until the block ends.

        Args:
            label: The name of the server, if there is one; records of several name theirs.
        """
        self._label = label
        logger = logging.getLogger("mcpbridge")
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record if it is one that the page shows."""
        event = str(record.msg)
        if event not in _SHOWN:
            return
        facts = fields_of(record)
        if event == _CALL and "reason" not in facts:
            return  # the call and its answer have passed on a channel
        label = str(facts.pop("server_name", None) or SERVER.get() or self._label)
        self._put(label, event, json.loads(json.dumps(facts, default=str)))

    def refused(self, refusal: Refusal, head: RequestHead | None, client: str | None) -> None:
        """Take a refused request: see `http.refusals.Refused`."""
        facts: dict[str, object] = {"status": refusal.status, "problem": problem_of(refusal)}
        if head is not None:
            facts |= {"method": shown(head.method), "path": shown(head.path)}
            client = head.peer
        self._put("", "request.refused", facts | {"client": client or ""})

    def _put(self, label: str, event: str, facts: Mapping[str, object]) -> None:
        # The event with its fields as text too, for readers that show `text` alone.
        words = (f"{name}={_word(value)}" for name, value in facts.items())
        text = " ".join([event, *words])
        tape = self._tapes.get(label)
        if tape is None:
            tape = self._tapes[label] = Tape(label, [self._sink], (), self._numbers)
        tape.take("", self._redactor, Direction.META, text=text, facts=facts)


def _word(value: object) -> str:
    if isinstance(value, str) and value and not any(each in value for each in ' "='):
        return value
    return json.dumps(value, ensure_ascii=False)
