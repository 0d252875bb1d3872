"""Notices that a file has changed, however it is saved: in place, by rename, or behind a link."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio

LOOK_EVERY_S = 0.25

Stamp = tuple[int, int, int] | None
"""Inode, size and time of the last change (ns); None if the file is not there."""


class FileWatch:
    """A watch over one file by its path, which may stand for one file after another."""

    def __init__(self, path: Path) -> None:
        """Note the state of the file as it is now."""
        self._path = path
        self._seen = _stamp_of(path)
        self._due = anyio.Event()

    def ask(self) -> None:
        """Report a change, though there may be none."""
        self._due.set()

    async def changes(self) -> AsyncIterator[None]:
        """Yield when the file has changed, once it has been the same for two looks.

        An editor may write in steps, or remove the file and put another one in its place.
        """
        before = self._seen
        while True:
            with anyio.move_on_after(LOOK_EVERY_S):
                await self._due.wait()
            found = _stamp_of(self._path)
            if self._due.is_set():
                self._due = anyio.Event()
            elif found is None or found == self._seen or found != before:
                before = found
                continue
            self._seen = before = found
            yield


def _stamp_of(path: Path) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
