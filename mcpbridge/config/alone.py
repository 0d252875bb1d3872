"""Settings of a program that has few of them, read from its command line.

Such a program imports little; `load`, which reads those of a bridge, knows all of its parts.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mcpbridge.config.command import COMMAND_LINE, CommandSettings, spec_of
from mcpbridge.config.values import value_of
from mcpbridge.process.spec import ChildSpec
from mcpbridge.settings import setting_of

T = TypeVar("T")


def settings_of(struct: type[T], given: Mapping[str, Sequence[str]]) -> T:
    """One struct of settings, from flags and from the variables that platforms set.

    Args:
        struct: A dataclass with fields made by `settings.setting`.
        given: The texts given for each field, by its name.

    Raises:
        ConfigError: A value is wrong.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(struct):  # type: ignore[arg-type]
        facts = setting_of(field)
        if facts is None:
            continue
        texts, origin = given.get(field.name, ()), COMMAND_LINE
        for name in facts.also_env:
            if not texts and os.environ.get(name):
                texts, origin = [os.environ[name]], name
        if texts:
            read = [value_of(facts, text, origin) for text in texts]
            values[field.name] = tuple(read) if facts.repeatable else read[-1]
    return struct(**values)


def spec_for(given: Mapping[str, Sequence[str]], command: Sequence[str]) -> ChildSpec:
    """The command to start, from flags alone.

    Args:
        given: The texts given for each field of `CommandSettings`, by its name.
        command: What stood after `--`.

    Raises:
        ConfigError: A value is wrong, or there is no command, or there are two.
    """
    origins = dict.fromkeys(given, COMMAND_LINE)
    return spec_of(settings_of(CommandSettings, given), origins, command, os.environ)
