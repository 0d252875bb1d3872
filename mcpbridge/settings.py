"""Defines a setting: a field of a frozen dataclass, with its flag, its reason and its unit.

The dataclasses stand beside the code that obeys them; `config.model` composes them and makes
the command line, the environment names and docs/settings.md from this metadata.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import msgspec


class Unit(enum.Enum):
    """The way the text of a setting is parsed."""

    TEXT = "TEXT"
    INTEGER = "N"
    SECONDS = "DURATION"
    """Seconds; `500ms`, `30s`, `5m` and `1h` are accepted too."""
    BYTES = "SIZE"
    """Bytes; `64KiB` and `4MiB` are accepted too."""
    SWITCH = ""
    """On when the flag is given."""


class Setting(msgspec.Struct, frozen=True):
    """The public side of a field: everything `--help` and docs/settings.md say about it."""

    flag: str
    """The long flag, `--max-sessions`; the variable is `MCPBRIDGE_MAX_SESSIONS`."""
    help: str
    group: str
    """The heading in `--help`."""
    unit: Unit
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    repeatable: bool = False
    quoted: bool = False
    """Split the variable as a shell would, since its texts may contain spaces and commas."""
    metavar: str = ""
    also_env: tuple[str, ...] = ()
    """Other environment variables that set it if the first one is absent."""
    parse: Callable[[str], object] | None = None
    """Turns the text into the value if the unit alone does not; raises ValueError."""
    secret: bool = False
    """Its text is not shown in errors: it may hold a password."""


def setting(
    default: Any,
    flag: str,
    help: str,  # noqa: A002 - the word `--help` prints
    *,
    group: str,
    unit: Unit = Unit.TEXT,
    **more: Any,
) -> Any:
    """Return a dataclass field with a default that the command line can change."""
    facts = Setting(flag=flag, help=help, group=group, unit=unit, **more)
    return dataclasses.field(default=default, metadata={"setting": facts})


def setting_of(field: dataclasses.Field[Any]) -> Setting | None:
    """Return the setting behind a dataclass field, or None if it has none."""
    found = field.metadata.get("setting")
    return found if isinstance(found, Setting) else None
