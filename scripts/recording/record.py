"""Records the session of `play` and renders it: `python -m scripts.recording.record FILE.svg`.

Needs asciinema and svg-term, which `make recording` installs, and port 8000.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts import image_sums

TOP = Path(__file__).resolve().parents[2]
COLUMNS, ROWS = 112, 36
_SEARCH = (
    ".venv-mcp1/bin",
    ".venv/bin",
    ".venv-recording/bin",
    "scripts/recording/node_modules/.bin",
)
"""Where the commands are, below the top folder: `python` is that of the server."""
_AS_A_PERSON = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
"""Runs a program of root as another user, who may do no more: mcpbridge warns root."""


def record(picture: Path) -> None:
    """Record the session and write the SVG.

    Raises:
        subprocess.CalledProcessError: A step failed; the terminal says why.
    """
    found = os.pathsep.join(str(TOP / each) for each in _SEARCH)
    env = {**os.environ, "PATH": f"{found}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(TOP)}
    with tempfile.TemporaryDirectory(prefix="mcp-") as folder:
        cast = Path(folder, "session.cast")
        work = Path(folder, "greeter")
        work.mkdir()
        played = f"{TOP / '.venv/bin/python'} -m scripts.recording.play {work}"
        words = ("asciinema", "rec", "-q", "--cols", str(COLUMNS), "--rows", str(ROWS))
        user = _AS_A_PERSON if os.geteuid() == 0 else ()
        subprocess.run([*user, *words, "-c", played, str(cast)], env=env, cwd=TOP, check=True)
        drawn = ("svg-term", "--in", str(cast), "--out", str(picture.resolve()))
        subprocess.run([*drawn, "--window", "--no-cursor"], env=env, check=True)


if __name__ == "__main__":
    record(Path(sys.argv[1]))
    if sys.argv[1] == image_sums.SESSION:
        image_sums.write_sums(image_sums.SESSION)
