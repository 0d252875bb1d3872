"""Runs syft, which `make .venv-sbom/stamp` installs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
_PROGRAM = TOP / ".venv-sbom" / "bin" / "syft"


def spdx(source: str, name: str, version: str) -> str:
    """Return what syft finds in `dir:FOLDER` or `docker-archive:FILE`, as SPDX in JSON.

    Raises:
        subprocess.CalledProcessError: syft failed; its last words are on standard error.
    """
    # It would ask its own site for a newer release.
    env = {**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"}
    words = ("scan", source, "--source-name", name, "--source-version", version)
    done = subprocess.run(
        [_PROGRAM, *words, "-q", "-o", "spdx-json"],
        env=env,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout
