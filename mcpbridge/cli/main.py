"""Which program the first word names, and how every one of them ends."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mcpbridge.runtime.startup import hold_signals

if TYPE_CHECKING:
    import click

EXIT_CONFIG = 2

NAMED = {
    "copy-self": "mcpbridge.cli.copy_self",
    "doctor": "mcpbridge.cli.doctor",
    "health": "mcpbridge.cli.health",
    "shim": "mcpbridge.cli.shim",
    "sidecar": "mcpbridge.cli.sidecar",
}
"""The programs that the first word names, by their modules; without one of these words: serve."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its status."""
    words = list(sys.argv[1:] if argv is None else argv)
    own, command = _split(words)
    named = own[0] if own and own[0] in NAMED else None
    if named is None:
        # Before anything is imported that takes time: process 1 would lose a signal until then.
        hold_signals()
    import click

    from mcpbridge.errors import ConfigError

    # Imported by name: `mcpbridge health` runs every few seconds and needs little.
    module = importlib.import_module(NAMED[named] if named else "mcpbridge.cli.serve")
    program: click.Command = module.program(command)
    try:
        status = program.main(
            own[1:] if named else own,
            f"mcpbridge {named}" if named else "mcpbridge",
            standalone_mode=False,
        )
    except click.exceptions.Exit as ended:
        status = ended.exit_code
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption):
            nearest = _nearest(program, error.option_name)
            error = click.NoSuchOption(error.option_name, possibilities=nearest, ctx=error.ctx)
        error.show()
        status = EXIT_CONFIG
    except ConfigError as error:
        click.echo(f"mcpbridge: {error}", err=True)
        status = EXIT_CONFIG
    sys.exit(status)


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Our own words, and the server's command: all after the first `--`."""
    if "--" not in words:
        return words, []
    cut = words.index("--")
    return words[:cut], words[cut + 1 :]


def _nearest(program: click.Command, flag: str) -> list[str]:
    """The one of our flags that is most like an unknown one."""
    import difflib  # for a mistake alone

    known = [name for param in program.params for name in param.opts if name.startswith("--")]
    return difflib.get_close_matches(flag, known, n=1, cutoff=0)
