"""Selects the client headers that become variables of the client's own child.

The operator names the pairs; a client chooses values only. A variable that could make a program
load or run something else is refused, since its value would come from a client. Such a value does
not identify a client: a request with another value is another caller, which cannot see the
sessions of the first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from mcpbridge.rules.access.principals import ANONYMOUS, Principal, Secrets, key_of, peer_key

MAX_VALUE_BYTES = 1024
_FIELD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}\Z"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z"
_VALUE = rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z"
_TAKEN = frozenset((
    "accept", "accept-encoding", "authorization", "connection", "content-encoding",
    "content-length", "content-type", "cookie", "expect", "host", "keep-alive", "last-event-id",
    "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id", "origin",
    "proxy-authorization", "te", "traceparent", "tracestate", "trailer", "transfer-encoding",
    "upgrade",
))  # fmt: skip
"""Headers with another meaning; a token in particular must not reach a child."""
_NEVER_PREFIXES = (
    "LD_", "DYLD_", "PYTHON", "MCPBRIDGE_", "NODE_", "NPM_", "GIT_", "BASH_", "PERL", "RUBY",
    "JAVA_", "JDK_", "_JAVA", "GLIBC_", "MALLOC_", "DOTNET_", "CORECLR_", "LC_", "SSL_", "DENO_",
    "BUN_", "UV_", "PIP_", "XDG_", "MCP_", "FASTMCP_", "LISTEN_", "OPENSSL_",
)  # fmt: skip
_NEVER = frozenset((
    "PATH", "HOME", "SHELL", "IFS", "ENV", "CDPATH", "USER", "LOGNAME", "TMPDIR", "TEMP", "TMP",
    "LANG", "PWD", "OLDPWD", "TERM", "EDITOR", "VISUAL", "PAGER", "BROWSER", "HTTP_PROXY",
    "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "GCONV_PATH", "HOSTALIASES", "LOCPATH", "NLSPATH",
    "RESOLV_HOST_CONF", "RES_OPTIONS", "TZDIR", "GETCONF_DIR", "CLASSPATH", "PSMODULEPATH",
    "COMSPEC", "SYSTEMROOT", "PATHEXT", "PS4", "PROMPT_COMMAND", "SHELLOPTS", "BASHOPTS", "FPATH",
    "ZDOTDIR", "NOTIFY_SOCKET", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "CURL_HOME", "VIRTUAL_ENV",
    "CONDA_PREFIX", "GOPATH", "GOROOT", "GOFLAGS", "RUSTFLAGS", "GODEBUG",
))  # fmt: skip


class Pair(msgspec.Struct, frozen=True):
    """One header and the variable that gets its value."""

    header: str
    """In lower case."""
    variable: str
    optional: bool = False
    """A request without the header is served too."""


def header_env(text: str) -> Pair:
    """Parse `X-Api-Key=API_KEY`, or `X-Api-Key=API_KEY?` if clients may omit the header.

    Raises:
        ValueError: Not such a pair, or a pair that is never allowed; the text completes a sentence
            that begins with the value.
    """
    header, equals, variable = text.partition("=")
    optional = variable.endswith("?")
    variable = variable.removesuffix("?")
    if not equals or re.match(_FIELD, header) is None or re.match(_VARIABLE, variable) is None:
        raise ValueError("is not a pair; write X-Api-Key=API_KEY, or API_KEY? if optional")
    if header.lower() in _TAKEN or header.lower().startswith("mcp-param-"):
        raise ValueError("takes a header that has another meaning")
    upper = variable.upper()
    if upper in _NEVER or upper.startswith(_NEVER_PREFIXES):
        raise ValueError("sets a variable by which a client could have something else executed")
    return Pair(header.lower(), variable, optional)


def values_of(
    pairs: Sequence[Pair], headers: Sequence[tuple[bytes, bytes]]
) -> Mapping[str, str] | str:
    """Return the variables that a request's headers set, or the problem, without any value.

    Args:
        pairs: The pairs that the operator allows.
        headers: All headers, names in lower case.
    """
    values: dict[str, str] = {}
    for pair in pairs:
        found = [value.strip(b" \t") for name, value in headers if name == pair.header.encode()]
        if not found and pair.optional:
            continue
        if len(found) != 1:
            problem = "comes twice" if found else "is missing"
            return f"the header {pair.header} {problem} (--header-env)"
        if len(found[0]) > MAX_VALUE_BYTES or re.match(_VALUE, found[0]) is None:
            limit = f"up to {MAX_VALUE_BYTES} visible ASCII characters"
            return f"the header {pair.header} must be {limit} (--header-env)"
        values[pair.variable] = found[0].decode("ascii")
    return values


def with_values(principal: Principal, values: Mapping[str, str], peer: str) -> Principal:
    """Return the principal that a caller with these values has.

    Quotas count it as the original principal, or without authentication by its address: otherwise
    one client could use up every share by inventing values.
    """
    pairs = tuple(sorted(values.items()))
    if not pairs:
        return principal
    parts = [part for pair in pairs for part in pair]
    return msgspec.structs.replace(
        principal,
        key=key_of("header-env", principal.key, *parts),
        account=peer_key(peer) if principal.key == ANONYMOUS.key else principal.quota_key,
        env=Secrets(pairs),
    )
