"""`mcpbridge list URL`, `mcpbridge list NAME` and `mcpbridge list -- COMMAND`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mcpbridge.cli.remote import one_request

if TYPE_CHECKING:
    from mcpbridge.reverse.one_request import OneClient

_HELP = """Print the tools of a server, each on a line with its arguments.

\b
  mcpbridge list http://localhost:8000/mcp
  mcpbridge list weather
      The server of this name in .mcp.json, .vscode/mcp.json or mcp.json of this folder.
  mcpbridge list -- python server.py
  mcpbridge list --json http://localhost:8000/mcp

Exits with 0, with 1 if the server answered with an error, 2 for wrong use, 3 if the server cannot
be reached.
"""


def program(command: Sequence[str]) -> click.Command:
    """Return the command that lists tools; `command` is the server's, all after `--`."""

    def list_tools(server: str | None, as_json: bool, **given: Any) -> int:
        async def work(client: OneClient) -> int:
            from mcpbridge.reverse.one_request import as_json as indented
            from mcpbridge.reverse.one_request import line_of

            tools = await client.tools()
            if as_json:
                click.echo(indented(tools))
            else:
                for tool in tools:
                    click.echo(line_of(tool))
            return 0

        return one_request.run(server, command, given, work)

    server = click.Argument(["server"], required=False, metavar="-- COMMAND | URL | NAME")
    params = [server, *one_request.options(), one_request.file_option()]
    return click.Command("list", callback=list_tools, params=params, help=_HELP)
