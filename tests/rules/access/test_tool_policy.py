"""Which tools clients may see and call, and that no spelling gets around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpbridge.errors import DuplicateMember, ToolDenied, WireError
from mcpbridge.rules.access.tool_policy import ToolPolicy, tool_glob

READS = ToolPolicy(allowed=("read_*", "stat"), denied=("*_secret",))


@pytest.mark.parametrize(
    ("allowed", "denied", "name", "passes"),
    [
        ((), (), "anything", True),
        ((), ("wipe",), "wipe", False),
        ((), ("wipe",), "wipe_all", True),
        ((), ("wipe*",), "wipe_all", False),
        ((), ("Wipe",), "wipe", True),
        (("read",), (), "read", True),
        (("read",), (), "reader", False),
        (("read",), (), " read", False),
        (("read",), (), "read\n", False),
        (("read",), (), "Read", False),
        (("read", "stat"), (), "stat", True),
        (("*",), ("wipe",), "wipe", False),
        (("wipe",), ("wipe",), "wipe", False),
        (("file.?",), (), "file.a", True),
        (("file.?",), (), "fileXa", False),
        (("[a-c]1",), (), "b1", True),
        (("[!a-c]1",), (), "b1", False),
        (("a[b",), (), "a[b", True),
        (("a[[]*",), (), "a[]", True),
        (("(x)+$",), (), "(x)+$", True),
        (("*",), (), "any\nlines", True),
        ((), ("*",), "", False),
        (("é*",), (), "e\u0301", False),
        ((), ("*/*",), "files/wipe", False),
    ],
)
def test_a_tool_passes_by_its_exact_name(
    allowed: tuple[str, ...], denied: tuple[str, ...], name: str, passes: bool
) -> None:
    """What is denied stays denied; with one name allowed all others are not."""
    policy = ToolPolicy(allowed=allowed, denied=denied)
    assert policy.permits(name) is passes
    assert policy.says_something is bool(allowed or denied)


def test_a_pattern_of_many_stars_costs_no_more_than_others() -> None:
    """A name made to be tried in all ways is looked at in reasonable time."""
    policy = ToolPolicy(denied=("*a" * 20 + "b",))
    assert policy.permits("a" * 10_000)


def test_an_empty_pattern_is_refused() -> None:
    """It is most likely a variable that is not set."""
    with pytest.raises(ValueError, match="matches no name"):
        tool_glob("")
    assert tool_glob("read_*") == "read_*"


@pytest.mark.parametrize(
    "method",
    [
        "Tools/Call",
        "tools/call ",
        "\ttools/call",
        "tools//call",
        "/tools/call",
        "tools.call",
        "toolsCall",
        "tools/call\0",
        "tool\u017f/call",
        "tools\uff0fcall",
        "\uff34ools/call",
        "tools/c\u200ball",
        "TOOLS/LIST",
        "tools/list\n",
    ],
)
def test_a_method_that_could_be_read_as_a_guarded_one_is_refused(method: str) -> None:
    """A server that ignores case or blanks would obey it."""
    with pytest.raises(WireError, match=r"could be read as tools/(call|list)"):
        READS.check_method(method)


@pytest.mark.parametrize(
    "method", ["tools/call", "tools/list", "tools/calls", "x/tools/call", "prompts/list", "", "/"]
)
def test_any_other_method_passes(method: str) -> None:
    """Those that are guarded too: their parameters and answers are looked at."""
    READS.check_method(method)


@pytest.mark.parametrize(
    "params",
    [b'{"name":"read_me","arguments":{"name":"wipe"}}', b'{ "name" : "\\u0072ead_me" }'],
)
def test_a_permitted_call_passes(params: bytes) -> None:
    """However its name is spelled."""
    READS.check_call(params)


@pytest.mark.parametrize(
    ("params", "error", "text"),
    [
        (b'{"name":"wipe"}', ToolDenied, "Unknown tool: wipe"),
        (b'{"name":"read_secret"}', ToolDenied, "Unknown tool: read_secret"),
        (b'{"name":"\\u0077ipe"}', ToolDenied, "Unknown tool: wipe"),
        (b'{"name":"%b"}' % (b"w" * 999), ToolDenied, "Unknown tool: " + "w" * 128),
        (b'{"name":""}', ToolDenied, "Unknown tool: "),
        (b'{"name":"read_me","name":"wipe"}', DuplicateMember, "twice"),
        (b'{"name":"read_me","n\\u0061me":"wipe"}', DuplicateMember, "twice"),
        (b'{"name":"read_me","Name":"wipe"}', DuplicateMember, "could be read as"),
        (b'{"NAME":"read_me"}', DuplicateMember, "could be read as"),
        (b'{"name":["read_me"]}', WireError, "params.name"),
        (b'{"name":null}', WireError, "params.name"),
        (b'{"name":"read_\\ud800"}', WireError, "params.name"),
        (b"{}", WireError, "params.name"),
        (None, WireError, "params.name"),
        (b'["read_me"]', WireError, "an object"),
    ],
)
def test_any_other_call_does_not(params: bytes | None, error: type[WireError], text: str) -> None:
    """Denied, or a name that the server might read as another than we do."""
    with pytest.raises(error) as raised:
        READS.check_call(params)
    assert text in str(raised.value)
    if error is ToolDenied:
        assert str(raised.value) == text


KEPT = b'{"name" : "read_a", "n":1.00,"big":12345678901234567890}'
ODD = b'{"name":"r\\u0065ad_b","x":"\\ud800"}'
GONE = b'{"inputSchema":{"name":"read_a"},"name":"wipe"}'


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (b'{"tools":[]}', None),
        (b'{"tools": [ %b , %b ] }' % (KEPT, ODD), None),
        (b'{"nextCursor":"2"}', None),
        (b'{"tools":null}', None),
        (b'{"tools":[%b]}' % GONE, b'{"tools":[]}'),
        (b'{ "tools":[%b],"nextCursor":"2" }' % GONE, b'{ "tools":[],"nextCursor":"2" }'),
        (
            b'{"_meta":{"a":1.0},"tools": [ %b ,\t%b\r\n, %b ],"ttlMs":5}' % (KEPT, GONE, ODD),
            b'{"_meta":{"a":1.0},"tools": [%b,%b],"ttlMs":5}' % (KEPT, ODD),
        ),
        (b'{"tools":[%b,%b]}' % (GONE, KEPT), b'{"tools":[%b]}' % KEPT),
        (b'{"tools":[7,null,[],{"name":7},{},%b]}' % KEPT, b'{"tools":[%b]}' % KEPT),
        (b'{"tools":[{"name":"read_a","name":"wipe"}]}', b'{"tools":[]}'),
    ],
)
def test_a_list_loses_what_is_denied_and_nothing_else(
    result: bytes, expected: bytes | None
) -> None:
    """The bytes of what stays are the server's; an empty page keeps its cursor."""
    assert READS.listed(result) == (result if expected is None else expected)


@pytest.mark.parametrize(
    "result",
    [
        b'{"tools":[],"tools":[]}',
        b'{"tools":[],"Tools":[]}',
        b'{"tools":{"wipe":{}}}',
        b'[{"name":"wipe"}]',
        b'"wipe"',
    ],
)
def test_a_list_in_which_others_could_read_more_is_none(result: bytes) -> None:
    """Nothing of it can be shown."""
    with pytest.raises(WireError):
        READS.listed(result)


NAMES = st.one_of(st.sampled_from(["read_a", "stat", "wipe", "read_secret"]), st.text())
TOOLS = st.lists(st.fixed_dictionaries({"name": NAMES}, optional={"title": st.text()}), max_size=6)


@pytest.mark.slow
@given(TOOLS, st.booleans(), st.sampled_from([None, 1]))
def test_lists_and_calls_agree(tools: list[Any], ascii_only: bool, indent: int | None) -> None:
    """A tool stands in the list exactly if it may be called; the order stays."""
    result = json.dumps({"tools": tools}, ensure_ascii=ascii_only, indent=indent).encode(
        "utf-8", "surrogatepass"
    )
    shown = json.loads(READS.listed(result))["tools"]
    assert shown == [tool for tool in tools if _callable(json.dumps(tool).encode())]


def _callable(params: bytes) -> bool:
    try:
        READS.check_call(params)
    except WireError:
        return False
    return True
