"""Checksums of the pictures that only a browser or a terminal can make again, and of their sources.

Beside each picture stands a file that `sha256sum --check` reads from the top folder. Whatever makes
the picture writes it, so that a source that changed afterwards is noticed.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE, SESSION = "docs/images/dev-page.png", "docs/images/session.svg"
SOURCES = {
    PAGE: ("mcpbridge/dev/page/events.py", "mcpbridge/dev/page/page.html"),
    SESSION: (
        "mcpbridge/dev/terminal_log.py",
        "scripts/recording/package-lock.json",
        "scripts/recording/play.py",
        "scripts/recording/record.py",
        "scripts/recording/requirements.txt",
    ),
}
"""The files that decide how each picture looks."""


def sums_file(picture: str, root: Path = ROOT) -> Path:
    """Return the path of the checksums of a picture."""
    return (root / picture).with_suffix(".sha256")


def sums(picture: str, root: Path = ROOT) -> str:
    """Return the checksums of a picture and of its sources as they are now, a file a line."""
    paths = (picture, *SOURCES[picture])
    return "".join(f"{sha256((root / path).read_bytes()).hexdigest()}  {path}\n" for path in paths)


def write_sums(picture: str, root: Path = ROOT) -> None:
    """Write the checksums beside a picture that has just been made."""
    sums_file(picture, root).write_text(sums(picture, root), "utf-8")
