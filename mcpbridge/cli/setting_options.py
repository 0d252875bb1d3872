"""Options of click for the settings of one struct, for the commands that take a few of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import click

from mcpbridge.config.values import shown
from mcpbridge.settings import SettingsSection, Unit


def setting_options(
    struct: type[SettingsSection], excluded: Collection[str] = ()
) -> list[click.Parameter]:
    """Return an option for each setting of a struct.

    Args:
        struct: A section of settings.
        excluded: Flags that the command does not have.
    """
    options: list[click.Parameter] = []
    for field, facts in struct.SETTINGS.items():
        if facts.flag in excluded:
            continue
        default = shown(facts.default, facts.unit)
        option = click.Option(
            [facts.flag, field],
            help=facts.help + (f" [default: {default}]" if default else ""),
            is_flag=facts.unit is Unit.SWITCH,
            multiple=facts.repeatable,
            metavar=facts.metavar or "|".join(facts.choices) or facts.unit.value or None,
        )
        options.append(option)
    return options


def texts_of(flags: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the texts given for each field, as `config.load.settings_of` reads them."""
    return {name: _texts(value) for name, value in flags.items() if value}


def _texts(value: Any) -> list[str]:
    if value is True:
        return ["true"]
    return [value] if isinstance(value, str) else list(value)
