"""Addresses of sockets as people write them: `unix:PATH`, `unix:@NAME`, `tcp:HOST:PORT`."""

from __future__ import annotations

import re

import msgspec

SCHEMES = ("unix:", "tcp:")

_HOST_PORT = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})\Z")
_MAX_PORT = 65535
_WRITE = "write unix:PATH, unix:@NAME or tcp:HOST:PORT"


class UnixAddress(msgspec.Struct, frozen=True):
    """A socket in the file system, or by a name of its own within the network namespace."""

    path: str
    """Begins with `@` for one that has no file (Linux only)."""

    @property
    def is_abstract(self) -> bool:
        """It has no file."""
        return self.path.startswith("@")

    @property
    def raw(self) -> str:
        """As the system calls take it."""
        return "\0" + self.path[1:] if self.is_abstract else self.path

    def __str__(self) -> str:
        return f"unix:{self.path}"


class TcpAddress(msgspec.Struct, frozen=True):
    """A TCP port of a host."""

    host: str
    port: int
    """0 for a free one, where it is listened on."""

    def __str__(self) -> str:
        return (
            f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"
        )


Address = UnixAddress | TcpAddress


def address_of(text: str) -> Address:
    """An address as written.

    Raises:
        ValueError: It is none; the text completes a sentence that begins with the value.
    """
    scheme, colon, rest = text.strip().partition(":")
    match scheme + colon:
        case "unix:":
            if rest in ("", "@") or "\0" in rest:
                raise ValueError(f"names no socket; {_WRITE}")
            return UnixAddress(rest)
        case "tcp:":
            found = _HOST_PORT.match(rest)
            if found is None or int(found[3]) > _MAX_PORT:
                raise ValueError(f"names no host and port; {_WRITE}")
            return TcpAddress(found[1] or found[2], int(found[3]))
    raise ValueError(f"is no address of a socket; {_WRITE}")
