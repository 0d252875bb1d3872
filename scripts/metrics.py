"""The page of metrics: `python -m scripts.metrics docs/metrics.md` writes it.

The families come from the collector that answers `/metrics`, over meters that have counted one of
everything.
"""

from __future__ import annotations

import sys
from pathlib import Path

from prometheus_client import Metric

from mcpbridge.telemetry.metrics import Meters
from mcpbridge.telemetry.prometheus import GAUGES, TALLIES, BridgeCollector

_HEAD = """\
# Metrics

Made by `make docs`; do not edit. `/metrics` serves these, and the process's own figures
(`process_cpu_seconds_total`, `process_resident_memory_bytes` and the like). A counter's samples end
in `_total`; durations are histograms in seconds.

| metric | kind | labels | says |
|---|---|---|---|
"""
_SECONDS = 0.1
_NO_LABELS = {"le"}
"""Labels that every histogram has."""


def families() -> list[Metric]:
    """Return every family that `/metrics` may serve, each with a sample."""
    meters = Meters(["tools/list"])
    meters.calls.learn(b'{"tools":[{"name":"echo"}]}')
    meters.calls.meter("tools/list", None).ended("ok", _SECONDS)
    meters.calls.meter("tools/call", b'{"name":"echo"}').ended("ok", _SECONDS)
    meters.http.requests[("POST", 200)] += 1
    for name, (_, labels) in TALLIES.items():
        meters.tally(name, labels)
    for name, (_, label) in GAUGES.items():
        meters.watch(name, _labelled if label else _plain)
    meters.count("late_reply")
    meters.count("stdout_text")
    return list(BridgeCollector(meters).collect())


def page() -> str:
    """Return the page as Markdown."""
    return _HEAD + "".join(_row(family) for family in families())


def _row(family: Metric) -> str:
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    found = {label for sample in family.samples for label in sample.labels} - _NO_LABELS
    labels = ", ".join(f"`{label}`" for label in sorted(found))
    return f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |\n"


def _plain() -> float:
    return 1


def _labelled() -> dict[str, float]:
    return {"one": 1}


def main() -> None:
    """Write the page to the file named on the command line."""
    Path(sys.argv[1]).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
