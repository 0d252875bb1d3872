"""The export is what Prometheus' own parsers read, with the types and units that names promise."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain
from prometheus_client.samples import Sample

from mcpbridge.telemetry.metrics import Meters
from mcpbridge.telemetry.prometheus import GAUGES, HISTOGRAMS, TALLIES, Export

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def meters() -> Meters:
    """Meters with something of everything."""
    made = Meters(("tools/call", "ping"))
    made.calls.learn(b'{"tools":[{"name":"say \\"hi\\"\\n"}]}')
    made.calls.meter("tools/call", b'{"name":"say \\"hi\\"\\n"}').ended("ok", 0.02)
    made.calls.meter("tools/call", b'{"name":"else"}').ended("tool_error", 3.0)
    made.calls.meter("ping", None).ended("ok", 0.0001)
    made.calls.meter("x/y", None).ended("error", 1000)
    made.http.requests["POST", 200] += 4
    made.http.received_bytes, made.http.sent_bytes = 10, 20
    for name, (_, labels) in TALLIES.items():
        made.tally(name, tuple(f"a {label}" for label in labels), 3)
    made.tally("call_faults", "timeout")
    for name in HISTOGRAMS:
        made.observe(name, 0.5)
    for name, (_, label) in GAUGES.items():
        made.watch(name, (lambda: {"one": 1.0, "two": 0.0}) if label else (lambda: 7))
    made.count("stdout_noise", 5)
    made.count("unknown_answer", 6)
    return made


def samples(accept: str | None) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of the export, read by the parser that belongs to its content type."""
    body, content_type = Export(meters()).render(accept)
    parse = open_metrics if "openmetrics" in content_type else plain
    found: list[Sample] = [s for family in parse(body.decode()) for s in family.samples]
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in found}


@pytest.mark.parametrize("accept", [None, "text/plain", OPEN_METRICS, "*/*", "nonsense;;q=x"])
def test_every_form_says_the_same(accept: str | None) -> None:
    """Counters end in `_total`, durations in `_seconds` with all their buckets."""
    found = samples(accept)

    assert found["mcpbridge_calls_total", (("method", "tools/call"), ("outcome", "ok"))] == 1
    assert found["mcpbridge_calls_total", (("method", "other"), ("outcome", "error"))] == 1
    tool = (("outcome", "ok"), ("tool", 'say "hi"\n'))
    assert found["mcpbridge_tool_calls_total", tool] == 1
    other = (("outcome", "tool_error"), ("tool", "other"))
    assert found["mcpbridge_tool_calls_total", other] == 1
    name = "mcpbridge_call_duration_seconds"
    assert found[f"{name}_count", (("method", "tools/call"),)] == 2
    assert found[f"{name}_sum", (("method", "tools/call"),)] == pytest.approx(3.02)
    assert found[f"{name}_bucket", (("le", "0.02"), ("method", "tools/call"))] == 1
    assert found[f"{name}_bucket", (("le", "5.0"), ("method", "tools/call"))] == 2
    assert found[f"{name}_bucket", (("le", "300.0"), ("method", "other"))] == 0
    assert found[f"{name}_bucket", (("le", "+Inf"), ("method", "other"))] == 1
    assert found["mcpbridge_http_requests_total", (("method", "POST"), ("status", "200"))] == 4
    assert found["mcpbridge_http_body_bytes_total", (("direction", "out"),)] == 20
    assert found["mcpbridge_child_noise_lines_total", (("reason", "noise"),)] == 5
    assert found["mcpbridge_dropped_total", (("reason", "unknown_answer"),)] == 6
    assert found["mcpbridge_call_faults_total", (("reason", "timeout"),)] == 1
    assert found["mcpbridge_missing", (("what", "one"),)] == 1
    assert found["mcpbridge_children", ()] == 7
    assert found["process_resident_memory_bytes", ()] > 1e6
    assert found["process_open_fds", ()] > 2
    assert any(each == "mcpbridge_build_info" for each, _ in found)


def test_every_family_has_help_and_says_its_own_name() -> None:
    """Nothing of the bridge's stands outside of its prefix; nothing is without a sentence."""
    body, _ = Export(meters()).render(None)
    families = list(plain(body.decode()))

    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith(("mcpbridge_", "process_"))
        assert family.documentation.endswith(".") or family.name.startswith("process_")


def test_an_export_of_nothing_is_whole() -> None:
    """The first scrape may come before the first call."""
    body, _ = Export(Meters()).render(OPEN_METRICS)

    families = open_metrics(body.decode())  # type: ignore[no-untyped-call] # as it is shipped
    assert any(family.name == "mcpbridge_calls" for family in families)


@pytest.mark.slow
def test_an_idle_bridge_has_imported_none_of_it() -> None:
    """What is not asked for costs neither memory nor time to start."""
    program = (
        "import sys, mcpbridge.app.lifecycle\n"
        "heavy = {'prometheus_client', 'opentelemetry', 'httpx', 'requests'}\n"
        "heavy |= {'sse_starlette'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30
    )

    assert ran.stdout.strip() == "[]"
