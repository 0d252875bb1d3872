"""Small files that an operator may replace while the program runs: tokens, keys."""

from __future__ import annotations

import os
import stat

MAX_FILE_BYTES = 1 << 20
_FLAGS = os.O_RDONLY
for _name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"):  # Windows has the last one alone
    _FLAGS |= getattr(os, _name, 0)


def read_small_file(file: str) -> str:
    """Return the text of a file.

    Raises:
        ValueError: It cannot be read, is not a regular file, is larger than `MAX_FILE_BYTES`, or is
            not text; the text says why and contains nothing of the file.
    """
    try:
        # Non-blocking: to open a pipe without a writer would block the event loop.
        descriptor = os.open(file, _FLAGS)
        with open(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("it is not a regular file")
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(error.strerror or "it cannot be read") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None


def state_of(file: str) -> object:
    """Return what differs if a file was replaced or changed, or cannot be looked at."""
    try:
        found = os.stat(file)
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size
