"""A login in a file: read and refreshed by `connect`, written by `login`; its owner alone may read.

Several programs may use one file. The server may accept a refresh token only once, so they refresh
one after the other, under a lock, and each looks first whether another one has done it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import msgspec
from anyio import to_thread

from mcpbridge.reverse.login.oauth_http import LoginFailed, ask_json, oauth_client
from mcpbridge.reverse.session.remote_http import same_origin

log = logging.getLogger("mcpbridge.reverse")

_OTHERS = 0o077
_MOST_BYTES = 256 << 10
_LOCK_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.05


class SavedLogin(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of the file."""

    url: str
    """The MCP server."""
    issuer: str
    token_endpoint: str
    client_id: str
    access_token: str
    client_secret: str | None = None
    refresh_token: str | None = None
    scope: str = ""

    def renewed(self, answer: dict[str, Any]) -> SavedLogin:
        """Return the login after an answer of the token endpoint.

        Raises:
            LoginFailed: The answer has no bearer token.
        """
        token, kind = answer.get("access_token"), str(answer.get("token_type", "bearer"))
        if not isinstance(token, str) or not token.isprintable() or kind.lower() != "bearer":
            raise LoginFailed(f"the token endpoint of {self.issuer} returned no bearer token")
        refresh = answer.get("refresh_token")
        return msgspec.structs.replace(
            self,
            access_token=token,
            refresh_token=refresh if isinstance(refresh, str) else self.refresh_token,
            scope=str(answer.get("scope", self.scope)),
        )


def read_login(file: Path) -> SavedLogin:
    """Return the login in a file.

    Raises:
        OSError: It cannot be read.
        ValueError: Other users may read it, or it has no login.
    """
    with file.open("rb") as opened:
        # Windows has no such bits: there the file is as private as the user's folder.
        if hasattr(os, "geteuid") and os.fstat(opened.fileno()).st_mode & _OTHERS:
            raise ValueError(f"{file} may be read by other users: chmod 600 it")
        text = opened.read(_MOST_BYTES)
    try:
        return msgspec.json.decode(text, type=SavedLogin)
    except msgspec.MsgspecError:
        raise ValueError(f"{file} has no login: run mcpbridge login again") from None


def tokens_of_login(file: Path, place: httpx.URL) -> LoginTokens:
    """Return the tokens of the login in a file.

    Args:
        file: The file.
        place: The address of the server that they are for.

    Raises:
        OSError: The file cannot be read.
        ValueError: Other users may read it, it has no login, or one at another origin.
    """
    login = read_login(file)
    try:
        ours = same_origin(httpx.URL(login.url), place)
    except httpx.InvalidURL:
        ours = False
    if not ours:
        raise ValueError(f"{file} is a login at {login.url}")
    return LoginTokens(file, login)


def write_login(file: Path, login: SavedLogin) -> None:
    """Write a login that its owner alone may read, whole or not at all; raise OSError if not."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        binary = getattr(os, "O_BINARY", 0)
        opened = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | binary, 0o600)
        with os.fdopen(opened, "wb") as writing:
            writing.write(msgspec.json.format(msgspec.json.encode(login)) + b"\n")
            writing.flush()
            os.fsync(writing.fileno())
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


class LoginTokens:
    """The tokens of a saved login: see `session.tokens.Tokens`."""

    def __init__(self, file: Path, login: SavedLogin) -> None:
        """Make it of a file and its content."""
        self._file = file
        self._login = login
        self._renewing = anyio.Lock()

    @property
    def token(self) -> str | None:
        """The access token."""
        return self._login.access_token

    async def renew(self, refused: str | None) -> bool:
        """Refresh the login, unless another request or program has: see `Tokens.renew`."""
        async with self._renewing:
            if self.token != refused:
                return True
            try:
                with _locked(self._file) as lock:
                    await _until_ours(lock)
                    await self._refresh()
            except (OSError, ValueError, LoginFailed) as error:
                log.warning("connect.login_not_renewed", extra={"problem": str(error)})
        return self.token != refused

    async def _refresh(self) -> None:
        found = await to_thread.run_sync(read_login, self._file)
        if found.access_token != self._login.access_token:
            self._login = found
            return
        if found.refresh_token is None:
            raise LoginFailed("the login has ended", f"run mcpbridge login {found.url} again")
        form = {
            "grant_type": "refresh_token",
            "refresh_token": found.refresh_token,
            "client_id": found.client_id,
            "resource": found.url,
        }
        if found.client_secret is not None:
            form["client_secret"] = found.client_secret
        async with oauth_client() as client:
            status, answer = await ask_json(client, "POST", httpx.URL(found.token_endpoint), form)
        if status != 200:
            problem = f"{found.issuer} refused to renew the login ({status} {answer.get('error')})"
            raise LoginFailed(problem, f"run mcpbridge login {found.url} again")
        self._login = found.renewed(answer)
        await to_thread.run_sync(write_login, self._file, self._login)
        log.info("connect.login_renewed", extra={"issuer": found.issuer})


@contextmanager
def _locked(file: Path) -> Iterator[int]:
    """Open the file beside a login that the lock is on; closing it ends the lock."""
    lock = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield lock
    finally:
        os.close(lock)


async def _until_ours(lock: int) -> None:
    """Wait until the lock is ours; raise LoginFailed if another program keeps it."""
    try:
        import fcntl
    except ImportError:  # on Windows, where the last program to refresh wins
        return
    with anyio.move_on_after(_LOCK_WITHIN_S):
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            await anyio.sleep(_LOOK_EVERY_S)
    raise LoginFailed("another program keeps the login locked")
