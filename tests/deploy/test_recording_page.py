"""The workflow of docs/recording.md: it is sound, and its step compares a server as it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.tools import ROOT, blocks, documents_in, run
from tests.support.bridge_process import interpreter
from tests.support.recorded import recorded

pytestmark = pytest.mark.slow

SERVER = """\
import mcpbridge.demo as demo

demo.TOOLS["greet"] = (lambda call: demo.content("Hello!"), "Greet.", {}, {})
demo.main()
"""
GREET = {"name": "greet", "arguments": {}}
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")
"""What a runner starts for a step with `shell: bash`."""


def workflow() -> str:
    """The only workflow of the page."""
    (text,) = blocks("recording.md", "yaml")
    return text


def steps() -> list[dict[str, Any]]:
    """The steps of its only job."""
    (document,) = documents_in(workflow())
    (job,) = document["jobs"].values()
    found: list[dict[str, Any]] = job["steps"]
    return found


def test_actionlint_finds_nothing() -> None:
    """In the workflow as it is printed."""
    done = run("actionlint", "-no-color", "-", text=workflow())
    assert (done.returncode, done.stdout) == (0, "")


def test_its_actions_are_those_of_this_repository() -> None:
    """Pinned by digest, at the releases that are kept up to date here."""
    ours = "".join(
        path.read_text("utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")
    )
    used = re.findall(r"uses: (\S+@[0-9a-f]{40} # v\S+)$", workflow(), re.MULTILINE)
    assert len(used) == workflow().count("uses:") == 3
    assert [each for each in used if f"uses: {each}\n" not in ours] == []


@pytest.mark.parametrize(
    ("greeting", "status", "failures"),
    [("Hello!", 0, "0"), ("Welcome!", 1, "1")],
    ids=["same", "changed"],
)
async def test_its_step_fails_with_a_report_if_an_answer_differs(
    tmp_path: Path, greeting: str, status: int, failures: str
) -> None:
    """The report is the file that the next step uploads, whatever the result."""
    (tmp_path / "tests").mkdir()
    server = tmp_path / "server.py"
    server.write_text(SERVER, "utf-8")
    calls = [("tools/list", {}), ("tools/call", GREET)]
    await recorded(tmp_path / "tests" / "tape.jsonl", calls, (sys.executable, str(server)))
    server.write_text(SERVER.replace("Hello!", greeting), "utf-8")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (("python", [sys.executable]), ("mcpbridge", interpreter())):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', "utf-8")
        (programs / name).chmod(0o755)
    *_, compare, upload = steps()
    assert compare["shell"] == "bash"
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*BASH, compare["run"]], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert upload["if"] == "${{ !cancelled() }}"
    report = (tmp_path / upload["with"]["path"]).read_text("utf-8")
    assert done.stdout == report
    suites = ET.fromstring(report)
    assert (suites.get("tests"), suites.get("failures")) == ("3", failures)
    assert [each.text for each in suites.iter("failure")] == [
        '$.result.content[0].text: recorded "Hello!", now "Welcome!"'
    ] * int(failures)
