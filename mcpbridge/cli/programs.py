"""The group of programs that the first word may name; each is imported when it is named."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence

import click


class Programs(click.Group):
    """A group whose commands are imported when they are named."""

    def __init__(self, command: Sequence[str], modules: Mapping[str, str], **more: object) -> None:
        """Make a group.

        Args:
            command: The server's command, all after `--`.
            modules: The modules of the programs, by the words that name them.
            more: As for `click.Group`.
        """
        super().__init__(**more)  # type: ignore[arg-type]
        self._command = command
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the words that name a program."""
        return sorted(self._modules)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each word with the first sentence of its help, which click would cut short."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (word, program.get_short_help_str(limit=sys.maxsize))
                    for word in self.list_commands(ctx)
                    if (program := self.get_command(ctx, word)) is not None
                ]
            )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the program that a word names, or None."""
        if cmd_name not in self._modules:
            return None
        module = importlib.import_module(self._modules[cmd_name])
        program: click.Command = module.program(self._command)
        return program
