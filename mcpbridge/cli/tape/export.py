"""`mcpbridge tape FILE --as text|har`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

_HELP = """Show a recording as text, a line for each message, or convert it to HAR.

\b
  mcpbridge tape tape.jsonl
  mcpbridge tape tape.jsonl --as har > tape.har
"""


def program(command: Sequence[str]) -> click.Command:
    """Return the command that converts a recording; `command` is ignored."""

    @click.command(name="tape", help=_HELP)
    @click.argument("file", type=click.Path(path_type=Path))
    @click.option(
        "--as",
        "form",
        type=click.Choice(["text", "har"]),
        default="text",
        show_default=True,
        help="The form to convert to.",
    )
    def tape(file: Path, form: str) -> int:
        from mcpbridge.tape.export import as_text, har_text
        from mcpbridge.tape.recording import read_recording

        recording = read_recording(file)
        try:
            for text in as_text(recording) if form == "text" else [har_text(recording)]:
                click.echo(text)
        except BrokenPipeError:
            return 0  # as `head` ends what it reads from
        return 0

    return tape
