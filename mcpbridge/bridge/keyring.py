"""The operator's keys while the program runs, and the file that they may be read from again.

Kubernetes replaces the files of a mounted Secret without a signal, so the file is looked at every
few seconds. If it cannot be read or is invalid, the keys stay as they were: it may be half written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import anyio

from mcpbridge.rules.access.state_keys import StateKeys, state_keys
from mcpbridge.runtime.small_file import read_small_file, state_of

log = logging.getLogger("mcpbridge.bridge")

LOOK_EVERY_S = 10.0


class Keyring:
    """The keys of one server; a source of those for each use."""

    def __init__(self, current: Callable[[], StateKeys]) -> None:
        self._current = current

    def keys_for(self, label: bytes) -> Callable[[], Sequence[bytes]]:
        """Return a function that returns the keys of one use, the one that writes first.

        Args:
            label: The use: one of those in `rules.access.state_keys`.
        """
        current = self._current
        of, derived = current(), current().derived(label)

        def keys() -> Sequence[bytes]:
            nonlocal of, derived
            now = current()
            if now is not of:
                of, derived = now, now.derived(label)
            return derived

        return keys

    def of_server(self, name: str) -> Keyring:
        """Return the keyring of one of several servers."""
        current = self._current
        before, own = current(), current().of_server(name)

        def of_this() -> StateKeys:
            nonlocal before, own
            now = current()
            if now is not before:
                before, own = now, now.of_server(name)
            return own

        return Keyring(of_this)


class KeyFile:
    """A file of keys, read again when it changes; owned by `app.lifecycle`."""

    def __init__(self, file: str, keys: StateKeys) -> None:
        """Make the object for a file that was read.

        Args:
            file: Its path.
            keys: What was read at the start.
        """
        self._file = file
        self._keys = keys
        # Not the file's state at this moment: it may have changed since it was read.
        self._seen: object = None

    def current(self) -> StateKeys:
        """Return the keys that were read last."""
        return self._keys

    async def run(self) -> None:
        """Look at the file every `LOOK_EVERY_S` until cancelled."""
        while True:
            self.reload()
            await anyio.sleep(LOOK_EVERY_S)

    def reload(self) -> None:
        """Read the file now, if it has changed; log whether it could be read."""
        seen = state_of(self._file)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            keys = state_keys(read_small_file(self._file))
        except ValueError as error:
            log.error("keys.file_read_failed", extra={"file": self._file, "problem": str(error)})
            return
        if keys != self._keys:
            self._keys = keys
            log.info("keys.file_read", extra={"keys": len(keys.roots)})
