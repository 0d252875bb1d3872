"""`mcpbridge tail [URL]`."""

from __future__ import annotations

from collections.abc import Sequence

import click

_HELP = """Print what passes through `mcpbridge dev`, a line for each message, as it passes.

URL is the address of the page that `mcpbridge dev` prints, with its token. Without a token in it,
MCPBRIDGE_TOKEN is used.

\b
  mcpbridge tail 'http://127.0.0.1:8000/ui#token=…'
  mcpbridge tail 'http://127.0.0.1:8000/ui#token=…' --filter 'tool:add status:error'
      Other words: method:resources/* server:mine client:vscode session:5f0c* direction:stderr
      slower:200, and any text that a line contains. Every word has to be true.
  MCPBRIDGE_TOKEN=… mcpbridge tail --json | jq .raw
      Lines of the form that recordings have: docs/recording.md.

Secrets are removed as from a recording. Exits with 0 when the bridge ends, 2 for wrong use, 3 if it
cannot be reached or refuses the token.
"""
PAGE_TOKEN = "MCPBRIDGE_TOKEN"  # nosec B105 # the name of a variable
_DEFAULT = "http://127.0.0.1:8000/ui"
_FILTER = "Print only lines that match every word."
_INTERRUPTED = 130
_CANNOT_READ = 3


def program(command: Sequence[str]) -> click.Command:
    """Return the command that prints what passes; a `command` after `--` is an error."""

    @click.command(name="tail", help=_HELP)
    @click.argument("url", default=_DEFAULT)
    @click.option("--filter", "words", default="", metavar="WORDS", help=_FILTER)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    # Hidden: other users of the machine see a command line, and not the environment.
    @click.option("--token", envvar=PAGE_TOKEN, hidden=True)
    def tail(url: str, words: str, as_json: bool, token: str | None) -> int:
        import anyio

        from mcpbridge.dev.tail import CannotRead, FrameLines, page_address, print_line, read_frames
        from mcpbridge.tape.frame_filter import FrameFilter

        if command:
            raise click.UsageError("give a URL and no command: mcpbridge dev runs the server")
        try:
            address = page_address(url, token)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="URL") from None
        try:
            wanted = FrameFilter(words)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--filter") from None
        lines = FrameLines(wanted, print_line, as_json=as_json)
        try:
            anyio.run(read_frames, address, lines)
        except CannotRead as error:
            click.echo(f"mcpbridge: {error}", err=True)
            return _CANNOT_READ
        except BrokenPipeError:
            return 0  # as `head` ends what it reads from
        except KeyboardInterrupt:
            return _INTERRUPTED
        return 0

    return tail
