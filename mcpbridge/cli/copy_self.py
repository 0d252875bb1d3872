"""`mcpbridge copy-self FOLDER`."""

from __future__ import annotations

from collections.abc import Sequence

import click

_HELP = """Copy this program into FOLDER, with its interpreter: run FOLDER/bin/mcpbridge.

For an init container that adds mcpbridge to a pod whose server's image lacks it. Only the image
mcpbridge:tree has a copy to give; any image with glibc runs it, with or without Python.

\b
  mcpbridge copy-self /opt/mcpbridge
"""
_FAILED = 1


def program(command: Sequence[str]) -> click.Command:
    """Return the command that copies the program; `command` is ignored."""

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
