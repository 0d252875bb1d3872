"""Who calls: the credentials in a request's head become a principal, or the refusal they earn.

An `Authenticator` is asked at two moments, and its two answers cost differently:

- `authenticate` once for each request of HTTP, and it may wait (for an authorization server's
  keys). What it found is kept for a connection whose requests come under the same head.
- `still` before each further call under such a head, and about once a second for each open stream;
  it must cost no more than a comparison or two. Once it says no, the call goes the ordinary path,
  where `authenticate` says why, and the stream ends.

`allows` is asked for each request of JSON-RPC, when its method is known. Several authenticators
are one: `FirstOf`. How a new kind is added: implement the protocol, and name it in `app.build`.

What is refused carries `Refusal.challenge`, the value of `WWW-Authenticate`. Neither it nor the
text holds anything that a client sent, nor the digits of a status: deployed clients take 401 and
403 anywhere in a body for an order to log in.

Source: RFC 9110, 11.6.1; RFC 6750, 3; MCP 2025-11-25, Authorization.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import anyio

from mcpbridge.http.request import RequestHead
from mcpbridge.rules.access.header_env import Pair, header_env
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from mcpbridge.rules.access.rate_limit import RateLimit, rate_limit
from mcpbridge.rules.faults import INVALID_REQUEST, error_object
from mcpbridge.rules.mcp.admission import Refusal
from mcpbridge.settings import Unit, setting

GROUP = "Authentication"


@dataclasses.dataclass(frozen=True, slots=True)
class AuthSettings:
    """Who may call, and what one client may have of it."""

    token_file: str | None = setting(
        None,
        "--auth-token-file",
        "File of bearer tokens, one on a line, alone or as `name: token`; read again when it"
        " changes. One more may be in `MCPBRIDGE_AUTH_TOKEN`. Requests need one of them then.",
        group=GROUP,
        metavar="FILE",
    )
    require: bool = setting(
        False,
        "--require-auth",
        "Refuse to start where nothing says how clients authenticate.",
        group=GROUP,
        unit=Unit.SWITCH,
    )
    rate_limit: RateLimit | None = setting(
        None,
        "--rate-limit",
        "Messages of one client, as `20/s` or `600/m:50`: how many for each second, minute or"
        " hour, and how many at once (a second's worth, 10 at least). 429 beyond that.",
        group=GROUP,
        metavar="N/s[:BURST]",
        parse=rate_limit,
    )
    header_env: tuple[Pair, ...] = setting(
        (),
        "--header-env",
        "Give the value of a header to the client's own server processes as a variable; with `?` at"
        " the end a client may do without. May be repeated.",
        group=GROUP,
        metavar="HEADER=NAME",
        repeatable=True,
        parse=header_env,
    )


Challenge = Refusal
"""A refusal for want of good credentials: 401 or 403 with `challenge`, or 503 with a time to come
back where the credentials cannot be judged at present."""


class Authenticator(Protocol):
    """Tells clients apart by what their requests carry; one for all requests of the process."""

    @property
    def documents(self) -> Mapping[str, bytes]:
        """JSON texts that anybody may GET, by path: what tells a client where to log in."""

    async def run(self) -> None:
        """Keep what credentials are judged by up to date; may run as long as the process."""

    async def authenticate(self, head: RequestHead) -> Principal | Challenge:
        """The principal behind a request, or why there is none. Never raises."""

    def still(self, principal: Principal) -> bool:
        """Whether what was found is good at this moment: not expired, not revoked since.

        False for a principal that another authenticator has found.
        """

    def allows(self, principal: Principal, method: str) -> Challenge | None:
        """What to tell a client that may not call this method of MCP; None lets it."""


def challenged(status: int, message: str, challenge: str) -> Challenge:
    """The refusal of a request whose credentials are missing, wrong or not enough.

    Args:
        status: 401, or 403 where other scopes are needed.
        message: For people; without the digits of a status and without anything that was sent.
        challenge: The value of `WWW-Authenticate`, as in `Bearer realm="mcpbridge"`.
    """
    return Refusal(status, error_object(INVALID_REQUEST, message), challenge=challenge)


def bearer_token(head: RequestHead) -> str | None:
    """The token in `Authorization: Bearer`; None where there is none, empty where it is broken.

    A header that comes twice is broken: two readers of it would see two clients.
    """
    found = [value for name, value in head.raw if name == b"authorization"]
    if not found:
        return None
    scheme, _, token = found[0].decode("latin-1").strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        return None if len(found) == 1 else ""
    return token.strip(" ") if len(found) == 1 else ""


class NoAuth:
    """Everybody is the anonymous principal."""

    documents: Mapping[str, bytes] = {}

    async def run(self) -> None:
        """Do nothing."""

    async def authenticate(self, head: RequestHead) -> Principal | Challenge:
        """Nobody is asked."""
        return ANONYMOUS

    def still(self, principal: Principal) -> bool:
        """Nothing ends."""
        return True

    def allows(self, principal: Principal, method: str) -> Challenge | None:
        """Everything is allowed."""
        return None


class FirstOf:
    """Several authenticators: the first that knows a client, else the last one's challenge.

    Who is known to one is asked of that one from then on.
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
        """Ask one after the other."""
        found: Principal | Challenge = ANONYMOUS
        for each in self._authenticators:
            found = await each.authenticate(head)
            if isinstance(found, Principal):
                break
        return found

    def still(self, principal: Principal) -> bool:
        """Whether any of them still knows it."""
        return any(each.still(principal) for each in self._authenticators)

    def allows(self, principal: Principal, method: str) -> Challenge | None:
        """What the one that knows it says."""
        for each in self._authenticators:
            if each.still(principal):
                return each.allows(principal, method)
        return None
