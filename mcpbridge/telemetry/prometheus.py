"""Renders the meters for Prometheus: every family with its name, kind, help and labels.

Imported at the first scrape: prometheus-client and its imports need more memory than all other
telemetry of an idle bridge.

Source: Prometheus, Metric and label naming; Exposition formats; OpenMetrics 1.0.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from mcpbridge import __version__
from mcpbridge.telemetry.metrics import SECONDS, CallMeter, Histogram, Label, Meters

TALLIES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "call_faults": ("Calls that the bridge answered in the server's place.", ("reason",)),
    "sessions": ("Sessions that began.", ("transport",)),
    "sessions_ended": ("Sessions that ended.", ("reason",)),
    "child_starts": ("Server processes started.", ("use",)),
    "child_exits": ("Server processes that ended.", ("how", "asked")),
    "child_start_failures": ("Server processes that could not be started.", ()),
    "crashes_charged": ("Ends of a shared server process that a client was charged with.", ()),
    "child_restarts": ("Starts of a shared server process after its end.", ()),
    "shared_fallbacks": (
        "Sessions and calls that the shared process served because all processes were taken.",
        (),
    ),
    "requests_refused": ("HTTP requests that were refused before they were served.", ("reason",)),
    "refusals": ("Requests refused because a limit is reached.", ("limit",)),
    "forwards": (
        "Requests for a session of another replica, by what became of them.",
        ("outcome",),
    ),
    "adoptions": (
        "Requests for a session whose replica was lost and that has another home, by the reason.",
        ("because",),
    ),
    "handovers": (
        "Sessions that were offered to other replicas at the end of this one, by what became of"
        " them, and those that others have handed over to it: `taken`.",
        ("outcome",),
    ),
    "asks": (
        "Questions to other replicas about sessions, by the answer; `none`: it did not come.",
        ("answer",),
    ),
    "placements": (
        "Sessions that were to open at a full or ending replica, by where they do.",
        ("where",),
    ),
    "yields": ("Sessions that ended here because another replica had taken them over.", ()),
    "store_errors": ("Questions to the store of replicas (`--store`) that failed.", ()),
    "gave_way": ("What ended early so that another client has its share.", ("what",)),
    "memory_cuts": ("Ended because they held most of `--max-memory`.", ("account",)),
    "memory_shed_bytes": ("Bytes kept for resumption that were let go near `--max-memory`.", ()),
}
"""Counters, by the name that `Meters.tally` is given: help and labels."""

HISTOGRAMS: Final[Mapping[str, str]] = {
    "child_start_seconds": "From the start of a server process to the end of its handshake.",
    "forward_seconds": "From a forwarded request to the head of the other replica's response.",
    "session_duration_seconds": "From the beginning of a session to its end.",
}

GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "calls_in_flight": ("Calls that have no final answer yet.", ""),
    "sessions_open": ("Sessions that are open.", ""),
    "sessions_max": ("Sessions that may be open at once; one more ends an idle one.", ""),
    "streams_open": ("Event streams that a client reads.", ""),
    "children": ("Running server processes.", ""),
    "children_max": ("Server processes that may run at once.", ""),
    "memory_kept_bytes": ("Bytes that count towards `--max-memory`.", "account"),
    "memory_kept_max_bytes": ("Bytes that `--max-memory` allows.", ""),
    "fill": (
        "The largest part in use of sessions, server processes and kept memory; 1 is full.",
        "",
    ),
    "moved_sessions": (
        "Sessions that were handed over, and whose requests are led to their new replica.",
        "",
    ),
    "peers": ("Other replicas that are known.", ""),
    "store_up": ("1 if the store of replicas (`--store`) took the last heartbeat.", ""),
    "ready": ("1 if `/readyz` answers 200.", ""),
    "missing": ("1 for each thing that is missing for readiness.", "what"),
    "drain_phase": ("1 for the current phase of the shutdown.", "phase"),
}
"""By the name that `Meters.watch` is given: help, and the label if there is one."""

_NOISE = "stdout_"


class Export:
    """An exposition of one bridge's meters and of the process's own figures."""

    def __init__(self, meters: Meters) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(BridgeCollector(meters))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """Return the text for a scraper and its content type, which `Accept` may choose."""
        encode, content_type = choose_encoder(accept or "")
        return encode(self._registry), content_type


class BridgeCollector(Collector):
    """A collector that turns meters into families at each scrape and keeps no samples."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    def collect(self) -> Iterator[Metric]:
        """Yield every family, in a fixed order."""
        yield from self.of_process()
        yield from self.of_server()

    def of_process(self) -> Iterator[Metric]:
        """Yield what a process has once, though it may have several servers."""
        build = InfoMetricFamily("mcpbridge_build", "The running version.")
        python = ".".join(str(part) for part in sys.version_info[:3])
        build.add_metric((), {"version": __version__, "python": python})
        yield build
        yield from self._http()

    def counted(self) -> Iterator[Metric]:
        """Yield the counters that are not zero."""
        for family in (*self._tallies(), *self._dropped()):
            counted = Metric(family.name, family.documentation, family.type)
            counted.samples.extend(each for each in family.samples if each.value)
            yield counted

    def of_server(self) -> Iterator[Metric]:
        """Yield what each server has."""
        yield from self._calls()
        yield from self._tallies()
        yield from self._dropped()
        for name, text in HISTOGRAMS.items():
            found = self._meters.histograms.get(name)
            yield _histogram(name, text, (), [((), found or Histogram())])
        for name, read in self._meters.gauges.items():
            value = read()
            text, label = GAUGES[name]
            gauge = GaugeMetricFamily(f"mcpbridge_{name}", text, labels=[label] if label else [])
            if isinstance(value, Mapping):
                for label_value, number in value.items():
                    gauge.add_metric([label_value], number)
            else:
                gauge.add_metric([], value)
            yield gauge

    def _calls(self) -> Iterator[Metric]:
        meters = list(self._meters.calls)
        calls = CounterMetricFamily(
            "mcpbridge_calls", "Calls with a final answer.", labels=["method", "outcome"]
        )
        tools = CounterMetricFamily(
            "mcpbridge_tool_calls", "Calls of tools.", labels=["tool", "outcome"]
        )
        by_method: dict[str, list[CallMeter]] = {}
        for meter in meters:
            by_method.setdefault(meter.method, []).append(meter)
            for outcome, number in meter.outcomes.items() if meter.tool else ():
                tools.add_metric([meter.tool, outcome], number)
        for method, parts in by_method.items():
            outcomes = {outcome for part in parts for outcome in part.outcomes}
            for outcome in sorted(outcomes):
                number = sum(part.outcomes[outcome] for part in parts)
                calls.add_metric([method, outcome], number)
        yield calls
        yield tools
        text = "From a call's arrival to its final answer."
        merged = [((method,), _sum(parts)) for method, parts in by_method.items()]
        yield _histogram("call_duration_seconds", text, ("method",), merged)
        single = [((meter.tool,), meter.seconds) for meter in meters if meter.tool]
        yield _histogram("tool_call_duration_seconds", text, ("tool",), single)

    def _http(self) -> Iterator[Metric]:
        http = self._meters.http
        requests = CounterMetricFamily(
            "mcpbridge_http_requests",
            "HTTP requests with a response; 499: the client left before the response.",
            labels=["method", "status"],
        )
        for (method, status), number in http.requests.items():
            requests.add_metric([method, str(status)], number)
        yield requests
        size = CounterMetricFamily(
            "mcpbridge_http_body_bytes", "Bodies of requests and responses.", labels=["direction"]
        )
        size.add_metric(["in"], http.received_bytes)
        size.add_metric(["out"], http.sent_bytes)
        yield size

    def _tallies(self) -> Iterator[Metric]:
        for name, (text, labels) in TALLIES.items():
            family = CounterMetricFamily(f"mcpbridge_{name}", text, labels=labels)
            counts: Mapping[Label, int] = self._meters.tallies.get(name, {})
            for label, number in counts.items():
                values = (label,) if isinstance(label, str) else label
                family.add_metric(values, number)
            # Without it the series would begin at 1, and `rate` would not see the first event.
            if not labels and not counts:
                family.add_metric((), 0)
            yield family

    def _dropped(self) -> Iterator[Metric]:
        counts = self._meters.counts()
        noise = CounterMetricFamily(
            "mcpbridge_child_noise_lines",
            "Lines on a server's stdout that are not messages.",
            labels=["reason"],
        )
        dropped = CounterMetricFamily(
            "mcpbridge_dropped",
            "Messages that were dropped, shed, merged or declined.",
            labels=["reason"],
        )
        for name, number in counts.items():
            if name.startswith(_NOISE):
                noise.add_metric([name.removeprefix(_NOISE)], number)
            else:
                dropped.add_metric([name], number)
        yield noise
        yield dropped


def _sum(parts: Iterable[CallMeter]) -> Histogram:
    whole = Histogram()
    for part in parts:
        whole.add(part.seconds)
    return whole


def _histogram(
    name: str,
    text: str,
    labels: tuple[str, ...],
    entries: Iterable[tuple[tuple[str, ...], Histogram]],
) -> Metric:
    family = HistogramMetricFamily(f"mcpbridge_{name}", text, labels=labels)
    bounds = [*(str(float(bound)) for bound in SECONDS), "+Inf"]
    for values, histogram in entries:
        sums = itertools.accumulate(histogram.counts)
        buckets = list(zip(bounds, sums, strict=True))
        family.add_metric(values, buckets, histogram.total_s)
    return family
