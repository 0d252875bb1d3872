"""The address of a remote MCP server and the headers that requests to it carry."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mcpbridge.errors import ConfigError
from mcpbridge.rules.expansion import ExpansionError, References, expand

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z"
_VALUE = r"[\t\x20-\x7e\x80-\xff]*\Z"
_OURS = (
    r"(?:accept|accept-encoding|connection|content-length|content-type|host|last-event-id"
    r"|mcp-.*|transfer-encoding)\Z"
)
_FLAG = "--header"


class RemoteServer(msgspec.Struct, frozen=True):
    """A server that is reached by HTTP, from an entry of a file of servers."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    sse: bool = False
    """Whether it speaks only HTTP+SSE, the transport of 2024-11-05."""

    def __repr__(self) -> str:
        # The headers are secrets, and a query may be one.
        return f"RemoteServer({self.url.partition('?')[0]!r})"


def login_file(url: str, env: Mapping[str, str] | None = None) -> Path:
    """Return the file in which `mcpbridge login` keeps the login at a URL.

    Args:
        url: The address of the server.
        env: The variables; by default those of this process.
    """
    base = (os.environ if env is None else env).get("XDG_CONFIG_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path.home() / ".config"
    host = re.sub(r"[^A-Za-z0-9.-]", "_", url.partition("//")[2].partition("/")[0])[:100]
    digest = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    return folder / "mcpbridge" / "logins" / f"{host}-{digest}.json"


class InvalidHeader(ValueError):
    """A header that cannot be sent, or that mcpbridge sets itself; no attribute has its value."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def header_name(name: str) -> str:
    """Return the name of a header in small letters; raise InvalidHeader if it cannot be given."""
    name = name.strip().lower()
    if re.match(_NAME, name) is None:
        raise InvalidHeader("not a header", "write 'Name: value'")
    if re.match(_OURS, name):
        raise InvalidHeader(f"mcpbridge sets {name} itself", "leave it out")
    return name


def header_value(name: str, value: str) -> str:
    """Return a header's value without blanks around it; raise InvalidHeader if it is wrong."""
    value = value.strip()
    if re.match(_VALUE, value) is None:
        raise InvalidHeader(f"the value of {name} has characters no header may have")
    return value


def headers_of(texts: Sequence[str], env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the headers in texts such as `X-Key: ${KEY}`, their references filled in.

    Args:
        texts: The values of `--header`.
        env: The variables; by default those of this process.

    Raises:
        ConfigError: A text is not a header, or names one that mcpbridge sets; the error never
            contains a value.
    """
    references = References(
        os.environ if env is None else env, str(Path.cwd()), str(Path.home()), lambda _: None
    )
    found: dict[str, str] = {}
    for text in texts:
        name, colon, value = text.partition(":")
        try:
            name = header_name(name if colon else "")
            if name in found:
                raise InvalidHeader(f"{name} is given twice", "give it once")
            found[name] = header_value(name, expand(value.strip(), references))
        except InvalidHeader as error:
            raise ConfigError(_FLAG, "", error.problem, error.remedy) from None
        except ExpansionError as error:
            raise ConfigError(_FLAG, "", f"{name}: {error}") from None
    return found
