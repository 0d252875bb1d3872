"""Arguments that a tool's schema wants repeated in headers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcpbridge.rules.mcp.modern_checks import (
    Path,
    RoutingHeaders,
    annotations_in,
    check_tool_params,
)
from tests.support.proofs import proves

PATHS = {("region",): "region", ("at", "zone"): "zone", ("dry",): "dry"}


def noted(properties: Any, **more: Any) -> dict[Path, str]:
    """The annotations of one tool with these properties."""
    schema = {"type": "object", "properties": properties, **more}
    tools = [{"name": "t", "inputSchema": schema}, {"name": "plain", "inputSchema": {}}]
    found = annotations_in(json.dumps({"tools": tools}).encode())
    assert set(found) <= {"t"}
    return dict(found.get("t", {}))


def marked(header: Any, kind: Any = "string", **more: Any) -> dict[str, Any]:
    """An annotated property."""
    return {"type": kind, "x-mcp-header": header, **more}


@proves("C42")
def test_annotations_are_found_below_properties() -> None:
    """At any depth, under lower-case names."""
    inner = {"type": "object", "properties": {"zone": marked("Zone", "integer")}}
    found = noted({"region": marked("Region"), "at": inner, "dry": marked("DRY", "boolean")})
    assert found == PATHS


@proves("C42")
@pytest.mark.parametrize(
    "properties",
    [
        {"a": 7, "b": marked("", "string")},
        {"a": marked("")},
        {"a": marked("with space")},
        {"a": marked("ümlaut")},
        {"a": marked("a\n")},
        {"a": marked(7)},
        {"a": marked("A", "number")},
        {"a": marked("A", "object")},
        {"a": marked("A", ["string"])},
        {"a": marked("Same"), "b": marked("sAME")},
        {"a": marked("Good"), "b": marked("")},
        {"a": True},
        {"a": {"items": marked("A")}},
        {"a": {"anyOf": [marked("A")]}},
        {"a": {"x-mcp-header": None}},
        [],
        None,
    ],
    ids=str,
)
def test_a_schema_that_breaks_the_rules_validates_nothing(properties: Any) -> None:
    """Not even by the annotations that are good."""
    assert noted(properties) == {}


@proves("C42")
@pytest.mark.parametrize(
    "result",
    [
        b"{}",
        b'{"tools":[]}',
        b'{"tools":"x-mcp-header"}',
        b'{"tools":[{"inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}}]}',
        b'{"tools":[{"name":"x-mcp-header"}]}',
        b'{"tools":[{"name":"x-mcp-header","inputSchema":true}]}',
        b'{"tools":[{"name":"x","inputSchema":{"x-mcp-header":"\\ud800"}}]}',
    ],
)
def test_a_list_that_cannot_be_read_validates_nothing(result: bytes) -> None:
    """The calls are the child's to judge then."""
    assert annotations_in(result) == {}


@proves("C42")
@pytest.mark.parametrize(
    ("arguments", "headers", "good"),
    [
        (b'{"region":"eu"}', {"region": "eu"}, True),
        (b'{"region":"eu"}', {"region": "=?base64?ZXU=?="}, True),
        (b'{"region":"\\u0065u"}', {"region": "eu"}, True),
        (b'{"region":"eu"}', {}, False),
        (b'{"region":"eu"}', {"region": "us"}, False),
        (b'{"region":"eu"}', {"region": "\xe9"}, False),
        (b'{"region":null}', {}, True),
        (b'{"region":null}', {"region": "null"}, False),
        (b"{}", {}, True),
        (b"{}", {"region": "eu"}, False),
        (b"{}", {"other": "eu"}, True),
        (b'{"at":{"zone":42}}', {"zone": "42"}, True),
        (b'{"at":{"zone":42}}', {"zone": "42.0"}, True),
        (b'{"at":{"zone":42.0}}', {"zone": "42"}, True),
        (b'{"at":{"zone":42}}', {"zone": "43"}, False),
        (b'{"at":{"zone":42}}', {"zone": "x"}, False),
        (b'{"at":{"zone":9007199254740993}}', {"zone": "9007199254740992"}, False),
        (b'{"at":{"zone":1}}', {"zone": "1_0"}, False),
        (b'{"at":{"zone":10}}', {"zone": "1_0"}, False),
        (b'{"at":{"zone":42}}', {"zone": " 42"}, True),
        (b'{"at":{"zone":[42]}}', {"zone": "42"}, False),
        (b'{"at":7}', {}, True),
        (b'{"dry":true}', {"dry": "true"}, True),
        (b'{"dry":true}', {"dry": "True"}, False),
        (b'{"dry":true}', {"dry": "1"}, False),
        (b'{"dry":false}', {"dry": "false"}, True),
    ],
)
def test_an_argument_is_repeated_truly(
    arguments: bytes, headers: dict[str, str], good: bool
) -> None:
    """Where it is there, and only there; numbers are compared as numbers."""
    params = b'{"name":"t","arguments":%b}' % arguments
    routing = RoutingHeaders(version=None, method=None, name=None, params=headers, repeated=False)
    refusal = check_tool_params(params, routing, PATHS)
    if good:
        assert refusal is None
    else:
        assert refusal is not None
        assert (refusal.status, json.loads(refusal.error)["code"]) == (400, -32020)
