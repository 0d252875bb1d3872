"""Static bearer tokens: of a file that may change, and of the environment.

The file is checked when a request comes, at most once a second, and at SIGHUP. If it cannot be read
or is invalid, the tokens stay as they were: it may be half written. So a token is revoked by a file
without it, and the last one by a file with another token in its place.

Source: RFC 6750, 2.1, 3.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from mcpbridge.http.auth.authenticator import Challenge, bearer_token, challenged
from mcpbridge.http.request import RequestHead
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.access.static_tokens import TokenTable, together, tokens_in
from mcpbridge.runtime.small_file import read_small_file, state_of

log = logging.getLogger("mcpbridge.http")

LOOK_EVERY_S = 1.0
_REALM = 'Bearer realm="mcpbridge"'


class StaticTokens:
    """An `Authenticator` by tokens that the operator has given to clients."""

    documents: Mapping[str, bytes] = {}

    def __init__(
        self,
        file: str | None,
        of_file: TokenTable | None,
        of_variable: TokenTable | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make an authenticator.

        Args:
            file: The file of tokens; None: there is none.
            of_file: The tokens that were in the file at the start.
            of_variable: Tokens that stay valid, whatever is in the file.
            clock: Returns monotonic seconds, for the time between two checks of the file.
        """
        self._file = file
        self._of_variable = of_variable
        self._clock = clock
        self._looked_at = clock()
        # Not the file's state at this moment: it may have changed since `of_file` was read.
        self._seen: object = None
        self._tokens: TokenTable
        self._live: frozenset[bytes]
        self._take(of_file)

    async def run(self) -> None:
        """Do nothing: the file is checked when a request comes."""

    async def authenticate(self, head: RequestHead) -> Principal | Challenge:
        """Return the principal of the request's token, or the refusal."""
        self._look()
        token = bearer_token(head)
        if token is None:
            return challenged(401, "a bearer token is needed (Authorization header)", _REALM)
        found = self._tokens.find(token)
        if found is None:
            return challenged(401, "invalid bearer token", f'{_REALM}, error="invalid_token"')
        return found

    def still(self, principal: Principal) -> bool:
        """Return whether the principal's token is valid at this moment."""
        self._look()
        return principal.credential in self._live

    def allows(self, principal: Principal, method: str) -> Challenge | None:
        """Return None: a static token allows every method."""
        return None

    def reload(self) -> None:
        """Read the file now, if it has changed; log whether it could be read."""
        self._looked_at = self._clock()
        if self._file is None:
            return
        seen = state_of(self._file)
        if seen == self._seen:
            return
        try:
            tokens = read_tokens(self._file)
        except ValueError as error:
            log.error("auth.file_read_failed", extra={"file": self._file, "problem": str(error)})
        # A file that cannot be read keeps the tokens: a half-written one must not lock all clients
        # out.
        else:
            before = self._live
            self._take(tokens)
            if before != self._live:
                log.info("auth.file_read", extra={"tokens": len(tokens.by_digest)})
        # The state from before the reading: a change during it shows at the next look.
        self._seen = seen

    def _look(self) -> None:
        if self._file is not None and self._clock() - self._looked_at >= LOOK_EVERY_S:
            self.reload()

    def _take(self, of_file: TokenTable | None) -> None:
        self._tokens = together(each for each in (of_file, self._of_variable) if each is not None)
        self._live = frozenset(each.credential for each in self._tokens.by_digest.values())


def read_tokens(file: str) -> TokenTable:
    """Read the tokens of a file.

    Raises:
        ValueError: The file cannot be read or is invalid; the text says why and contains nothing
            of the file.
    """
    return tokens_in(read_small_file(file))
