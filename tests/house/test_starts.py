"""Tests start the program through the harness that asserts how it must end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mcpbridge.http.server.lazy_import import LEFT_OUT

TESTS = Path(__file__).parents[1]
STARTS = re.compile(r'"-m",\s*"mcpbridge"|-m mcpbridge(?![.\w])')
ALLOWED = {
    "support/bridge_process.py": "the harness itself",
    "support/smoke.py": "it runs on Windows too, by the standard library alone",
    "support/doctor.py": "mcpbridge doctor serves nobody",
    "e2e/test_cli.py": "words that end it at once; their whole output is compared",
    "e2e/test_doctor.py": "mcpbridge doctor serves nobody",
    "e2e/test_shim.py": "mcpbridge health asks once and ends",
    "e2e/test_host.py": "its log is taken away from it",
    "e2e/test_dev_servers.py": "mcpbridge replay is a server",
    "e2e/test_tail.py": "mcpbridge tail serves nobody",
    "interop/test_recordings.py": "mcpbridge replay is a server",
    "e2e/test_replay.py": "mcpbridge replay is a server, and tape ends at once",
}
"""Each with the reason why it may start the program by itself."""
SKIPPED = ("house", "node_modules", "__pycache__")


def test_the_program_is_started_by_the_harness() -> None:
    """It asserts exit status 0, no process left, no error in the log: so no 500 anywhere."""
    found = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("*.py")
        if not set(path.parts) & set(SKIPPED) and _starts(path.read_text("utf-8"))
    }
    assert "support/bridge_process.py" in found
    assert found - ALLOWED.keys() == set()


def _starts(text: str) -> bool:
    # What stands in a docstring is only told.
    return STARTS.search(re.sub(r'"""[\s\S]*?"""', "", text)) is not None


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("mcpbridge.app.lifecycle, mcpbridge.cli.serve", {"mcpbridge.reverse", "mcpbridge.client"}),
        (
            "mcpbridge.app.lifecycle, mcpbridge.cli.serve, mcpbridge.config.load",
            {
                "mcpbridge.config.remote_server",
                "mcpbridge.config.servers_file",
                "mcpbridge.process.socket_child",
                "mcpbridge.process.windows",
                "mcpbridge.rules.expansion",
            },
        ),
        (
            "mcpbridge.app.lifecycle, mcpbridge.cli.serve",
            {
                "mcpbridge.replicas",
                "mcpbridge.http.peers",
                "mcpbridge.app.replicas",
                "mcpbridge.stores",
            },
        ),
        ("mcpbridge.app.replicas", {"mcpbridge.stores", "mcpbridge.replicas.claims", "redis"}),
        ("mcpbridge.app.servers_lifecycle", {"mcpbridge.reverse", "mcpbridge.client", "httpx"}),
        ("mcpbridge.reverse.program", {"mcpbridge.bridge", "mcpbridge.http", "starlette"}),
        # A container's engine starts it every half minute.
        (
            "mcpbridge.cli.main, mcpbridge.cli.health, mcpbridge.app.health_client",
            {"asyncio", "ssl", "json", "http.client", "msgspec", "anyio", "httpx", "uvicorn"},
        ),
    ],
)
def test_a_program_imports_nothing_of_another(program: str, absent: set[str]) -> None:
    """The bridge pays nothing for `connect`, and `connect` nothing for the bridge."""
    look = f"import sys, {program}; print({absent} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


def test_nothing_heavy_is_imported_before_signals_are_held() -> None:
    """As process 1 a signal that comes before is lost."""
    look = "import sys, mcpbridge.cli.main; print({'click', 'anyio', 'msgspec'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


def test_no_code_is_generated_for_records() -> None:
    """A dataclass compiles what it generates at every start; a struct of msgspec does not."""
    look = """
import dataclasses, inspect, sys, mcpbridge.app.servers_lifecycle, mcpbridge.cli.serve
modules = [each for name, each in sys.modules.items() if name.startswith("mcpbridge.")]
classes = [each for module in modules for each in vars(module).values() if inspect.isclass(each)]
own = [each for each in classes if each.__module__.startswith("mcpbridge.")]
assert len(own) > 100
print([each for each in own if dataclasses.is_dataclass(each)])
"""
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


@pytest.mark.parametrize(
    ("program", "imported"),
    [
        ("serve.program([], {})", "mcpbridge.app.lifecycle, mcpbridge.app.servers_lifecycle"),
        ("sidecar.program([])", "mcpbridge.sidecar.program"),
    ],
)
def test_a_program_imports_no_part_of_a_library_that_it_does_not_use(
    program: str, imported: str
) -> None:
    """Such parts bring many modules with them; they can still be imported afterwards."""
    look = f"""
import sys
from mcpbridge.cli import serve, sidecar
{program}
import {imported}
named = {sorted(LEFT_OUT)}
brought = ["multiprocessing", "watchfiles"]
print({{*named, *brought}} & set(sys.modules))
import importlib
for name in named:
    importlib.import_module(name)
from uvicorn.supervisors import Multiprocess
print(Multiprocess.__module__)
"""
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\nuvicorn.supervisors.multiprocess\n"
