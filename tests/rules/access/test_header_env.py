"""Headers that become variables."""

from __future__ import annotations

import pytest

from mcpbridge.rules.access.header_env import (
    MAX_VALUE_BYTES,
    Pair,
    header_env,
    values_of,
    with_values,
)
from mcpbridge.rules.access.principals import ANONYMOUS, Principal
from tests.support.proofs import proves

KEY = Pair("x-api-key", "API_KEY")
MAYBE = Pair("x-tenant", "TENANT", optional=True)


def test_a_pair_is_a_header_and_a_variable() -> None:
    """With a question mark a client may do without."""
    assert header_env("X-Api-Key=API_KEY") == KEY
    assert header_env("X-Tenant=TENANT?") == MAYBE


@pytest.mark.parametrize(
    "variable",
    [
        "PATH",
        "path",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "DYLD_INSERT_LIBRARIES",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "NODE_OPTIONS",
        "NODE_PATH",
        "MCPBRIDGE_AUTH_TOKEN",
        "HOME",
        "SHELL",
        "IFS",
        "BASH_ENV",
        "ENV",
        "PERL5LIB",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "_JAVA_OPTIONS",
        "GIT_SSH_COMMAND",
        "TMPDIR",
        "LC_ALL",
        "HTTPS_PROXY",
        "SSL_CERT_FILE",
        "GCONV_PATH",
        "PS4",
        "PROMPT_COMMAND",
        "MCP_TRANSPORT",
        "npm_config_registry",
    ],
)
def test_no_client_sets_what_a_program_is_run_by(variable: str) -> None:
    """Whatever the operator says, in whatever case."""
    with pytest.raises(ValueError, match="something else executed"):
        header_env(f"X-Value={variable}")


@proves("C97")
@pytest.mark.parametrize(
    "header", ["Authorization", "cookie", "Host", "Mcp-Session-Id", "Mcp-Param-Region", "Origin"]
)
def test_no_header_that_means_something_else_is_taken(header: str) -> None:
    """Least of all the client's token."""
    with pytest.raises(ValueError, match="another meaning"):
        header_env(f"{header}=VALUE")


@pytest.mark.parametrize(
    "text", ["", "X-Key", "=KEY", "X-Key=", "X Key=KEY", "X-Key=1KEY", "X-Key=A=B", "X-Key=A-B"]
)
def test_what_is_no_pair_is_refused(text: str) -> None:
    """In words that show how to write one."""
    with pytest.raises(ValueError, match="is not a pair; write"):
        header_env(text)


def test_values_are_taken_by_name() -> None:
    """Blanks around a value are not its own; an optional one may be missing."""
    headers = [(b"x-api-key", b" sk-1 "), (b"other", b"x")]
    assert values_of([KEY, MAYBE], headers) == {"API_KEY": "sk-1"}
    assert values_of([KEY, MAYBE], [*headers, (b"x-tenant", b"a b")]) == {
        "API_KEY": "sk-1",
        "TENANT": "a b",
    }


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ([], "is missing"),
        ([(b"x-api-key", b"a"), (b"x-api-key", b"a")], "comes twice"),
        ([(b"x-api-key", b"")], "visible ASCII"),
        ([(b"x-api-key", b"caf\xe9")], "visible ASCII"),
        ([(b"x-api-key", b"a\x00b")], "visible ASCII"),
        ([(b"x-api-key", b"a\tb")], "visible ASCII"),
        ([(b"x-api-key", b"x" * (MAX_VALUE_BYTES + 1))], "1024"),
    ],
)
def test_a_bad_value_is_refused_and_not_shown(
    headers: list[tuple[bytes, bytes]], problem: str
) -> None:
    """The refusal names the header and the flag."""
    found = values_of([KEY], headers)
    assert isinstance(found, str)
    assert problem in found
    assert "x-api-key" in found
    assert "--header-env" in found
    assert "caf" not in found


def test_other_values_are_another_caller_for_all_but_quotas() -> None:
    """A client that makes up values gets its own children, and no more to ask with."""
    alice, peer = Principal(b"a", "a"), "192.0.2.1"
    one, two = (with_values(alice, {"API_KEY": value}, peer) for value in ("sk-1", "sk-2"))
    assert len({one.key, two.key, alice.key}) == 3
    assert one.quota_key == two.quota_key == alice.quota_key
    assert with_values(alice, {"API_KEY": "sk-1"}, "192.0.2.2") == one
    assert with_values(alice, {}, peer) is alice
    assert with_values(ANONYMOUS, {"API_KEY": "sk-1"}, peer).key != one.key
    assert "sk-1" not in repr(one)


def test_without_authentication_quotas_count_addresses() -> None:
    """Values are made up at will; a session is not bound to an address."""
    one, two = (with_values(ANONYMOUS, {"API_KEY": value}, "192.0.2.1") for value in ("a", "b"))
    elsewhere = with_values(ANONYMOUS, {"API_KEY": "a"}, "192.0.2.2")
    assert one.quota_key == two.quota_key != elsewhere.quota_key
    assert one.key == elsewhere.key != two.key
    assert with_values(ANONYMOUS, {}, "192.0.2.1") is ANONYMOUS
