"""One HTTP request on its way in: its head, read once, and where to read and write."""

from __future__ import annotations

import dataclasses

from starlette.types import Receive, Scope, Send

from mcpbridge.rules.admission import Names
from mcpbridge.wire.headers import Acceptable, acceptable


@dataclasses.dataclass(slots=True)
class Incoming:
    """A request as the faces see it; lives as long as its response."""

    scope: Scope
    receive: Receive
    send: Send
    method: str
    path: str
    values: dict[bytes, bytes]
    """Header values by lower-case name; of a repeated header the last."""

    names: Names
    """What it says of its session and revision."""
    accepts: Acceptable
    """Which forms of an answer the client takes."""

    @classmethod
    def of(cls, scope: Scope, receive: Receive, send: Send) -> Incoming:
        """The request behind an ASGI call."""
        values = dict(scope["headers"])
        names = Names(
            _text(values.get(b"mcp-session-id")), _text(values.get(b"mcp-protocol-version"))
        )
        accepts = acceptable(_text(values.get(b"accept")))
        return cls(scope, receive, send, scope["method"], scope["path"], values, names, accepts)

    def get(self, name: bytes) -> str | None:
        """One header's value as text, or None."""
        return _text(self.values.get(name))


def _text(value: bytes | None) -> str | None:
    # Not every parser takes off the blanks after a value (RFC 9110, 5.5).
    return None if value is None else value.decode("latin-1").strip(" \t")
