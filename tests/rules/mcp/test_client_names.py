"""The names by which people tell clients apart."""

from __future__ import annotations

import pytest

from mcpbridge.rules.mcp.initialize import client_named, introduced_as
from mcpbridge.rules.mcp.request_meta import client_info


@pytest.mark.parametrize(
    ("info", "name"),
    [
        (b'{"name":"vscode","version":"1.120"}', "vscode 1.120"),
        (b'{"version":"1","name":"caf\xc3\xa9"}', "café 1"),
        (b'{"name":"a\\u001b[2Jb"}', "a?[2Jb"),
        (b'{"name":"%b"}' % (b"x" * 200), "x" * 80),
        (b'{"name":7}', ""),
        (b'{"name":"a","name":"b"}', ""),
        (b"[]", ""),
        (None, ""),
    ],
)
def test_a_client_is_named_for_people(info: bytes | None, name: str) -> None:
    """Name and version; nothing that controls a terminal, and nothing long."""
    assert client_named(info) == name


def test_a_client_names_itself_at_first_or_in_each_request() -> None:
    """In `initialize`, or in `_meta`; params that cannot be read name none."""
    assert introduced_as(b'{"clientInfo":{"name":"a"}}') == b'{"name":"a"}'
    meta = b'{"_meta":{"io.modelcontextprotocol/clientInfo":{"name":"b"}}}'
    assert client_info(meta) == b'{"name":"b"}'
    assert client_info(None) is client_info(b"{}") is None
    assert introduced_as(b'{"clientInfo":1,"clientInfo":2}') is None
    assert client_info(b'{"_meta":1,"_meta":2}') is None
