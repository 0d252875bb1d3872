"""Writes log records to stderr: one JSON object per line, or text for a terminal.

A record is an event name and fields: `log.info("child.exited", extra={"code": 1})`. A separate
thread writes them from a bounded queue, since a log pipe without a reader must not block the event
loop. If the queue is full, records are dropped, and `log.dropped` reports their number when there
is room. Nor may the pipe delay the end of the program: what cannot be written within a second is
lost.

The thread writes to descriptor 2 and not to `sys.stderr`: a blocked writer would hold the lock of
`sys.stderr`, which the interpreter needs in order to exit.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol

from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.telemetry.tracer import CURRENT

GROUP = "Logs"
SERVER: ContextVar[str | None] = ContextVar("SERVER", default=None)
"""The name of the server that a record is about, if the process has several."""
_COLORS = {logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31", logging.INFO: "32"}
"""Colors of the levels on a terminal: ECMA-48, SGR."""
_INDENT = " " * 17
"""As wide as time and level."""
_QUEUE_RECORDS = 10_000
_FLUSH_S = 1.0
_STDERR = 2
_ROOM_EVERY_S = 0.05
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogSettings(SettingsSection, frozen=True):
    """The level and form of the log."""

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
        "One JSON object per line, or text for people; `auto`: text if stderr is a terminal.",
        group=GROUP,
        choices=("auto", "json", "text"),
    )
    color: str = setting(
        "auto",
        "--log-color",
        "Colours in logs as text; `auto`: on a terminal.",
        group=GROUP,
        choices=("auto", "always", "never"),
    )
    calls: bool = setting(
        False,
        "--log-calls",
        "Log each finished call at level info; by default at level debug.",
        group=GROUP,
        unit=Unit.SWITCH,
    )


class JsonFormatter(logging.Formatter):
    """A formatter of records as JSON objects: timestamp, level, logger, event, then fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line without a line end."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        entry: dict[str, object] = {
            "timestamp": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return _json(entry)


class TextFormatter(logging.Formatter):
    """A formatter for people: time, level, event, `field=value`; multi-line texts below."""

    def __init__(self, *, colored: bool = False) -> None:
        super().__init__()
        self._colored = colored

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).astimezone()
        level, event = f"{record.levelname.lower():<7}", record.getMessage()
        if self._colored:
            level = f"\x1b[{_COLORS.get(record.levelno, '2')}m{level}\x1b[0m"
            event = f"\x1b[1m{event}\x1b[0m"
        words, below = [f"{when:%H:%M:%S}", level, event], []
        for name, value in fields_of(record).items():
            lines = _lines_of(value)
            if lines is None:
                words.append(f"{name}={_shown(value)}")
            elif lines:
                below.append(f"{_INDENT}{name}:")
                below += [f"{_INDENT}  {printable(each)}" for each in lines]
        if record.exc_info:
            below += map(printable, self.formatException(record.exc_info).splitlines())
        return "\n".join([" ".join(words), *below])


class TextForm(Protocol):
    """A maker of formatters for logs as text."""

    def __call__(self, *, colored: bool) -> logging.Formatter:
        """Return a formatter."""


class _DroppingHandler(logging.Handler):
    """A handler that puts records on the queue, or counts them if it is full.

    That of `logging.handlers` would be imported with `pickle` and sockets, 0.6 MiB.
    """

    def __init__(self, records: queue.Queue[logging.LogRecord | None]) -> None:
        super().__init__()
        self._records = records
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record for the writer."""
        # Here and not in the writer, whose thread does not have the context of this task.
        trace = CURRENT.get()
        if trace is not None and "trace_id" not in vars(record):
            record.trace_id, record.span_id = trace
        server_name = SERVER.get()
        if server_name is not None and "server_name" not in vars(record):
            record.server_name = server_name
        # Never `put`: the event loop must not wait for the thread, nor the thread for the pipe.
        try:
            if self._dropped:
                self._records.put_nowait(_dropped_notice(self._dropped))
                self._dropped = 0
            self._records.put_nowait(record)
        except queue.Full:
            self._dropped += 1


class _Stderr:
    """A text stream over descriptor 2 that blocks in the kernel and holds no lock."""

    def write(self, text: str) -> None:
        """Write the whole text.

        Raises:
            OSError: The reader is gone, or there is no room.
        """
        rest = memoryview(text.encode("utf-8", "backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(_STDERR, rest) :]
            except BlockingIOError:
                # Another process that shares the pipe has made it non-blocking; that must stay.
                time.sleep(_ROOM_EVERY_S)

    def flush(self) -> None:
        """Do nothing, since nothing is buffered."""


class _Writer(logging.StreamHandler[_Stderr]):
    """A writer of records in a separate thread, from `start` to `stop`."""

    def __init__(self, records: queue.Queue[logging.LogRecord | None]) -> None:
        super().__init__(_Stderr())
        self._records = records
        self._thread = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._lost = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued, for at most one second; a reader may have stopped reading."""
        until = time.monotonic() + _FLUSH_S
        with contextlib.suppress(queue.Full):
            self._records.put(None, timeout=_FLUSH_S)
        # A daemon: if a pipe without a reader blocks it, the interpreter ends all the same.
        self._thread.join(max(0.0, until - time.monotonic()))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Count a record that could not be written: a full disk, or no reader."""
        self._lost += 1

    def _write(self) -> None:
        while (record := self._records.get()) is not None:
            lost = self._lost
            # Not `handle`: no other thread writes, and the interpreter needs the lock at its exit.
            self.emit(record)
            if lost and self._lost == lost:
                # Writing works again.
                self._lost = 0
                self.emit(_dropped_notice(lost))


@contextlib.contextmanager
def logging_to_stderr(settings: LogSettings, text: TextForm | None = None) -> Iterator[None]:
    """Log to stderr until the block ends, then write the queued records.

    Whatever happens to stderr, logging neither raises into the program nor blocks it.

    Args:
        settings: The level and form.
        text: Makes the formatter of logs as text; if that is a filter too, it chooses what is
            shown. None: `TextFormatter`.
    """
    records: queue.Queue[logging.LogRecord | None] = queue.Queue(_QUEUE_RECORDS)
    handler = _DroppingHandler(records)
    handler.addFilter(_is_written)
    writer = _Writer(records)
    formatter = formatter_of(settings, text)
    writer.setFormatter(formatter)
    if isinstance(formatter, logging.Filter):
        handler.addFilter(formatter)
    # Else a record that cannot be formatted prints a traceback to the stderr of the program.
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    # Uvicorn logs its start and end too; only those of the bridge matter.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    writer.start()
    try:
        yield
    finally:
        # In this order: a record that comes now has no thread that would write it.
        root.removeHandler(handler)
        writer.stop()


@contextlib.contextmanager
def hearing(handler: logging.Handler, *names: str) -> Iterator[None]:
    """Give a handler every record of these loggers until the block ends.

    `--log-level` says what is written to stderr, and not what is recorded.
    """
    loggers = [logging.getLogger(name) for name in names]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for each in loggers:
            each.removeHandler(handler)
            if not each.handlers:
                each.setLevel(logging.NOTSET)


def _is_written(record: logging.LogRecord) -> bool:
    # A logger that is heard at every level hands on all of its records.
    return record.levelno >= logging.getLogger().level


def is_json(form: str) -> bool:
    """Return whether a form of logs means JSON for this stderr."""
    return form == "json" or (form != "text" and not os.isatty(_STDERR))


def start_error(problem: str) -> str:
    """Return the record of a program with invalid settings, as one line of JSON."""
    record = logging.makeLogRecord(
        {
            "name": "mcpbridge.app",
            "levelno": logging.ERROR,
            "levelname": "ERROR",
            "msg": "serve.failed",
            "problem": problem,
        }
    )
    return JsonFormatter().format(record)


def formatter_of(settings: LogSettings, text: TextForm | None = None) -> logging.Formatter:
    """Return the formatter that the settings, or the terminal, ask for."""
    if is_json(settings.form):
        return JsonFormatter()
    colored = settings.color == "always" or (settings.color == "auto" and os.isatty(_STDERR))
    return (text or TextFormatter)(colored=colored)


def toggle_debug(settings: LogSettings) -> str:
    """Log everything, or again by the settings; return the new level."""
    root = logging.getLogger()
    root.setLevel(settings.level.upper() if root.level == logging.DEBUG else logging.DEBUG)
    return logging.getLevelName(root.level).lower()


def _dropped_notice(count: int) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": __name__,
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "log.dropped",
            "records": count,
        }
    )


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of a record beside those that each record has."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _lines_of(value: object) -> list[str] | None:
    """Return the lines of a value that takes more than one word; None if one word shows it."""
    if isinstance(value, str):
        return value.splitlines() if "\n" in value else None
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return [line for each in value for line in each.splitlines()]
    return None


def _shown(value: object) -> str:
    """Return a value as one word, quoted if it has several; a value that is not a text as JSON."""
    if not isinstance(value, str) or not value.isprintable():
        return printable(_json(value))
    plain = value and not any(each in value for each in ' "=')
    return value if plain else _quoted(value)


def _quoted(text: str) -> str:
    # A text with quotes stays readable in the other kind; no program reads this form back.
    quote = "'" if '"' in text and "'" not in text else '"'
    return f"{quote}{text}{quote}"


def printable(text: str) -> str:
    """Escape non-printable characters: a server's output must not control the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in text)


def _json(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
