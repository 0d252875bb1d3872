"""`make sbom`: what an installation of the built wheel holds, in SPDX."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mcpbridge import __version__
from tests.support.sbom import installed_with, listed, locked

ROOT = Path(__file__).parents[2]
EXTRAS = ("dev-proxy", "login", "oauth", "otel", "redis")
"""Every extra of users; the extra `dev` is for who changes mcpbridge."""

pytestmark = pytest.mark.slow


def test_the_sbom_lists_each_locked_release_and_nothing_else(tmp_path: Path) -> None:
    """The package, its extras and what they pull; no pip, no tools of this repository."""
    words = (sys.executable, "-m", "scripts.sbom", tmp_path)
    done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    written = Path(done.stdout.strip())
    assert written.parent == tmp_path
    assert written.name.endswith(f"-{__version__}.spdx.json")
    document = written.read_text("utf-8")
    assert json.loads(document)["spdxVersion"].startswith("SPDX-")
    pins = {**locked(), "mcpbridge": __version__}
    assert listed(document) == {name: pins[name] for name in installed_with(EXTRAS)}
