"""The login that an operator keeps for the address of a server elsewhere, if there is one.

`mcpbridge login` may write it at any time: also while the server is served and answers 401.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import anyio
import httpx
from anyio import to_thread

from mcpbridge.reverse.session.tokens import Tokens

log = logging.getLogger("mcpbridge.reverse")

_AGAIN_S = 60.0
"""Seconds until a login that failed is tried again, unless its file has changed."""
_State = tuple[int, int] | None


class KeptLogin:
    """The tokens of the login at an address: see `session.tokens.Tokens`."""

    def __init__(self, file: Path, place: httpx.URL) -> None:
        """Read the login, if there is one.

        Args:
            file: Where `mcpbridge login` keeps it.
            place: The address of the server; a login at another origin is not used.
        """
        self._file = file
        self._place = place
        self._renewing = anyio.Lock()
        self._failed: _State = None
        """The state of the file when a renewal failed last."""
        self._again_at = -math.inf
        """The event loop's time from which the same file is tried again."""
        self._tokens = self._read()

    @property
    def token(self) -> str | None:
        """The access token; None if there is no login."""
        return self._tokens.token if self._tokens is not None else None

    async def renew(self, refused: str | None) -> bool:
        """Read the login, or refresh it: see `Tokens.renew`.

        A server that refuses a login is asked again and again, so a login that has failed is not
        tried each time.
        """
        async with self._renewing:
            if self.token != refused:
                return True
            state, now = self._state(), anyio.current_time()
            if state == self._failed and now < self._again_at:
                return False
            if self._tokens is None:
                self._tokens = await to_thread.run_sync(self._read)
                renewed = self._tokens is not None
            else:
                renewed = await self._tokens.renew(refused)
            if not renewed:
                self._failed, self._again_at = state, now + _AGAIN_S
            return renewed

    def _state(self) -> _State:
        try:
            found = self._file.stat()
        except OSError:
            return None
        # `chmod` mends a file that others may read.
        return found.st_ino, found.st_ctime_ns

    def _read(self) -> Tokens | None:
        if self._state() is None:
            return None
        # With a login alone: most servers elsewhere need none.
        from mcpbridge.reverse.login.saved_login import tokens_of_login

        try:
            found = tokens_of_login(self._file, self._place)
        except (OSError, ValueError) as error:
            log.warning("connect.login_unusable", extra={"problem": str(error)})
            return None
        log.info("connect.login_used", extra={"url": self._name, "file": str(self._file)})
        return found

    @property
    def _name(self) -> str:
        return str(self._place.copy_with(query=None, fragment=None))
