"""Bearer tokens for a remote server, and how another one is got when the server refuses one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

from anyio import to_thread

log = logging.getLogger("mcpbridge.reverse")

_MOST_TOKEN_BYTES = 1 << 16


class Tokens(Protocol):
    """A source of bearer tokens."""

    @property
    def token(self) -> str | None:
        """The token to send; None: none is sent."""

    async def renew(self, refused: str | None) -> bool:
        """Get another token than the refused one; return whether `token` is another now."""


class FileTokens:
    """The token in a file that another program rewrites."""

    def __init__(self, file: Path, token: str | None) -> None:
        """Make it.

        Args:
            file: The file, which is read again after a 401.
            token: Its token; None: it could not be read.
        """
        self._file = file
        self._token = token

    @property
    def token(self) -> str | None:
        """The token that was read last."""
        return self._token

    async def renew(self, refused: str | None) -> bool:
        """Read the file again, unless another request has: see `Tokens.renew`."""
        if self._token == refused:
            try:
                self._token = await to_thread.run_sync(read_token, self._file)
            except (OSError, ValueError) as error:
                log.warning("connect.token_unreadable", extra={"problem": str(error)})
                return False
            if self._token != refused:
                log.info("connect.token_reread", extra={"file": str(self._file)})
        return self._token != refused


def read_token(file: Path) -> str:
    """Return the token in a file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It has no token.
    """
    with file.open("rb") as opened:
        token = opened.read(_MOST_TOKEN_BYTES).decode("ascii", "replace").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{file} has no token: write one line of visible ASCII characters")
    return token
