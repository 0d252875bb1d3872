"""Every exception mcpbridge raises on purpose.

    BridgeError
    ├── ConfigError             the command line, the environment or a file is wrong
    ├── WireError               bytes that are not what they should be
    │   ├── NotJson             not JSON at all
    │   ├── NotMessage          JSON, but no JSON-RPC message
    │   ├── TooDeep             nested beyond the limit
    │   ├── DuplicateMember     one object names a member twice
    │   ├── TooMany             an object or array has more items than are read
    │   └── ToolDenied          a call of a tool that clients may not use
    ├── ChannelClosed           the peer of a channel is gone
    ├── SpawnError              the operating system would not start the command
    │   ├── CommandNotFound
    │   ├── CommandNotExecutable
    │   └── Unreachable         nobody starts it at the other end of a connection
    ├── BadToken                a client's token must not be taken
    ├── KeysUnavailable         nobody can say whether a token is good
    ├── CursorLost              a reader asks for entries that were trimmed
    └── Unavailable             a request cannot be served; carries the fault to tell the client
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
    """A setting is wrong: what, where it came from, what would be right."""

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
    """Bytes from a peer that are not what the protocol asks for."""

    def __init__(self, detail: str, request_id: bytes | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.request_id = request_id
        """The raw JSON-RPC id of the offending message, where it could be read."""

    def __str__(self) -> str:
        return self.detail


class NotJson(WireError):
    """The bytes are not a JSON text in UTF-8."""


class NotMessage(WireError):
    """The bytes are JSON but not a JSON-RPC 2.0 message as MCP has it."""


class TooDeep(WireError):
    """The JSON text nests deeper than the limit."""


class DuplicateMember(WireError):
    """An object that the bridge must understand names a member twice."""


class TooMany(WireError):
    """An object or array that the bridge must understand has more items than the limit."""


class ToolDenied(WireError):
    """A call of a tool that `--allow-tool` and `--deny-tool` keep from clients.

    To its caller it is like any other name that the server does not know.
    """

    def __init__(self, tool: str) -> None:
        super().__init__(f"Unknown tool: {tool}")
        self.tool = tool


class ChannelClosed(BridgeError):
    """The peer of this channel is gone; nothing more can be sent to it."""

    def __str__(self) -> str:
        return "channel closed"


class SpawnError(BridgeError):
    """The operating system refused to start the command."""

    def __init__(self, command: str, problem: str) -> None:
        super().__init__(command, problem)
        self.command = command
        self.problem = problem

    def __str__(self) -> str:
        return f"cannot start {self.command!r}: {self.problem}"


class CommandNotFound(SpawnError):
    """No such file, here or on PATH."""


class CommandNotExecutable(SpawnError):
    """The file is there but may not or cannot be executed."""


class Unreachable(SpawnError):
    """Nobody listens at the address behind which a server process would be started."""

    def __str__(self) -> str:
        return f"cannot connect to {self.command}: {self.problem}"


class BadToken(BridgeError):
    """A token that must not be taken; `problem` says why and holds nothing of the token."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class KeysUnavailable(BridgeError):
    """The keys of an authorization server cannot be had, or are too old to be relied on."""

    def __init__(self, url: str, problem: str, retry_after_s: float) -> None:
        super().__init__(url, problem, retry_after_s)
        self.url = url
        self.problem = problem
        self.retry_after_s = retry_after_s
        """When it may be worth another try."""

    def __str__(self) -> str:
        return f"cannot get keys from {self.url}: {self.problem}"


class CursorLost(BridgeError):
    """The entry after a cursor has been trimmed; the reader cannot catch up without a gap."""

    def __init__(self, wanted: int, oldest: int) -> None:
        super().__init__(wanted, oldest)
        self.wanted = wanted
        self.oldest = oldest

    def __str__(self) -> str:
        return f"entry {self.wanted} is gone, the oldest kept is {self.oldest}"
