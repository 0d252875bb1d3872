"""Addresses of sockets as people write them: `unix:PATH`, `unix:@NAME`, `tcp:HOST:PORT`."""

from __future__ import annotations

import re

import msgspec

SCHEMES = ("unix:", "tcp:")

_HOST_PORT = r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})\Z"
_MAX_PORT = 65535
_WRITE = "write unix:PATH, unix:@NAME or tcp:HOST:PORT"


class UnixAddress(msgspec.Struct, frozen=True):
    """A socket in the file system, or an abstract name within the network namespace."""

    path: str
    """Begins with `@` if the socket has no file (Linux only)."""

    @property
    def is_abstract(self) -> bool:
        """Whether the socket has no file."""
        return self.path.startswith("@")

    @property
    def raw(self) -> str:
        """The path in the form of the system calls."""
        return "\0" + self.path[1:] if self.is_abstract else self.path

    def __str__(self) -> str:
        return f"unix:{self.path}"


class TcpAddress(msgspec.Struct, frozen=True):
    """A TCP port of a host."""

    host: str
    port: int
    """0 to listen on a free port."""

    def __str__(self) -> str:
        return (
            f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"
        )


Address = UnixAddress | TcpAddress


def address_of(text: str) -> Address:
    """Parse an address.

    Raises:
        ValueError: Not an address; the text completes a sentence that begins with the value.
    """
    scheme, colon, rest = text.strip().partition(":")
    match scheme + colon:
        case "unix:":
            if rest in ("", "@") or "\0" in rest:
                raise ValueError(f"names no socket; {_WRITE}")
            return UnixAddress(rest)
        case "tcp:":
            found = re.match(_HOST_PORT, rest)
            if found is None or int(found[3]) > _MAX_PORT:
                raise ValueError(f"names no host and port; {_WRITE}")
            return TcpAddress(found[1] or found[2], int(found[3]))
    raise ValueError(f"is not a socket address; {_WRITE}")
