"""Writes what passes to a file of one JSON object a line, and reads such files.

    {"session_id": "5f0c-1", "server_label": "demo", "seq": 7, "ts": "2026-11-29T12:00:00.000000Z",
     "direction": "c2s", "transport": "stdio", "raw": {"jsonrpc": "2.0", …}}

`raw` is the message as it passed but for secrets; `text` is a line that is not a message, or the
name of an event. What no other program writes stands under `mcpbridge`. The first line of each file
describes the recording. A thread redacts and writes, so that the event loop never waits for a disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import stat
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from mcpbridge import __version__
from mcpbridge.errors import BridgeError, ConfigError, WireError
from mcpbridge.process.spec import shown
from mcpbridge.tape.frame import Direction, Frame, bytes_of, shortened
from mcpbridge.tape.redaction import Redactor
from mcpbridge.wire.messages import Message, decode, encode

log = logging.getLogger("mcpbridge.tape")

_MORE_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""The second one is for Windows, which would write two bytes for each line end."""
FORMAT = 1
TRANSPORT = "stdio"
HEADER = "recording"
"""The event of the first line."""
LOST = "frames_lost"
"""The event in place of frames that could not be written."""
FLUSH_S = 0.05
"""Seconds between two writes."""
LEAST_BYTES = 1 << 16
"""Least size of a file at which another one is begun."""
QUEUED_BYTES = 1 << 26
"""Bytes that wait to be written; more are lost, and counted."""
CUT_HEAD = 1 << 10
"""What is kept of a message that is longer than a whole file may be."""
MOST_LINE_BYTES = 1 << 27
_AGAIN_S = 1.0
"""Seconds after which writing is tried again, as on a full disk."""
_LAST_S = 5.0
"""Seconds to write what is queued at the end."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Recorder:
    """A writer of frames to a file, within `open`; `put` may be called in any thread."""

    def __init__(
        self, path: Path, most_bytes: int, command: Sequence[str], *, is_redacted: bool = True
    ) -> None:
        """Make a recorder.

        Args:
            path: The file; at the limit it is renamed to the same name with `.1` at its end.
            most_bytes: The limit of one file.
            command: The server's command, which the first line names without secrets.
            is_redacted: Whether secrets are removed; the first line says so.
        """
        self._is_redacted = is_redacted
        self._path = path
        self._most_bytes = max(most_bytes, LEAST_BYTES)
        self._command = command
        self._queue: deque[tuple[Frame, Redactor | None]] = deque()
        self._queued = 0
        self._lost = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._fd = -1
        self._size = 0
        self._failing = False

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Write until the block ends, then what is queued.

        Raises:
            ConfigError: The file cannot be made, or is there and is not a recording.
        """
        try:
            self._fd = self._new_file()
        except OSError as error:
            raise ConfigError(
                "--record", "", f"cannot write {self._path}: {error.strerror}"
            ) from error
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._wake.set()
            self._thread.join(_LAST_S)
            if not self._thread.is_alive():
                # Else it may be about to write, to whatever has the descriptor by then.
                os.close(self._fd)

    def put(self, frame: Frame, redactor: Redactor | None) -> None:
        """Queue a frame to be written within 100 ms; `redactor` removes its secrets."""
        if not self._is_redacted:
            redactor = None
        size = bytes_of(frame)
        with self._lock:
            if self._queued + size > QUEUED_BYTES and self._queue:
                self._lost += 1
                return
            self._queue.append((frame, redactor))
            self._queued += size
        if not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        while not self._ending.is_set():
            self._wake.wait()
            self._wake.clear()
            self._write_queued()
            self._ending.wait(FLUSH_S)
        self._write_queued()

    def _write_queued(self) -> None:
        while self._queue or self._lost:
            with self._lock:
                frame, redactor = self._queue.popleft() if self._queue else (None, None)
                lost, self._lost = self._lost, 0
                self._queued -= bytes_of(frame) if frame is not None else 0
            if lost:
                self._write_lost(lost)
            if frame is not None:
                self._write(frame, redactor)
            if self._failing:
                if self._ending.is_set() and not self._queue:
                    return
                self._ending.wait(_AGAIN_S)

    def _write_lost(self, lost: int) -> None:
        if self._append(_meta(_now(), LOST, {"frames": lost})):
            log.warning("recording.frames_lost", extra={"frames": lost, "file": str(self._path)})
        else:
            self._count_lost(lost)

    def _write(self, frame: Frame, redactor: Redactor | None) -> None:
        frame = shortened(frame, self._most_bytes // 2, CUT_HEAD)
        if not self._append(line_of(redacted(frame, redactor))):
            self._count_lost(1)

    def _count_lost(self, frames: int) -> None:
        """Remember lost frames until the file can be written again."""
        with self._lock:
            self._lost += frames

    def _append(self, line: bytes) -> bool:
        """Write a line, to another file if this one is full; return whether that was possible."""
        try:
            if self._size + len(line) > self._most_bytes:
                full, self._fd = self._fd, self._new_file()
                os.close(full)
            _write_all(self._fd, line)
        except (OSError, ConfigError) as error:
            if not self._failing:
                self._failing = True
                extra = {"file": str(self._path), "problem": str(error)}
                log.error("recording.failed", extra=extra)
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            return False
        self._failing = False
        self._size += len(line)
        return True

    def _new_file(self) -> int:
        """Begin a file, after the one that is there was renamed; return its descriptor."""
        _move_away(self._path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | _MORE_FLAGS
        fd = os.open(self._path, flags, 0o600)
        facts = {
            "format": FORMAT,
            "version": __version__,
            "python": platform.python_version(),
            "command": shown(self._command),
            "redacted": self._is_redacted,
        }
        line = _meta(_now(), HEADER, facts)
        try:
            _write_all(fd, line)
        except BaseException:
            os.close(fd)
            raise
        self._size = len(line)
        return fd


class Recording(msgspec.Struct, frozen=True):
    """What a file holds."""

    facts: dict[str, Any]
    """Of the first line: format, version, command."""
    frames: list[Frame]
    torn: bool
    """Whether the last line was incomplete, as after a kill."""


class _Line(msgspec.Struct):
    session_id: str
    seq: int
    ts: str
    direction: Direction
    server_label: str = ""
    raw: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | None = None
    mcpbridge: dict[str, Any] = {}


_line_decoder = msgspec.json.Decoder(_Line)


def read_recording(path: Path) -> Recording:
    """Read a file; one file may hold several, one after another.

    Raises:
        ConfigError: It cannot be read, or a line before the last one is not of a recording.
    """
    frames: list[Frame] = []
    facts: dict[str, Any] | None = None
    torn = False
    try:
        with path.open("rb") as file:
            for number, line in _lines(file, path):
                try:
                    found, own = _understood(line)
                except (msgspec.MsgspecError, BridgeError, ValueError, RecursionError) as error:
                    if facts is None or line.endswith(b"\n"):
                        raise _not_recorded(path, number, str(error)) from error
                    torn = True
                    break
                if found.direction is Direction.META and found.text == HEADER:
                    facts = facts or own
                elif facts is None:
                    raise _not_recorded(path, number, "the first line describes no recording")
                frames.append(found)
    except OSError as error:
        raise ConfigError(str(path), "", error.strerror or str(error)) from error
    if facts is None:
        raise _not_recorded(path, 1, "the file is empty")
    if facts.get("format") != FORMAT:
        problem = f"format {facts.get('format')!r} is unknown (expected {FORMAT})"
        raise _not_recorded(path, 1, problem)
    return Recording(facts, frames, torn)


def replace_answers(path: Path, answers: Mapping[int, Message]) -> None:
    """Write other messages into the frames of a recording, which stay as they are otherwise.

    Args:
        path: The file.
        answers: The messages, by the index of their frames in `Recording.frames`.

    Raises:
        ConfigError: The file cannot be written.
    """
    beside = path.with_name(f"{path.name}~")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _MORE_FLAGS | getattr(os, "O_NOFOLLOW", 0)
        with path.open("rb") as file, os.fdopen(os.open(beside, flags, 0o600), "wb") as written:
            for number, line in _lines(file, path):
                message = answers.get(number - 1)
                if message is not None:
                    frame, facts = _understood(line)
                    line = _line(msgspec.structs.replace(frame, message=message), facts or None)
                written.write(line)
        os.replace(beside, path)
    except OSError as error:
        raise ConfigError(str(path), "", error.strerror or str(error)) from error


def frames_of(recording: Recording, path: Path, server: str | None) -> list[Frame]:
    """Return the frames of one server.

    Args:
        recording: What the file holds.
        path: The file, for the error.
        server: The server's label; None: the only one.

    Raises:
        ConfigError: The recording has several servers and none is named, or not this one.
    """
    labels = sorted({each.server_label for each in recording.frames} - {""})
    if server is None and len(labels) <= 1:
        return recording.frames
    if server is None:
        problem = f"has several servers: {', '.join(labels)}"
        raise ConfigError(str(path), "", problem, f"name one: --server {labels[0]}")
    if server not in labels:
        problem = f"has no server {server!r} (it has {', '.join(labels) or 'none'})"
        raise ConfigError(str(path), "", problem)
    return [each for each in recording.frames if each.server_label in ("", server)]


def redacted(frame: Frame, redactor: Redactor | None) -> Frame:
    """Return a frame without secrets; None: as it is."""
    if redactor is None:
        return frame
    message = redactor.message(frame.message) if frame.message is not None else None
    text = redactor.text(frame.text) if frame.text is not None else None
    facts = {name: _shown(value, redactor) for name, value in frame.facts.items()}
    return msgspec.structs.replace(frame, message=message, text=text, facts=facts)


def line_of(frame: Frame) -> bytes:
    """Return the line of a frame, with its line end."""
    size = {"size": frame.size} if frame.size is not None else {}
    return _line(frame, {**size, **frame.facts} or None)


def _shown(value: object, redactor: Redactor) -> object:
    if isinstance(value, str):
        return redactor.text(value)
    return msgspec.Raw(redactor.payload(msgspec.json.encode(value)))


def frame_of(line: bytes) -> Frame:
    """Return the frame of a line without its end.

    Raises:
        WireError: Not a line of a recording.
    """
    try:
        return _understood(line + b"\n")[0]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(f"not a line of a recording: {error}") from error


def time_of(ts_ns: int) -> str:
    """Return a time of day as RFC 3339 writes it, in UTC, with microseconds."""
    moment = _EPOCH + timedelta(microseconds=ts_ns // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _line(frame: Frame, facts: dict[str, object] | None) -> bytes:
    head = msgspec.json.encode(
        {
            "session_id": frame.session_id,
            "server_label": frame.server_label,
            "seq": frame.seq,
            "ts": time_of(frame.ts_ns),
            "direction": frame.direction,
            "transport": TRANSPORT,
            **({"text": frame.text} if frame.text is not None else {}),
            **({"mcpbridge": facts} if facts is not None else {}),
        }
    )
    if frame.message is None:
        return head + b"\n"
    # Not encoded again: its bytes are what passed.
    return b'%b,"raw":%b}\n' % (head[:-1], encode(frame.message))


def _meta(ts_ns: int, event: str, facts: dict[str, object]) -> bytes:
    return _line(Frame("", "", 0, ts_ns, Direction.META, text=event), facts)


def _now() -> int:
    return int((datetime.now(UTC) - _EPOCH) / timedelta(microseconds=1)) * 1000


def _lines(file: Any, path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MOST_LINE_BYTES):
        number += 1
        if len(line) == MOST_LINE_BYTES and not line.endswith(b"\n"):
            raise _not_recorded(path, number, f"longer than {MOST_LINE_BYTES >> 20} MiB")
        yield number, line


def _understood(line: bytes) -> tuple[Frame, dict[str, Any]]:
    if not line.endswith(b"\n"):
        raise WireError("the line does not end")
    found = _line_decoder.decode(line)
    message = decode(bytes(found.raw)) if isinstance(found.raw, msgspec.Raw) else None
    ts_ns = int((datetime.fromisoformat(found.ts) - _EPOCH) / timedelta(microseconds=1)) * 1000
    size = found.mcpbridge.get("size")
    frame = Frame(
        found.session_id,
        found.server_label,
        found.seq,
        ts_ns,
        found.direction,
        message,
        found.text,
        size if isinstance(size, int) else None,
        {name: value for name, value in found.mcpbridge.items() if name != "size"},
    )
    return frame, found.mcpbridge


def _not_recorded(path: Path, number: int, problem: str) -> ConfigError:
    remedy = "give a file of the form that docs/recording.md describes"
    return ConfigError(str(path), f"line {number}", f"not a recording: {problem}", remedy)


def _older(path: Path) -> Path:
    return Path(f"{path}.1")


def _move_away(path: Path) -> None:
    """Rename an earlier recording; remove an empty file; refuse to replace any other."""
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(facts.st_mode):
        raise ConfigError("--record", "", f"{path} is not a regular file")
    if facts.st_size == 0:
        path.unlink()
        return
    with path.open("rb") as file:
        first = file.readline(LEAST_BYTES)
    try:
        found, _ = _understood(first)
        is_ours = found.text == HEADER
    except (msgspec.MsgspecError, BridgeError, ValueError):
        is_ours = False
    if not is_ours:
        remedy = "name another file, or remove it"
        raise ConfigError("--record", "", f"{path} is there and is not a recording", remedy)
    os.replace(path, _older(path))


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
