"""Every exception mcpbridge raises on purpose.

    BridgeError
    ├── ConfigError             the command line, the environment or a file is wrong
    ├── WireError               bytes from a peer break the protocol
    │   ├── NotJson             not JSON at all
    │   ├── NotMessage          JSON, but not a JSON-RPC message
    │   ├── TooDeep             nested beyond the limit
    │   ├── DuplicateMember     one object names a member twice
    │   ├── TooMany             an object or array has more items than the limit
    │   └── ToolDenied          a call of a tool that clients may not use
    ├── ChannelClosed           the peer of a channel is gone
    ├── SpawnError              the operating system would not start the command
    │   ├── CommandNotFound
    │   ├── CommandNotExecutable
    │   └── ServerUnreachable   no server accepts connections at the address
    ├── BadToken                a client's token is invalid
    ├── KeysUnavailable         the keys to check tokens with cannot be fetched
    ├── CursorLost              a reader asks for entries that were trimmed
    └── Unavailable             a request cannot be served; carries the fault for the client
        └── PoolExhausted       no further server process may run

Exceptions hold facts as attributes; their text is made in `__str__`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class BridgeError(Exception):
    """The root of the tree."""


class ConfigError(BridgeError):
    """A wrong setting: its name, its source, the problem and the remedy."""

    def __init__(self, key: str, origin: str, problem: str, remedy: str = "") -> None:
        super().__init__(key, origin, problem, remedy)
        self.key = key
        self.origin = origin
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        origin = f" (from {self.origin})" if self.origin else ""
        return f"{self.key}{origin}: {self.problem}{remedy}"


class WireError(BridgeError):
    """Bytes from a peer that break the protocol."""

    def __init__(self, detail: str, request_id: bytes | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.request_id = request_id
        """The raw JSON-RPC id of the offending message, if it could be read."""

    def __str__(self) -> str:
        return self.detail


class NotJson(WireError):
    """Bytes that are not a JSON text in UTF-8."""


class NotMessage(WireError):
    """Bytes that are JSON but not a JSON-RPC 2.0 message as MCP defines it."""


class TooDeep(WireError):
    """A JSON text that nests deeper than the limit."""


class DuplicateMember(WireError):
    """An object that the bridge must understand and that names a member twice."""


class TooMany(WireError):
    """An object or array that the bridge must understand and that has too many items."""


class ToolDenied(WireError):
    """A call of a tool that `--allow-tool` and `--deny-tool` hide from clients.

    The caller gets the same answer as for a name that the server does not know.
    """

    def __init__(self, tool: str) -> None:
        super().__init__(f"Unknown tool: {tool}")
        self.tool = tool


class ChannelClosed(BridgeError):
    """A channel whose peer is gone; nothing more can be sent on it."""

    def __str__(self) -> str:
        return "channel closed"


class SpawnError(BridgeError):
    """A command that the operating system refused to start."""

    def __init__(self, command: str, problem: str) -> None:
        super().__init__(command, problem)
        self.command = command
        self.problem = problem

    def __str__(self) -> str:
        return f"cannot start {self.command!r}: {self.problem}"


class CommandNotFound(SpawnError):
    """A command that does not exist as a file or on PATH."""


class CommandNotExecutable(SpawnError):
    """A command whose file exists but must not or cannot be executed."""


class ServerUnreachable(SpawnError):
    """An address of a server process at which nothing listens."""

    setting = "--connect"
    """The setting that names the address."""
    known = False
    """Whether the same was logged before, and the address has not been reached since."""

    def __str__(self) -> str:
        return f"cannot connect to {self.command}: {self.problem}"


class BadToken(BridgeError):
    """An invalid token; `problem` says why and contains no part of the token."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class KeysUnavailable(BridgeError):
    """Keys of an authorization server that cannot be fetched or are too old to rely on."""

    def __init__(self, url: str, problem: str, retry_after_s: float) -> None:
        super().__init__(url, problem, retry_after_s)
        self.url = url
        self.problem = problem
        self.retry_after_s = retry_after_s
        """Seconds until another attempt may be worth it."""

    def __str__(self) -> str:
        return f"cannot get keys from {self.url}: {self.problem}"


class CursorLost(BridgeError):
    """A cursor whose next entry has been trimmed; the reader cannot continue without a gap."""

    def __init__(self, wanted: int, oldest: int) -> None:
        super().__init__(wanted, oldest)
        self.wanted = wanted
        self.oldest = oldest

    def __str__(self) -> str:
        return f"entry {self.wanted} is gone, the oldest kept is {self.oldest}"
