"""Access control, which every request passes before it is served: its principal, and its rate.

The principal is kept in the request's head. For a request on the fast path
(`http.server.fast_path`) only `still` is checked: whether the principal of its known head is still
valid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from mcpbridge.http.auth.authenticator import Authenticator, NoAuth
from mcpbridge.http.request import RequestHead
from mcpbridge.http.responses import refusal_of
from mcpbridge.rules.access.header_env import Pair, values_of, with_values
from mcpbridge.rules.access.principals import Principal
from mcpbridge.rules.access.rate_limit import Buckets, RateLimit
from mcpbridge.rules.faults import INVALID_REQUEST, Unavailable, over_quota
from mcpbridge.rules.mcp.admission import Refusal, refuse
from mcpbridge.wire.messages import Message, Request

LOGIN_PATHS = ("/authorize", "/register", "/token")
"""Where clients look for a login if there is no metadata."""
_NO_LOGIN = msgspec.json.encode(
    {
        "error": "invalid_request",
        "error_description": "no login is served here: a bearer token from the operator of this"
        " server is needed in the Authorization header",
    }
)


class AccessControl:
    """The access control for all connections of a listener."""

    def __init__(
        self,
        authenticator: Authenticator | None = None,
        header_env: HeaderEnv | None = None,
        rate: RateLimit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the access control; without arguments it admits every request.

        Args:
            authenticator: Finds the principal of a request; None: all are anonymous.
            header_env: Takes variables for children from headers; None: takes none.
            rate: How many messages one client may send; None: any number.
            clock: Returns monotonic seconds, for the rate.
        """
        self._authenticator = authenticator or NoAuth()
        self._header_env = header_env
        self._buckets = Buckets(rate) if rate is not None else None
        self._clock = clock
        self.asks = not isinstance(self._authenticator, NoAuth)
        """Whether clients must authenticate."""
        self.admits_all = not self.asks and self._buckets is None
        """Whether `admits` neither refuses nor counts: it need not be called."""

    @property
    def documents(self) -> Mapping[str, bytes]:
        """JSON texts that may be fetched without credentials, by path."""
        return self._authenticator.documents

    @property
    def no_login(self) -> bytes | None:
        """The answer to a client that looks for a login at `LOGIN_PATHS`; None if there is one.

        Without metadata clients try the paths that MCP 2025-03-26 gave an authorization server at
        the same origin (Fallbacks for Servers without Metadata Discovery), and there they can read
        errors only in OAuth's form (RFC 6749, 5.2).
        """
        return _NO_LOGIN if self.asks and not self.documents else None

    async def knows(self, head: RequestHead) -> Refusal | None:
        """Authenticate a request for a path outside MCP; return the refusal, None if it passes."""
        found = await self._authenticator.authenticate(head)
        return found if isinstance(found, Refusal) else None

    async def enter(self, head: RequestHead) -> Refusal | None:
        """Authenticate a request; put its principal into its head, or return the refusal."""
        # Variables are read for clients that are known only: values are a part of the principal's
        # key.
        found = await self._authenticator.authenticate(head)
        if self._header_env is not None and isinstance(found, Principal):
            found = self._header_env.with_variables(found, head)
        if isinstance(found, Refusal):
            return found
        head.admit(found)
        return None

    def still(self, principal: Principal) -> bool:
        """Return whether a principal is still valid; see `Authenticator.still`."""
        return self._authenticator.still(principal)

    def admits(self, principal: Principal, content: Message | list[Message]) -> Refusal | None:
        """Return the refusal of messages that are not allowed or over the rate; None: they pass."""
        messages = content if isinstance(content, list) else [content]
        # Scopes before the rate: a refused message must not cost the client one of its messages.
        for message in messages if self.asks else ():
            if isinstance(message, Request):
                refusal = self._authenticator.allows(principal, message.method)
                if refusal is not None:
                    return refusal
        return self.charges(principal, len(messages))

    def charges(self, principal: Principal, count: int = 1) -> Refusal | None:
        """Count `count` messages of a principal; return the refusal if they are over the rate."""
        if self._buckets is None:
            return None
        wait_s = self._buckets.take(principal.quota_key, count, self._clock())
        if not wait_s:
            return None
        fault = over_quota("--rate-limit", str(self._buckets.limit), max(1, -int(-wait_s // 1)))
        return refusal_of(Unavailable(fault), None)


class HeaderEnv:
    """A reader of the headers whose values become variables of children."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs

    def with_variables(self, principal: Principal, head: RequestHead) -> Principal | Refusal:
        """Return the principal with the variables of its request's headers, or a refusal."""
        values = values_of(self._pairs, head.raw)
        if isinstance(values, str):
            return refuse(400, INVALID_REQUEST, values)
        return with_values(principal, values, head.peer)
