"""`mcpbridge doctor -- COMMAND` and `mcpbridge doctor URL`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

_HELP = """Examine a stdio server or a running endpoint, and report what works and what does not.

\b
  mcpbridge doctor -- COMMAND
      Starts the server as the bridge would, sends requests, stops it: whether and how fast it
      starts, which revisions it speaks, what it offers, what it does wrong, and the flags to use.
      Calls no tool.
  mcpbridge doctor URL
      Sends an MCP endpoint the requests of clients of each revision.
  mcpbridge doctor URL --as mcp-operator|lifecycle-operator
      Makes the checks of that Kubernetes operator on what it has deployed.

Exits with 0 if the server can be served, or every check passes; 1 if not; 2 for wrong use.
"""

_ROLES = ("mcp-operator", "lifecycle-operator")
_PROTOCOLS = ("auto", "streamable-http", "sse")
_PROTOCOL_HELP = "With --as mcp-operator: its spec.transport.protocol.  [default: auto]"
_RETRY_HELP = "With --as mcp-operator: the time to its next attempt.  [default: 30s]"
_TIMEOUT_HELP = "Time for the server to start and answer.  [default: 1m]"
_INTERRUPTED = 130


def program(command: Sequence[str]) -> click.Command:
    """Return the command that examines a server; `command` is the server's, all after `--`."""

    @click.command(name="doctor", help=_HELP)
    @click.argument("url", required=False, metavar="-- COMMAND | URL")
    @click.option("--as", "role", type=click.Choice(_ROLES), help="Whose checks to make.")
    @click.option("--protocol", type=click.Choice(_PROTOCOLS), default="auto", help=_PROTOCOL_HELP)
    @click.option("--retry-wait", default="30s", metavar="DURATION", help=_RETRY_HELP)
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable for the server.")
    @click.option("--env-file", metavar="FILE", help="A file of variables for the server.")
    @click.option("--cwd", metavar="FOLDER", help="Start the server in this folder.")
    @click.option("--timeout", metavar="DURATION", help=_TIMEOUT_HELP)
    def doctor(
        url: str | None,
        role: str | None,
        protocol: str,
        retry_wait: str,
        as_json: bool,
        **about_server: str | tuple[str, ...] | None,
    ) -> int:
        if url is not None and command:
            raise click.UsageError("give either a URL or, after --, a command")
        try:
            if url is not None:
                return _of_url(url, role, protocol, retry_wait, as_json)
            if role is not None:
                raise click.UsageError("--as asks a running endpoint: give its URL")
            return _of_command(command, about_server, as_json)
        except KeyboardInterrupt:
            return _INTERRUPTED

    return doctor


def _of_command(
    command: Sequence[str], about_server: dict[str, str | tuple[str, ...] | None], as_json: bool
) -> int:
    from mcpbridge.config.load import load
    from mcpbridge.doctor.server import diagnose, render

    texts = {
        f"--{name.replace('_', '-')}": [value] if isinstance(value, str) else list(value or ())
        for name, value in about_server.items()
    }
    timeout = texts.pop("--timeout")
    given = {flag: values for flag, values in texts.items() if values}
    asked = {**given, "--start-timeout": timeout} if timeout else given
    report = diagnose.examine(load(asked, command), given, _tell)
    click.echo(diagnose.as_json(report) if as_json else render.in_words(report))
    return 0 if report.served else 1


def _of_url(url: str, role: str | None, protocol: str, retry_wait: str, as_json: bool) -> int:
    from mcpbridge.config.values import seconds
    from mcpbridge.doctor.endpoint.run import examine

    try:
        retry_wait_s = seconds(retry_wait)
    except ValueError as error:
        raise click.BadParameter(f"{retry_wait!r} {error}", param_hint="--retry-wait") from None
    verdict = examine(url, role, protocol, retry_wait_s, _tell)
    click.echo(verdict.as_json() if as_json else verdict.in_words())
    return 0 if verdict.good else 1


def _tell(what: str) -> None:
    """Print progress, if stderr is a terminal."""
    if sys.stderr.isatty():
        click.echo(f"… {what}", err=True)
