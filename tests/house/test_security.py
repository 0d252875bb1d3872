"""SECURITY.md is in step with the program."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from mcpbridge.config.model import options

TEXT = (Path(__file__).parents[2] / "SECURITY.md").read_text("utf-8")


def test_every_flag_in_it_is_one() -> None:
    """No page tells to harden with a flag that does not exist."""
    known = {option.setting.flag for option in options()}
    named = set(re.findall(r"--[a-z*][a-z*-]+", TEXT))
    assert len(named) > 20
    assert [flag for flag in sorted(named) if not fnmatch.filter(known, flag)] == []


def test_every_file_in_it_is_there() -> None:
    """Paths in it lead somewhere."""
    root = Path(__file__).parents[2]
    paths = re.findall(r"`((?:tests|docs|deploy)/[\w/.]*)`", TEXT)
    assert paths
    assert [path for path in paths if not (root / path).exists()] == []
