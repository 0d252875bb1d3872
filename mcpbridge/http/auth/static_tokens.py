"""Static bearer tokens: of a file that may change, and of the environment.

The file is looked at when a request comes, once a second at most, and at SIGHUP. One that cannot
be read any more, or has nothing good in it, leaves the tokens as they were: it may be half written.
So a token is withdrawn by a file without it, and all of them by another one in their place.

Source: RFC 6750, 2.1, 3.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Mapping

from mcpbridge.http.auth.authenticator import Challenge, bearer_token, challenged
from mcpbridge.http.request import RequestHead
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.access.static_tokens import Tokens, together, tokens_in

log = logging.getLogger("mcpbridge.http")

MAX_FILE_BYTES = 1 << 20
LOOK_EVERY_S = 1.0
_REALM = 'Bearer realm="mcpbridge"'


class StaticTokens:
    """Knows clients by tokens that the operator has given them; see `http.auth.Authenticator`."""

    documents: Mapping[str, bytes] = {}

    def __init__(
        self,
        file: str | None,
        of_file: Tokens | None,
        of_variable: Tokens | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it.

        Args:
            file: Where more tokens are; None: nowhere.
            of_file: What was in it when the program began.
            of_variable: Those that stay, whatever is in the file.
            clock: Seconds, for the time between two looks.
        """
        self._file = file
        self._of_variable = of_variable
        self._clock = clock
        self._looked_at = clock()
        # Not the state of the file: it may have changed since it was read.
        self._seen: object = None
        self._tokens: Tokens
        self._live: frozenset[bytes]
        self._take(of_file)

    async def run(self) -> None:
        """Do nothing: the file is looked at when somebody asks."""

    async def authenticate(self, head: RequestHead) -> Principal | Challenge:
        """Whose token the request carries."""
        self._look()
        token = bearer_token(head)
        if token is None:
            return challenged(401, "a bearer token is needed (Authorization header)", _REALM)
        found = self._tokens.find(token)
        if found is None:
            return challenged(
                401, "the bearer token is not valid", f'{_REALM}, error="invalid_token"'
            )
        return found

    def still(self, principal: Principal) -> bool:
        """Whether its token is one of them at this moment."""
        self._look()
        return principal.credential in self._live

    def allows(self, principal: Principal, method: str) -> Challenge | None:
        """A token of this kind is for everything."""
        return None

    def reload(self) -> None:
        """Look at the file now."""
        self._looked_at = self._clock()
        if self._file is None:
            return
        seen = _state_of(self._file)
        if seen == self._seen:
            return
        try:
            tokens = read_tokens(self._file)
        except ValueError as error:
            log.error("auth.file_read_failed", extra={"file": self._file, "problem": str(error)})
        else:
            before = self._live
            self._take(tokens)
            if before != self._live:
                log.info("auth.file_read", extra={"tokens": len(tokens.by_digest)})
        self._seen = seen

    def _look(self) -> None:
        if self._file is not None and self._clock() - self._looked_at >= LOOK_EVERY_S:
            self.reload()

    def _take(self, of_file: Tokens | None) -> None:
        self._tokens = together(each for each in (of_file, self._of_variable) if each is not None)
        self._live = frozenset(each.credential for each in self._tokens.by_digest.values())


def read_tokens(file: str) -> Tokens:
    """The tokens of a file.

    Raises:
        ValueError: It cannot be read, or what is in it is not what it must be; the text says why
            and holds nothing of what is in it.
    """
    try:
        # Nonblocking: a pipe without a writer would hold up everything.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("it is no file")
            data = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(error.strerror or "it cannot be read") from None
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    try:
        return tokens_in(data.decode())
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8") from None


def _state_of(file: str) -> object:
    try:
        found = os.stat(file)
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size
