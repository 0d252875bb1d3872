"""Writes the SBOM of the wheel in dist/: `python -m scripts.sbom FOLDER`.

The wheel is installed with every extra of its users, at the releases of constraints.txt, and syft
lists what was installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.sbom.syft import spdx

TOP = Path(__file__).resolve().parents[2]
EXTRAS = "dev-proxy,login,oauth,otel,redis"


def write(wheel: Path, folder: Path) -> Path:
    """Write the SBOM of a wheel into the folder and return its path.

    Raises:
        subprocess.CalledProcessError: pip or syft failed; the terminal says why.
    """
    name, version = wheel.name.split("-")[:2]
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f"{name}-{version}.spdx.json"
    with tempfile.TemporaryDirectory(prefix="mcpbridge-sbom-") as scratch:
        venv = Path(scratch, "venv")
        # Without pip: it would be listed.
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        python = ("--python", str(venv / "bin" / "python"))
        asked = ("-c", str(TOP / "constraints.txt"), f"{wheel}[{EXTRAS}]")
        pip = (sys.executable, "-m", "pip", *python, "install", "-q", *asked)
        subprocess.run(pip, check=True)
        written.write_text(spdx(f"dir:{venv}", name, version), "utf-8")
    return written


def main() -> None:
    """Write the SBOM of the one wheel in dist/."""
    found = sorted((TOP / "dist").glob("*.whl"))
    if len(found) != 1:
        sys.exit(f"make sbom: {len(found)} wheels in dist/ (expected 1: make package-test)")
    sys.stdout.write(f"{write(found[0], Path(sys.argv[1]))}\n")


if __name__ == "__main__":
    main()
