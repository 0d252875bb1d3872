"""Log records on stderr: one JSON object a line, or a form for people on a terminal.

A record is an event name and fields: `log.info("child.exited", extra={"code": 1})`. Writing is
done by a thread of its own behind a bounded queue: a log pipe that nobody reads must not stop the
event loop, so records are dropped then, and their number is told when there is room again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator

from mcpbridge.settings import setting

GROUP = "Logs"
_QUEUE_RECORDS = 10_000
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@dataclasses.dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged and in which form."""

    level: str = setting(
        "info",
        "--log-level",
        "Least severe record to write.",
        group=GROUP,
        choices=("debug", "info", "warning", "error"),
    )
    form: str = setting(
        "auto",
        "--log-format",
        "One JSON object a line, text for people, or by whether stderr is a terminal.",
        group=GROUP,
        choices=("auto", "json", "text"),
    )


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: timestamp, level, logger, event, then its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line without its end."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        entry: dict[str, object] = {
            "timestamp": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """A record as one line for a person: time, level, event, `field=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).astimezone()
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        text = f"{when:%H:%M:%S} {record.levelname.lower():<7} {record.getMessage()}{fields}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _DroppingHandler(logging.handlers.QueueHandler):
    """Puts records on the queue, or counts them where it is full."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self.dropped:
                notice = logging.makeLogRecord(
                    {
                        "name": __name__,
                        "levelno": logging.WARNING,
                        "levelname": "WARNING",
                        "msg": "log.dropped",
                        "records": self.dropped,
                    }
                )
                self.queue.put_nowait(notice)
                self.dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


@contextlib.contextmanager
def logging_to_stderr(settings: LogSettings) -> Iterator[None]:
    """Log to stderr until the block ends; what is queued then is written first."""
    target = logging.StreamHandler(sys.stderr)
    as_text = settings.form == "text" or (settings.form == "auto" and sys.stderr.isatty())
    target.setFormatter(TextFormatter() if as_text else JsonFormatter())
    # A closed or full stderr is nobody's error but the reader's; never raise into the program.
    logging.raiseExceptions = False
    records: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE_RECORDS)
    handler = _DroppingHandler(records)
    listener = logging.handlers.QueueListener(records, target)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    # The server library speaks of its own start and end; ours are the ones that count.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        listener.stop()


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _shown(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or "\n" in text or not text else text
