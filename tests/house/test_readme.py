"""The README says what the program does."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from mcpbridge.cli.main import NAMED
from mcpbridge.config.auth import AUTH_TOKEN
from mcpbridge.config.load import STATE_KEY, environment_names
from mcpbridge.config.model import options
from mcpbridge.config.settings_table import settings_tables, with_settings
from mcpbridge.runtime import exit_status

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
FLAGS = {option.setting.flag for option in options()}


def test_the_settings_are_those_of_the_program() -> None:
    """`make docs` mends it."""
    assert with_settings(README) == README
    assert all(f"| `{flag}" in settings_tables() for flag in FLAGS)


def test_a_document_without_marks_is_refused() -> None:
    """Nothing is written where nothing says where."""
    with pytest.raises(ValueError, match="no <!-- settings"):
        with_settings("# Else")


def test_no_option_is_named_that_does_not_exist() -> None:
    """In prose and in commands of ours; other programs' options have their lines to themselves."""
    others = ("docker ", "RUN pip ", "pip ")
    ours = [line for line in README.splitlines() if not line.strip().startswith(others)]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", "\n".join(ours)))
    named -= {"--from", "--target", "--tmpfs", "--help", "--seconds"}  # of others
    assert "--isolation" in named
    assert named <= FLAGS | _flags_of_programs()


def _flags_of_programs() -> set[str]:
    """The options of the programs beside the bridge itself."""
    programs = [importlib.import_module(name).program([]) for name in NAMED.values()]
    return {flag for program in programs for param in program.params for flag in param.opts}


def test_no_variable_is_named_that_does_not_exist() -> None:
    """Ours, and those of platforms that are heard."""
    known = {name for option in options() for name in environment_names(option.setting)}
    known |= {STATE_KEY, AUTH_TOKEN}
    named = set(re.findall(r"\b(?:MCPBRIDGE_[A-Z_]+[A-Z]|TERMINATION_[A-Z_]+)\b", README))
    assert "MCPBRIDGE_MAX_SESSIONS" in named
    assert named <= known


def test_every_exit_status_is_explained() -> None:
    """The program's constants and the table agree."""
    section = README.partition("## Exit statuses")[2].partition("\n## ")[0]
    explained = {int(number) for number in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    used = {value for name, value in vars(exit_status).items() if name.startswith("EXIT_")}
    assert explained == used | {130}


def test_every_make_target_that_is_named_exists() -> None:
    """And every target that a developer may want is named."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))
    named = set(re.findall(r"`(?:PORT=9000 )?make ([a-z]+)`", README))
    assert named <= targets
    assert targets - named <= {"help", "clean"}


def test_every_probe_is_named() -> None:
    """The paths of `http.health`."""
    probes = (ROOT / "mcpbridge" / "http" / "health.py").read_text("utf-8")
    paths = set(re.findall(r'Route\("(/\w+)"', probes))
    assert len(paths) >= 5
    assert all(f"`{path}`" in README for path in paths)
