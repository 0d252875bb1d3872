"""`mcpbridge shim --listen ADDRESS -- COMMAND`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from mcpbridge.runtime.startup import hold_signals

_HELP = """Start one COMMAND for each connection; its stdin and stdout are the connection.

Runs beside a server in the server's container; `mcpbridge --connect ADDRESS` in another one serves
it over HTTP. A connection that sends nothing starts nothing.

\b
  mcpbridge shim --listen unix:/run/mcp/mcp.sock -- python server.py
  mcpbridge shim --listen tcp:127.0.0.1:8081 -- node /srv/index.js
  mcpbridge health unix:/run/mcp/mcp.sock
"""

_NOT_HERE = ("--connect", "--log-calls")
"""Settings of those structs that only a bridge has, since a shim does not parse calls."""


def program(command: Sequence[str]) -> click.Command:
    """Return the command that listens; `command` is the server's, all after `--`."""
    hold_signals()
    # Imported afterwards: it takes time, and a signal may come.
    from mcpbridge.cli.setting_options import setting_options, texts_of
    from mcpbridge.config.command import CommandSettings
    from mcpbridge.shim.program import ShimSettings
    from mcpbridge.telemetry.logs import LogSettings

    structs = (ShimSettings, CommandSettings, LogSettings)

    def shim(**flags: Any) -> int:
        return _run(texts_of(flags), command)

    params = [option for struct in structs for option in setting_options(struct, _NOT_HERE)]
    return click.Command(
        "shim",
        callback=shim,
        params=params,
        help=_HELP,
        options_metavar="[OPTIONS] -- COMMAND",
    )


def _run(given: dict[str, list[str]], command: Sequence[str]) -> int:
    from mcpbridge.config.load import platform_grace_s, settings_of, spec_for
    from mcpbridge.errors import ConfigError
    from mcpbridge.shim.program import ShimSettings, run
    from mcpbridge.telemetry.logs import LogSettings

    grace_s = platform_grace_s(ShimSettings().grace_s)
    settings = settings_of(ShimSettings, given, grace_s=grace_s)
    spec = spec_for(given, command)
    if settings.listen is None:
        remedy = "give --listen unix:PATH, unix:@NAME or tcp:HOST:PORT"
        raise ConfigError("--listen", "", "no address to listen on", remedy)
    return run(settings, settings.listen, spec, settings_of(LogSettings, given))
