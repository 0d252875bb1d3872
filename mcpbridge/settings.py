"""Defines a setting: a field of a frozen struct, with its flag, its reason and its unit.

The structs stand beside the code that obeys them; `config.model` composes them and makes the
command line, the environment names and docs/settings.md from what they say of their fields.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

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
    default: Any
    """The value if the setting is not given."""
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


class SectionMeta(msgspec.StructMeta):
    """Makes a struct of fields whose defaults were written as `setting(...)`.

    A dataclass could keep the facts as metadata, but generates and compiles its code at every
    start; dataclasses took a seventh of the instructions of all imports.
    """

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any
    ) -> SectionMeta:
        """Make the struct; `SETTINGS` has its settings by the names of the fields."""
        own = {field: each for field, each in namespace.items() if isinstance(each, Setting)}
        defaults = {field: each.default for field, each in own.items()}
        body = {**namespace, **defaults, "SETTINGS": MappingProxyType(own)}
        return super().__new__(mcls, name, bases, body, **config)


class SettingsSection(msgspec.Struct, frozen=True, metaclass=SectionMeta):
    """Base of the structs of settings."""

    SETTINGS: ClassVar[Mapping[str, Setting]]
    """The settings by the names of their fields, in their order."""


def setting(
    default: Any,
    flag: str,
    help: str,  # noqa: A002 - the word `--help` prints
    *,
    group: str,
    unit: Unit = Unit.TEXT,
    **more: Any,
) -> Any:
    """Return the default of a field of a section, which the command line can change."""
    return Setting(flag=flag, help=help, group=group, unit=unit, default=default, **more)
