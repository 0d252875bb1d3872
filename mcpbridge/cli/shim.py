"""`mcpbridge shim --listen ADDRESS -- COMMAND`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import click

from mcpbridge.runtime.startup import hold_signals

_HELP = """Start one COMMAND for each connection; its stdin and stdout are the connection.

Stands beside a server in the server's own container; `mcpbridge --connect ADDRESS` in another one
serves it over HTTP. A connection that says nothing starts nothing.

\b
  mcpbridge shim --listen unix:/run/mcp/mcp.sock -- python server.py
  mcpbridge shim --listen tcp:127.0.0.1:8081 -- node /srv/index.js
  mcpbridge health unix:/run/mcp/mcp.sock
"""

_NOT_HERE = ("--connect", "--log-calls")
"""Settings of those structs that only a bridge has: bytes are no calls to a shim."""


def program(command: Sequence[str]) -> click.Command:
    """The command that listens; `command` is the server's, all after `--`."""
    hold_signals()
    # Imported after that: it takes its time, and a signal may come.
    from mcpbridge.config.command import CommandSettings
    from mcpbridge.shim.program import ShimSettings
    from mcpbridge.telemetry.logs import LogSettings

    structs = (ShimSettings, CommandSettings, LogSettings)

    def shim(**flags: Any) -> int:
        return _run({name: _texts(value) for name, value in flags.items() if value}, command)

    params = [option for struct in structs for option in _options(struct)]
    return click.Command(
        "shim",
        callback=shim,
        params=params,
        help=_HELP,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _run(given: dict[str, list[str]], command: Sequence[str]) -> int:
    from mcpbridge.config.load import settings_of, spec_for
    from mcpbridge.errors import ConfigError
    from mcpbridge.shim.program import ShimSettings, run
    from mcpbridge.telemetry.logs import LogSettings

    settings = settings_of(ShimSettings, given)
    spec = spec_for(given, command)
    if settings.listen is None:
        remedy = "give --listen unix:PATH, unix:@NAME or tcp:HOST:PORT"
        raise ConfigError("--listen", "", "no address to listen on", remedy)
    return run(settings, settings.listen, spec, settings_of(LogSettings, given))


def _options(struct: type) -> list[click.Parameter]:
    """An option for each setting of a struct that a shim has."""
    from mcpbridge.config.values import shown
    from mcpbridge.settings import Unit, setting_of

    options: list[click.Parameter] = []
    for field in dataclasses.fields(struct):
        facts = setting_of(field)
        if facts is None or facts.flag in _NOT_HERE:
            continue
        default = shown(field.default, facts.unit)
        option = click.Option(
            [facts.flag, field.name],
            help=facts.help + (f" [default: {default}]" if default else ""),
            is_flag=facts.unit is Unit.SWITCH,
            multiple=facts.repeatable,
            metavar=facts.metavar or "|".join(facts.choices) or facts.unit.value or None,
        )
        options.append(option)
    return options


def _texts(value: Any) -> list[str]:
    if value is True:
        return ["true"]
    return [value] if isinstance(value, str) else list(value)
