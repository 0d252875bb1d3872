"""Authentication: the credentials in a request's head become a principal, or a refusal.

An `Authenticator` is called at two moments, with different costs:

- `authenticate` for each HTTP request; it may wait (for an authorization server's keys). A
  connection keeps the principal for further requests under the same head.
- `still` before each further call under such a head, and about once a second for each open stream;
  it must cost no more than a comparison or two. If it returns False, the call goes the ordinary
  path, where `authenticate` says why, and the stream ends.

`allows` is called for each JSON-RPC request, when its method is known. `FirstOf` combines several
authenticators. To add a new kind, implement the protocol and make it in `app.build`.

A refusal carries `Refusal.challenge`, the value of `WWW-Authenticate`. Neither it nor the text
contains anything that a client sent, nor the digits of a status: deployed clients take 401 and 403
anywhere in a body for a request to log in.

Source: RFC 9110, 11.6.1; RFC 6750, 3; MCP 2025-11-25, Authorization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import anyio

from mcpbridge.http.request import RequestHead
from mcpbridge.rules.access.header_env import Pair, header_env
from mcpbridge.rules.access.principals import ANONYMOUS, Principal, anonymous_at
from mcpbridge.rules.access.rate_limit import RateLimit, rate_limit
from mcpbridge.rules.faults import INVALID_REQUEST, error_object
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.settings import SettingsSection, Unit, setting

GROUP = "Authentication"


class AuthSettings(SettingsSection, frozen=True):
    """Settings of how clients authenticate, and how many messages one may send."""

    token_file: str | None = setting(
        None,
        "--auth-token-file",
        "File of bearer tokens, one on a line, alone or as `name: token`; read again when it"
        " changes. One more may be in `MCPBRIDGE_AUTH_TOKEN`. Every request then needs one.",
        group=GROUP,
        metavar="FILE",
    )
    require: bool = setting(
        False,
        "--require-auth",
        "Refuse to start if no setting says how clients authenticate.",
        group=GROUP,
        unit=Unit.SWITCH,
    )
    rate_limit: RateLimit | None = setting(
        None,
        "--rate-limit",
        "Messages of one client, as `20/s` or `600/m:50`: the number in a second, minute or hour,"
        " and the number at once (default: a second's worth, at least 10). Further ones get 429.",
        group=GROUP,
        metavar="N/s[:BURST]",
        parse=rate_limit,
    )
    header_env: tuple[Pair, ...] = setting(
        (),
        "--header-env",
        "Give the value of a header to the client's own server processes as a variable; with `?` at"
        " the end the header may be missing. May be repeated.",
        group=GROUP,
        metavar="HEADER=NAME",
        repeatable=True,
        parse=header_env,
    )


Challenge = Refusal
"""A refusal of credentials: 401 or 403 with `challenge`, or 503 with `retry_after_s` if they cannot
be checked at present."""


class Authenticator(Protocol):
    """A finder of the principals behind requests; one for all requests of the process."""

    @property
    def documents(self) -> Mapping[str, bytes]:
        """JSON texts that need no credentials, by path: they tell a client where to log in."""

    async def run(self) -> None:
        """Keep the data that credentials are checked against up to date; may run without end."""

    async def authenticate(self, head: RequestHead) -> Principal | Challenge:
        """Return the principal behind a request, or the refusal. Never raises."""

    def still(self, principal: Principal) -> bool:
        """Return whether a principal's credentials are still valid: not expired, not revoked.

        Returns False for a principal that another authenticator has found.
        """

    def allows(self, principal: Principal, method: str) -> Challenge | None:
        """Return the refusal of a principal that may not call this MCP method; None if it may."""


def challenged(status: int, message: str, challenge: str) -> Challenge:
    """Return the refusal of a request whose credentials are missing, invalid or insufficient.

    Args:
        status: 401, or 403 if further scopes are needed.
        message: For people; without the digits of a status and without anything that was sent.
        challenge: The value of `WWW-Authenticate`, as in `Bearer realm="mcpbridge"`.
    """
    return Refusal(status, error_object(INVALID_REQUEST, message), challenge=challenge)


def bearer_token(head: RequestHead) -> str | None:
    """Return the token in `Authorization: Bearer`; None if there is none, empty if it is invalid.

    A repeated header is invalid: two programs could each read another client's token.
    """
    found = [value for name, value in head.raw if name == b"authorization"]
    if not found:
        return None
    scheme, _, token = found[0].decode("latin-1").strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        return None if len(found) == 1 else ""
    return token.strip(" ") if len(found) == 1 else ""


class NoAuth:
    """An `Authenticator` for which every request is of the anonymous principal."""

    documents: Mapping[str, bytes] = {}

    async def run(self) -> None:
        """Do nothing."""

    async def authenticate(self, head: RequestHead) -> Principal | Challenge:
        """Return the anonymous principal, at the address of the request."""
        return anonymous_at(head.peer)

    def still(self, principal: Principal) -> bool:
        """Return True: the anonymous principal does not expire."""
        return True

    def allows(self, principal: Principal, method: str) -> Challenge | None:
        """Return None: every method is allowed."""
        return None


class FirstOf:
    """Several authenticators in order: the first that knows a client, else the last one's refusal.

    Further questions about a principal go to the authenticator that found it.
    """

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = authenticators
        self.documents = {
            path: text for each in authenticators for path, text in each.documents.items()
        }

    async def run(self) -> None:
        """Run all of them."""
        async with anyio.create_task_group() as group:
            for each in self._authenticators:
                group.start_soon(each.run)

    async def authenticate(self, head: RequestHead) -> Principal | Challenge:
        """Return the first principal that one of them finds, else the refusal of the last."""
        found: Principal | Challenge = ANONYMOUS
        for each in self._authenticators:
            found = await each.authenticate(head)
            # A later authenticator could know the same credential as another client: the first
            # decides.
            if isinstance(found, Principal):
                break
        return found

    def still(self, principal: Principal) -> bool:
        """Return whether one of them still accepts the principal."""
        return any(each.still(principal) for each in self._authenticators)

    def allows(self, principal: Principal, method: str) -> Challenge | None:
        """Return what the authenticator that accepts the principal says; None if none does."""
        for each in self._authenticators:
            if each.still(principal):
                return each.allows(principal, method)
        return None
