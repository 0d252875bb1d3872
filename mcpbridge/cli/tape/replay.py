"""`mcpbridge replay FILE`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

_HELP = """Serve MCP on stdin and stdout, with the answers of a recording.

A request is answered like the recorded one with the same method and params, apart from _meta: in
the recorded order, and the last answer for each further one. A request that is not in the recording
gets an error that names it; no server is asked.

\b
  mcpbridge --port 8000 -- mcpbridge replay tape.jsonl
"""
_INTERRUPTED = 130
SERVER_HELP = "The server's name, if the recording has several."


def program(command: Sequence[str]) -> click.Command:
    """Return the command that serves a recording; `command` is ignored."""

    @click.command(name="replay", help=_HELP)
    @click.argument("file", type=click.Path(path_type=Path))
    @click.option("--server", metavar="NAME", help=SERVER_HELP)
    def replay(file: Path, server: str | None) -> int:
        from mcpbridge.tape.recording import frames_of, read_recording
        from mcpbridge.tape.replay import Replay, serve

        recording = read_recording(file)
        frames = frames_of(recording, file, server)
        played = Replay(frames, is_redacted=recording.facts.get("redacted") is not False)
        torn = "; its last line is incomplete" if recording.torn else ""
        click.echo(f"replaying {played.requests} requests of {file}{torn}", err=True)
        try:
            with open(0, "rb", closefd=False) as source:
                serve(played, source, sys.stdout.buffer)
        except KeyboardInterrupt:
            return _INTERRUPTED
        return 0

    return replay
