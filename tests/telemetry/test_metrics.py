"""What is counted under which label, and that labels stay few whatever comes."""

from __future__ import annotations

import msgspec
import pytest

from mcpbridge.rules.mcp.methods import KNOWN_REQUESTS
from mcpbridge.telemetry.metrics import MAX_TOOLS, OTHER, SECONDS, CallMeters, Histogram, Meters


def listing(*names: str) -> bytes:
    """The result of a `tools/list`."""
    return msgspec.json.encode({"tools": [{"inputSchema": {}, "name": name} for name in names]})


@pytest.mark.parametrize(
    ("params", "tool"),
    [
        (b'{"name":"echo","arguments":{}}', "echo"),
        (b'{"arguments":{"name":"x"},"name":"echo"}', "echo"),
        (b'{"_meta":{}, "name" : "echo"}', "echo"),
        (b'{"name":"\\u0065cho"}', "echo"),
        (b'{"name":"gr\xc3\xbc\xc3\x9fe"}', "gr\u00fc\u00dfe"),
        (b'{"name":"never listed"}', OTHER),
        (b'{"name":"echo', OTHER),
        (b'{"name":7}', OTHER),
        (b"{}", OTHER),
        (None, OTHER),
    ],
)
def test_a_tool_has_a_label_once_a_list_has_named_it(params: bytes | None, tool: str) -> None:
    """Whatever the spelling; every other name is `other`."""
    meters = CallMeters(KNOWN_REQUESTS)
    meters.learn(listing("echo", "gr\u00fc\u00dfe"))

    found = meters.meter("tools/call", params)

    assert (found.method, found.tool) == ("tools/call", tool)


@pytest.mark.parametrize("result", [b"", b"{}", b'{"tools":7}', b'{"tools":[{"x":1}]}'])
def test_a_result_that_lists_nothing_names_nothing(result: bytes) -> None:
    """It is the client's to make sense of."""
    meters = CallMeters(())
    meters.learn(result)

    assert meters.meter("tools/call", b'{"name":""}').tool == OTHER


def test_labels_stay_few_whatever_methods_and_tools_are_made_up() -> None:
    """10 000 of each; of tools that were listed only the first have a label."""
    meters = CallMeters(KNOWN_REQUESTS)
    meters.learn(listing(*(f"listed-{number}" for number in range(10_000)), "x" * 1000, "a\\b", ""))
    for number in range(10_000):
        meters.meter(f"made/up-{number}", None).ended("error", 0.1)
        meters.meter("tools/call", b'{"name":"tool-%d"}' % number).ended("error", 0.1)
        meters.meter("tools/call", b'{"name":"listed-%d"}' % number).ended("ok", 0.1)
    for method in KNOWN_REQUESTS:
        meters.meter(method, None).ended("ok", 0.1)

    assert {meter.method for meter in meters} == KNOWN_REQUESTS | {OTHER}
    assert len({meter.tool for meter in meters}) == MAX_TOOLS + 2
    assert sum(sum(meter.outcomes.values()) for meter in meters) == 30_000 + len(KNOWN_REQUESTS)


def test_a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed() -> None:
    """As Prometheus has it: `le`."""
    histogram = Histogram()
    for seconds in (0.0, SECONDS[0], SECONDS[1], 1000.0):
        histogram.observe(seconds)

    assert histogram.counts[0] == 2
    assert histogram.counts[1] == 1
    assert histogram.counts[-1] == 1
    assert histogram.total_s == pytest.approx(1000.0 + SECONDS[0] + SECONDS[1])


def test_a_counter_that_is_zero_is_not_told() -> None:
    """The last line of a run names what happened."""
    meters = Meters()
    meters.count("b", 2)
    meters.count("a")

    assert meters.counts() == {"a": 1, "b": 2}
