"""The package keeps the house rules that no off-the-shelf tool checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house import checks
from tests.support.proofs import proves

ROOT = Path(__file__).parents[2]
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in sorted((ROOT / "mcpbridge").rglob("*.py"))
}

BROAD_EXCEPTS = {
    "mcpbridge/http/app.py": "a bug in one request is that request's 500",
    "mcpbridge/http/server/connection.py": "a bug met by one connection ends that connection",
    "mcpbridge/bridge/tasks.py": "a bug in the work of one session is that session's end",
    "mcpbridge/bridge/children/child_pool.py": "a bug met by one child's message ends that child",
    "mcpbridge/fleet/member.py": "a bug that ends one server's tasks ends no other server",
    "mcpbridge/app/lifecycle.py": "the last place that can log, and the exit status",
}
"""Where everything may be caught, each with its reason."""

# A browser is not a process of a server: it is not counted, and outlives mcpbridge.
PROCESS_STARTS = ("mcpbridge/process/", "mcpbridge/dev/page/opener.py")
# The demo is a separate program, which only happens to be installed with the bridge.
SIGNAL_HANDLING = (
    "mcpbridge/runtime/signals.py",
    "mcpbridge/demo.py",
)
WALL_CLOCK = {
    "mcpbridge/bridge/modern/emulation.py": "the state of a parked call expires on any replica",
    "mcpbridge/app/replicas.py": "ids and proofs of other replicas say when they were made",
    "mcpbridge/http/peers/forwarding.py": "the state of a parked call expires on any replica",
    "mcpbridge/http/auth/oauth.py": "tokens say by the time of day when they end",
    "mcpbridge/bridge/reloader.py": "says to people when a reload was",
    "mcpbridge/tape/recording.py": "says to people when a message passed",
    "mcpbridge/tape/tapped_channel.py": "says to people when a message passed",
}
"""Where the time of day is asked for, each with its reason."""
ASSIGNMENTS_INTO_OTHERS = {
    "mcpbridge/config/command.py": "shlex is set up so",
    "mcpbridge/app/health_client.py": "ssl's contexts are set up so",
    "mcpbridge/http/server/tls.py": "ssl's contexts are set up so",
    "mcpbridge/sidecar/program.py": "ssl's contexts are set up so",
    "mcpbridge/doctor/endpoint/mcp_client.py": "anyio's deadlines are moved so",
    "mcpbridge/reverse/session/sse_session.py": "anyio's deadlines are moved so",
    "mcpbridge/process/socket_child.py": "anyio's deadlines are moved so",
    "mcpbridge/process/subprocess_child.py": "anyio's deadlines are moved so",
    "mcpbridge/http/server/connection.py": "uvicorn's counter, and its switch for keep-alive",
    "mcpbridge/sidecar/upstream.py": "httpx normalises a path that is not set after",
    "mcpbridge/telemetry/logs.py": "records of logging carry what a handler adds, and its switch",
}
"""Where attributes of objects of libraries are assigned, each with its reason."""
ENVIRONMENT_READS = ("mcpbridge/config/",)


def _findings(check: Callable[[str], list[str]], allowed: tuple[str, ...] = ()) -> list[str]:
    """Findings in all of the package but the paths that begin with one of `allowed`."""
    return [
        f"{path}:{finding}"
        for path, text in SOURCES.items()
        if not path.startswith(allowed)
        for finding in check(text)
    ]


def test_the_package_is_looked_at() -> None:
    """None of the tests below passes because nothing was read."""
    assert {"mcpbridge/__init__.py", "mcpbridge/demo.py"} <= set(SOURCES)
    assert all(SOURCES.values())


@pytest.mark.parametrize(
    "check",
    [
        checks.overlong_functions,
        checks.undocumented,
        checks.machine_paths,
    ],
)
def test_every_module_keeps_the_rule(check: Callable[[str], list[str]]) -> None:
    """Sizes, docstrings and paths know no exceptions."""
    assert _findings(check) == []


def test_everything_is_caught_in_few_places() -> None:
    """`except Exception` stands where one failure must not become that of all."""
    assert _findings(checks.broad_excepts, tuple(BROAD_EXCEPTS)) == []
    assert all(checks.broad_excepts(SOURCES[path]) for path in BROAD_EXCEPTS)


def test_nothing_is_assigned_into_another_object() -> None:
    """A constructor takes all it needs; what changes later has a method that says so."""
    assert _findings(checks.assignments_into_others, tuple(ASSIGNMENTS_INTO_OTHERS)) == []
    assert all(checks.assignments_into_others(SOURCES[path]) for path in ASSIGNMENTS_INTO_OTHERS)


def test_only_process_starts_processes() -> None:
    """A reader who looks for how a child is started has one folder to read."""
    assert _findings(checks.process_starts, PROCESS_STARTS) == []


def test_signals_are_taken_in_one_place() -> None:
    """Two owners of SIGTERM would mean two orders of ending."""
    assert _findings(checks.signal_handling, SIGNAL_HANDLING) == []


def test_only_config_reads_the_environment() -> None:
    """All the others are given what they need, so that a test can give it too."""
    assert _findings(checks.environment_reads, ENVIRONMENT_READS) == []


@proves("fault 107")
def test_no_interval_is_measured_with_a_clock_that_may_jump() -> None:
    """A year forward ends no session, a day back holds up no deadline."""
    assert _findings(checks.wall_clock, tuple(WALL_CLOCK)) == []


def test_the_demo_needs_only_an_interpreter() -> None:
    """It runs as a child under whatever Python the reader of the README has."""
    assert checks.imports_beyond_the_standard_library(SOURCES["mcpbridge/demo.py"]) == []
