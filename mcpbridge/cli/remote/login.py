"""`mcpbridge login URL`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

_HELP = """Log in to a remote server at URL with your browser, once; `connect` then uses its token.

mcpbridge asks the server for its authorization server, registers there if that is allowed, and
opens its page in the browser. The login is kept in a file that you alone can read; `connect`,
`list` and `call` find it there, and refresh it. Needs the extra `login`.

\b
  mcpbridge login https://mcp.example.org/mcp
  mcpbridge login --no-browser https://mcp.example.org/mcp      (prints the page's address)

Exits with 0, with 1 if the login failed, 2 for wrong use.
"""
_MOST_PORT = 65535


def program(command: Sequence[str]) -> click.Command:
    """Return the command that logs in; a `command` after `--` is an error."""

    def login(url: str, timeout: str, file: str | None, no_browser: bool, **given: Any) -> int:
        import functools

        from mcpbridge.config.values import seconds
        from mcpbridge.reverse.login.program import LoginSettings, run

        if command:
            raise click.UsageError("give a URL and no command: the server runs elsewhere")
        try:
            within_s = seconds(timeout)
        except ValueError as error:
            raise click.BadParameter(f"{timeout!r} {error}", param_hint="--timeout") from None
        path = Path(file) if file is not None else None
        tell = functools.partial(click.echo, err=True)
        settings = LoginSettings(
            file=path, within_s=within_s, opens_browser=not no_browser, **given
        )
        return run(url, settings, tell)

    return click.Command("login", callback=login, params=_params(), help=_HELP)


def _params() -> list[click.Parameter]:
    file_help = "Keep the login in this file, for `connect --login-file`.  [default: by the URL]"
    metadata_help = (
        "URL of a client's metadata, used as its id if the authorization server accepts that."
    )
    port = click.IntRange(0, _MOST_PORT)
    port_help = "Port of this machine that the browser returns to; 0 is a free one."
    return [
        click.Argument(["url"], metavar="URL"),
        click.Option(["--file"], metavar="FILE", help=file_help),
        click.Option(["--scope"], metavar="SCOPES", help="Scopes to ask for, with blanks between."),
        click.Option(["--client-id"], metavar="ID", help="Id of a client that is registered."),
        click.Option(["--client-metadata-url"], metavar="URL", help=metadata_help),
        click.Option(["--callback-port"], type=port, default=0, metavar="PORT", help=port_help),
        click.Option(["--no-browser"], is_flag=True, help="Print the address of the page only."),
        click.Option(["--timeout"], default="5m", metavar="DURATION", help="Time for the login."),
    ]
