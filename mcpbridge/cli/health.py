"""`mcpbridge health [URL]`."""

from __future__ import annotations

from collections.abc import Sequence

import click

_HELP = """Ask a running bridge for its health; exits with 0 if it can serve, else 1.

Without URL it asks the bridge of this machine, on the port that MCPBRIDGE_LISTEN, MCPBRIDGE_PORT
or PORT names, else on 8000. A URL without a path means /health; a path alone, such as /readyz,
means that of this machine's bridge. A bridge on a unix socket is at
http+unix:PATH. At unix:PATH or tcp:HOST:PORT, which may be a shim's, it only checks whether a
program listens.
"""


def program(command: Sequence[str]) -> click.Command:
    """Return the command that asks a running bridge for its health; `command` is ignored."""

    @click.command(name="health", help=_HELP)
    @click.argument("url", required=False)
    @click.option(
        "--ca",
        metavar="FILE",
        help="For https, trust these authorities (PEM); by default the system's, and any"
        " certificate of a bridge on loopback.",
    )
    @click.option(
        "--cert", metavar="FILE", help="Show this certificate (PEM), if --tls-client-ca is set."
    )
    @click.option("--key", metavar="FILE", help="Its private key, if not in the same file.")
    def health(url: str | None, **files: str | None) -> int:
        from mcpbridge.app.health_client import Proof, ask_for

        good, answer = ask_for(url or None, Proof(**files))
        click.echo(answer, err=not good)
        return 0 if good else 1

    return health
