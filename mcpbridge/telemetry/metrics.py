"""Counts, durations and gauges as plain numbers; `prometheus` renders them for each scrape.

One object, made in `app.build` and handed down. Labels have few values and never come from a peer:
an unknown method is `other`, and so is a tool that no `tools/list` has named. Each call costs a few
additions here; the cost of rendering is paid by the scraper.
"""

from __future__ import annotations

import collections
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping

import msgspec

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
"""Upper bounds of duration buckets: those of the MCP semantic conventions, and smaller ones."""
MAX_TOOLS = 200
"""Most tools with separate series; tools named later are `other`."""
OTHER = "other"

_TOOLS_CALL = "tools/call"
_MAX_NAME = 128
_NAME_FIRST = b'{"name":"'
_BACKSLASH = ord("\\")

Label = str | tuple[str, ...]
"""The value of a family's label, or of its labels in their order."""
Gauge = Callable[[], float | Mapping[str, float]]
"""Reads a gauge: one value, or one for each value of its label."""


class Histogram:
    """The number of durations in each bucket, and their sum."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        """By bucket, not cumulative; the last one has no bound."""
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Add one duration."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total_s += seconds

    def add(self, other: Histogram) -> None:
        """Add the durations of another histogram."""
        self.total_s += other.total_s
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]


class CallMeter:
    """The calls of one method or one tool."""

    __slots__ = ("method", "outcomes", "seconds", "tool")

    def __init__(self, method: str, tool: str = "") -> None:
        self.method = method
        self.tool = tool
        """Empty for a method other than `tools/call`."""
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.seconds = Histogram()

    def ended(self, outcome: str, seconds: float) -> None:
        """Count one finished call."""
        self.outcomes[outcome] += 1
        self.seconds.observe(seconds)


class _Named(msgspec.Struct):
    name: str


class _ToolList(msgspec.Struct):
    tools: list[_Named]


_named_decoder = msgspec.json.Decoder(_Named)
_list_decoder = msgspec.json.Decoder(_ToolList)


class CallMeters:
    """The meters of all known methods and tools, and one for all others."""

    def __init__(self, methods: Collection[str]) -> None:
        self._methods = {method: CallMeter(method) for method in methods}
        self._other = CallMeter(OTHER)
        self._other_tool = CallMeter(_TOOLS_CALL, OTHER)
        self._tools: dict[bytes, CallMeter] = {}
        self._last_list = b""
        self._last_tools = 0

    def __iter__(self) -> Iterator[CallMeter]:
        """Return the meters that have counted anything."""
        everything = (*self._methods.values(), *self._tools.values(), self._other, self._other_tool)
        return (meter for meter in everything if meter.outcomes)

    def meter(self, method: str, params: bytes | None) -> CallMeter:
        """Return the meter of a call, by its method and the tool that its params name."""
        if method == _TOOLS_CALL:
            return self._tool(params or b"")
        return self._methods.get(method, self._other)

    def learn(self, result: bytes) -> int:
        """Create a meter for each tool that a result of `tools/list` names; return their number."""
        # Clients ask again and again, and the list is nearly always the one before.
        if result == self._last_list:
            return self._last_tools
        self._last_list, self._last_tools = result, 0
        try:
            tools = _list_decoder.decode(result).tools
        except msgspec.MsgspecError:
            return 0
        self._last_tools = len(tools)
        for tool in tools:
            name = tool.name.encode()
            # A name with a backslash could be spelled like another name in a call.
            fits = 0 < len(name) <= _MAX_NAME and _BACKSLASH not in name
            if fits and len(self._tools) < MAX_TOOLS:
                self._tools.setdefault(name, CallMeter(_TOOLS_CALL, tool.name))
        return self._last_tools

    def _tool(self, params: bytes) -> CallMeter:
        # The usual spelling is found without a parser; a wrong guess finds no tool.
        start = len(_NAME_FIRST)
        if params[:start] == _NAME_FIRST:
            plain, quote, _ = params[start : start + _MAX_NAME + 1].partition(b'"')
            if quote and _BACKSLASH not in plain:
                return self._tools.get(plain, self._other_tool)
        try:
            name = _named_decoder.decode(params).name
        except msgspec.MsgspecError:
            return self._other_tool
        return self._tools.get(name.encode(), self._other_tool)


class HttpMeter:
    """The requests and bytes of one HTTP listener."""

    def __init__(self) -> None:
        self.requests: collections.Counter[tuple[str, int]] = collections.Counter()
        """By HTTP method and status; 499 if the client left before there was one."""
        self.received_bytes = 0
        """Bytes of request bodies."""
        self.sent_bytes = 0
        """Bytes of response bodies."""

    def answered(self, method: str, status: int, received: int, sent: int) -> None:
        """Count a request, the bytes of its body and those of its response's body."""
        self.requests[method, status] += 1
        self.received_bytes += received
        self.sent_bytes += sent

    def count(self, received: int, sent: int) -> None:
        """Add the bytes of a request's body and of its response's body."""
        self.received_bytes += received
        self.sent_bytes += sent


class Meters:
    """All counters, durations and gauges; written from the event loop only."""

    def __init__(self, methods: Collection[str] = ()) -> None:
        """Begin at zero.

        Args:
            methods: The methods with separate meters; all others are `other`.
        """
        self._counts: collections.Counter[str] = collections.Counter()
        self.tallies: dict[str, collections.Counter[Label]] = {}
        """Counters with labels: by family, then by the values of its labels."""
        self.histograms: dict[str, Histogram] = {}
        self.gauges: dict[str, Gauge] = {}
        self.calls = CallMeters(methods)
        self.http = HttpMeter()

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter of dropped, shed or refused messages."""
        self._counts[name] += by

    def counts(self) -> Mapping[str, int]:
        """Return the counters of `count` that are not zero, by name."""
        return dict(sorted(self._counts.items()))

    def tally(self, family: str, label: Label, by: int = 1) -> None:
        """Add to a counter of a family; `prometheus.TALLIES` lists the families."""
        # Not by `setdefault`: a counter would be made each time, for thousands of instructions.
        found = self.tallies.get(family)
        if found is None:
            found = self.tallies[family] = collections.Counter()
        found[label] += by

    def observe(self, family: str, seconds: float) -> None:
        """Add a duration to a histogram; `prometheus.HISTOGRAMS` lists them."""
        found = self.histograms.get(family)
        if found is None:
            found = self.histograms[family] = Histogram()
        found.observe(seconds)

    def watch(self, family: str, read: Gauge) -> None:
        """Register a function that reads a gauge; `prometheus.GAUGES` lists them."""
        self.gauges[family] = read
