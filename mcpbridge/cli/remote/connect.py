"""`mcpbridge connect URL`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from mcpbridge.runtime.startup import hold_signals

_HELP = """Let an MCP client that only starts commands use a remote server at URL.

The client talks to this process over stdin and stdout; the server is reached over Streamable HTTP
or, if it has only that, HTTP+SSE. In the configuration of a client, with the absolute path of
mcpbridge (`which mcpbridge`), since clients do not search PATH as a shell does:

\b
  {"mcpServers": {"far": {
    "command": "/home/me/.local/bin/mcpbridge",
    "args": ["connect", "https://mcp.example.org/mcp",
             "--token-file", "/home/me/.config/far.token"]}}}

While the server is down each request gets an error; then the same session works again, without a
restart of the client. A tool call that may have been executed is not sent a second time.

\b
  mcpbridge connect http://localhost:8000/mcp
  mcpbridge connect https://mcp.example.org/mcp --header 'X-Key: ${MY_KEY}'
  mcpbridge list https://mcp.example.org/mcp        (its tools, to try the address)

Exits with 0 at the end of stdin, 2 for wrong use, 3 after a second signal.
"""

NOT_HERE = ("--log-calls", "--log-format")
"""Settings of logs that do not apply: stderr is read by people, in the window of a client."""


def program(command: Sequence[str]) -> click.Command:
    """Return the command that connects; a `command` after `--` is an error."""
    hold_signals()
    # Imported afterwards: it takes time, and a signal may come.
    from mcpbridge.cli.setting_options import setting_options, texts_of
    from mcpbridge.reverse.program import ConnectSettings
    from mcpbridge.telemetry.logs import LogSettings

    def connect(url: str, **flags: Any) -> int:
        if command:
            raise click.UsageError("give a URL and no command: the server runs elsewhere")
        return _run(url, texts_of(flags))

    options = [*setting_options(ConnectSettings), *setting_options(LogSettings, NOT_HERE)]
    return click.Command(
        "connect",
        callback=connect,
        params=[click.Argument(["url"], metavar="URL"), *options],
        help=_HELP,
    )


def _run(url: str, given: dict[str, list[str]]) -> int:
    import msgspec

    from mcpbridge.config.load import settings_of
    from mcpbridge.reverse.program import ConnectSettings, run
    from mcpbridge.telemetry.logs import LogSettings

    logs = msgspec.structs.replace(settings_of(LogSettings, given), form="text")
    return run(url, settings_of(ConnectSettings, given), logs)
