"""Which headers of a client become variables of its own child, and which never may.

The operator names the pairs; a client chooses values alone. A variable by which a program would
load or run something else than was meant is refused whoever asks for it: its value would come from
a client. Such a value names nobody: who sends another one is another caller, for whom the sessions
of the first do not exist.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from mcpbridge.rules.access.principals import ANONYMOUS, Principal, Secrets, key_of

MAX_VALUE_BYTES = 1024
_FIELD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_VALUE = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z")
_TAKEN = frozenset((
    "accept", "accept-encoding", "authorization", "connection", "content-encoding",
    "content-length", "content-type", "cookie", "expect", "host", "keep-alive", "last-event-id",
    "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id", "origin",
    "proxy-authorization", "te", "traceparent", "tracestate", "trailer", "transfer-encoding",
    "upgrade",
))  # fmt: skip
"""Headers that mean something else already; a token must not reach a child."""
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
    """A request without it is served all the same."""


def header_env(text: str) -> Pair:
    """`X-Api-Key=API_KEY`, or `X-Api-Key=API_KEY?` where a client may do without.

    Raises:
        ValueError: It is no such pair, or one that is never allowed; the text completes a sentence
            that begins with the value.
    """
    header, equals, variable = text.partition("=")
    optional = variable.endswith("?")
    variable = variable.removesuffix("?")
    if not equals or _FIELD.match(header) is None or _VARIABLE.match(variable) is None:
        raise ValueError("is no pair; write X-Api-Key=API_KEY, or X-Api-Key=API_KEY? if optional")
    if header.lower() in _TAKEN or header.lower().startswith("mcp-param-"):
        raise ValueError("takes a header that means something else")
    upper = variable.upper()
    if upper in _NEVER or upper.startswith(_NEVER_PREFIXES):
        raise ValueError("sets a variable by which a client could have something else executed")
    return Pair(header.lower(), variable, optional)


def values_of(
    pairs: Sequence[Pair], headers: Sequence[tuple[bytes, bytes]]
) -> Mapping[str, str] | str:
    """The variables that a request's headers set, or what is wrong with them, without any value.

    Args:
        pairs: What the operator allows.
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
        if len(found[0]) > MAX_VALUE_BYTES or _VALUE.match(found[0]) is None:
            limit = f"up to {MAX_VALUE_BYTES} visible ASCII characters"
            return f"the header {pair.header} must be {limit} (--header-env)"
        values[pair.variable] = found[0].decode("ascii")
    return values


def with_values(principal: Principal, values: Mapping[str, str], peer: str) -> Principal:
    """Return the caller that this principal is with these values.

    Quotas count it as the principal itself, and without authentication by its address: else one
    client that makes up values would use up the share of all.
    """
    pairs = tuple(sorted(values.items()))
    if not pairs:
        return principal
    parts = [part for pair in pairs for part in pair]
    return msgspec.structs.replace(
        principal,
        key=key_of("header-env", principal.key, *parts),
        account=key_of("peer", peer) if principal.key == ANONYMOUS.key else principal.quota_key,
        env=Secrets(pairs),
    )
