"""The address of a remote MCP server and the headers that requests to it carry."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mcpbridge.errors import ConfigError
from mcpbridge.rules.expansion import ExpansionError, References, expand

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_OURS = re.compile(
    r"(?:accept|accept-encoding|connection|content-length|content-type|host|last-event-id"
    r"|mcp-.*|transfer-encoding)\Z"
)
_FLAG = "--header"


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
        name = name.strip().lower()
        if not colon or _NAME.match(name) is None:
            raise ConfigError(_FLAG, "", "not a header", "write 'Name: value'")
        if _OURS.match(name):
            raise ConfigError(_FLAG, "", f"mcpbridge sets {name} itself", "leave it out")
        if name in found:
            raise ConfigError(_FLAG, "", f"{name} is given twice", "give it once")
        try:
            value = expand(value.strip(), references)
        except ExpansionError as error:
            raise ConfigError(_FLAG, "", f"{name}: {error}") from None
        if _VALUE.match(value) is None:
            raise ConfigError(_FLAG, "", f"the value of {name} has characters no header may have")
        found[name] = value
    return found
