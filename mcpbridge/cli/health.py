"""`mcpbridge health [URL]`."""

from __future__ import annotations

from collections.abc import Sequence

import click

_HELP = """Ask a running bridge how it is; exits 0 when it can serve, else 1.

Without URL it asks the bridge of this machine, on the port that MCPBRIDGE_LISTEN, MCPBRIDGE_PORT
or PORT names, else on 8000. A URL without a path means /health. Of a shim, at unix:PATH or
tcp:HOST:PORT, it asks only whether it listens.
"""


def program(command: Sequence[str]) -> click.Command:
    """The command that asks a running bridge how it is; no server's command belongs to it."""

    @click.command(name="health", help=_HELP)
    @click.argument("url", required=False)
    def health(url: str | None) -> int:
        from mcpbridge.app.health import ask
        from mcpbridge.config.reach import own_url

        good, answer = ask(url or own_url())
        click.echo(answer, err=not good)
        return 0 if good else 1

    return health
