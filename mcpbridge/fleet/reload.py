"""Notices that files have changed, however they are saved: in place, by rename, by a link."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import anyio

LOOK_EVERY_S = 0.25

Stamp = tuple[int, int, int] | None
"""Inode, size and time of the last change (ns); None if the file is not there."""


class FileWatch:
    """A watch over files by their paths, each of which may stand for one file after another."""

    def __init__(self, path: Path) -> None:
        """Note the state of the first file as it is now; `others` names further ones."""
        self._path = path
        self._seen: dict[Path, Stamp] = {path: stamp_of(path)}
        self._due = anyio.Event()

    def ask(self) -> None:
        """Report a change, though there may be none."""
        self._due.set()

    def others(self, stamps: Mapping[Path, Stamp]) -> None:
        """Watch these files beside the first one, and no others.

        Args:
            stamps: What each of them was when it was read, so that no change since is missed.
        """
        self._seen = {**stamps, self._path: self._seen[self._path]}

    async def changes(self) -> AsyncIterator[None]:
        """Yield when a file has changed, once all have been the same for two looks.

        An editor may write in steps, or remove the file and put another one in its place. A file
        that is gone has not changed until it is back.
        """
        before = dict(self._seen)
        while True:
            with anyio.move_on_after(LOOK_EVERY_S):
                await self._due.wait()
            found = {path: stamp_of(path) for path in self._seen}
            there = {path: stamp for path, stamp in found.items() if stamp is not None}
            if self._due.is_set():
                self._due = anyio.Event()
            elif found != before or not there.items() - self._seen.items():
                before = found
                continue
            self._seen |= there
            before = found
            yield


def stamp_of(file: Path | int) -> Stamp:
    """Return what tells one state of a file from another; None if it is not there.

    Args:
        file: Its path, or a descriptor of the open file.
    """
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
