"""`mcpbridge copy-self FOLDER`."""

from __future__ import annotations

from collections.abc import Sequence

import click

_HELP = """Copy this program into FOLDER, with its interpreter: run FOLDER/bin/mcpbridge.

For an init container that brings mcpbridge into a pod whose server's image has none. Only the image
mcpbridge:tree has a copy of its own to give; any image with glibc runs it, with Python or without.

\b
  mcpbridge copy-self /opt/mcpbridge
"""
_FAILED = 1


def program(command: Sequence[str]) -> click.Command:
    """The command that copies the program; no server's command belongs to it."""

    @click.command(name="copy-self", help=_HELP)
    @click.argument("folder")
    def copy(folder: str) -> int:
        from pathlib import Path

        from mcpbridge.app.self_copy import copy_self

        try:
            click.echo(copy_self(Path(folder)))
        except OSError as error:
            click.echo(f"mcpbridge: copy-self ({folder}): {error}", err=True)
            return _FAILED
        return 0

    return copy
