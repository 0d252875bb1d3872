"""`mcpbridge call URL TOOL key=value …`, with a name or a command in place of the URL too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mcpbridge.cli.remote import one_request

if TYPE_CHECKING:
    from mcpbridge.reverse.one_request import OneClient

_HELP = """Call a tool of a server and print its result.

A value is a text if the tool's schema says so, else JSON if it can be read as JSON. The server is
the first word, a URL or the name of an entry in the file of servers of this folder, or it is a
command after `--`.

\b
  mcpbridge call http://localhost:8000/mcp add a=1 b=2
  mcpbridge call weather add a=1 b=2
  mcpbridge call add a=1 b=2 -- python server.py
  mcpbridge call --json http://localhost:8000/mcp find 'where={"size": 3}'

Exits with 0, with 1 if the tool or the server reports an error, 2 for wrong use, 3 if the server
cannot be reached.
"""


def program(command: Sequence[str]) -> click.Command:
    """Return the command that calls a tool; `command` is the server's, all after `--`."""

    def call(words: tuple[str, ...], as_json: bool, **given: Any) -> int:
        server = None if command else words[0]
        rest = words if command else words[1:]
        if not rest:
            raise click.UsageError("give the name of a tool")
        tool, texts = rest[0], rest[1:]

        async def work(client: OneClient) -> int:
            return await _called(client, tool, texts, as_json)

        return one_request.run(server, command, given, work)

    words = click.Argument(
        ["words"], nargs=-1, required=True, metavar="[URL|NAME] TOOL [KEY=VALUE]... [-- COMMAND]"
    )
    params = [words, *one_request.options(), one_request.file_option()]
    return click.Command("call", callback=call, params=params, help=_HELP)


async def _called(client: OneClient, tool: str, texts: Sequence[str], as_json: bool) -> int:
    from mcpbridge.reverse.one_request import arguments_of, text_of_result
    from mcpbridge.reverse.one_request import as_json as indented

    schemas = {each.get("name"): each.get("inputSchema") for each in await client.tools()}
    schema = schemas.get(tool)
    try:
        arguments = arguments_of(texts, schema if isinstance(schema, dict) else {})
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    result = await client.ask("tools/call", {"name": tool, "arguments": arguments})
    failed = result.get("isError") is True
    if as_json:
        click.echo(indented(result))
    else:
        click.echo(text_of_result(result), err=failed)
    return one_request.FAILED if failed else 0
