"""Common causes why a stdio server cannot be served, each with a remedy.

Pure: signs in, hints out. Hints that need no examination are in `rules.supervision.start_hints`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from mcpbridge.doctor.server.report import Buffering, Noise, Outcome
from mcpbridge.rules.faults import Exit
from mcpbridge.rules.supervision.start_hints import (
    Hint,
    of_command,
    of_end,
    of_error,
    of_shell,
    of_words,
)


def hints(
    argv: Sequence[str],
    outcome: Outcome,
    *,
    said: Iterable[str] = (),
    how: Exit | None = None,
    noise: Noise | None = None,
    buffering: Buffering = Buffering.NONE,
) -> tuple[Hint, ...]:
    """Return the probable causes, the most certain first, each once.

    Args:
        argv: The server's command.
        outcome: The outcome of its start.
        said: The last lines of its stderr.
        how: Its end, if it ended by itself.
        noise: The lines on its stdout that are not messages.
        buffering: Whether it withholds its answers.
    """
    found: list[Hint] = []
    if outcome in (Outcome.NOT_FOUND, Outcome.NOT_EXECUTABLE):
        found += of_command(argv, found_file=outcome is Outcome.NOT_EXECUTABLE)
    elif outcome is not Outcome.SERVED:
        found += _of_buffering(argv, buffering)
        words = [*said, *(noise.sample if noise else ())]
        found += of_words("\n".join(words)) or of_error(words)
        found += of_shell(argv)
        found += _of_outcome(argv, outcome, how) if not found else []
    elif noise is not None:
        found += _of_noise(noise)
    return tuple(dict.fromkeys(found))


def _of_buffering(argv: Sequence[str], buffering: Buffering) -> list[Hint]:
    if buffering is Buffering.NONE:
        return []
    if PurePath(argv[0]).name.startswith("python"):
        remedy = (
            "flush after each message: print(…, flush=True); PYTHONUNBUFFERED=1, which mcpbridge"
            " sets, does not reach a buffer that the program makes itself"
        )
    else:
        remedy = "flush stdout after each message; for programs of C's stdio: stdbuf -oL COMMAND"
    when = "more input comes" if buffering is Buffering.UNTIL_MORE else "its input ends"
    return [Hint(f"it keeps its answers in a buffer until {when}", remedy)]


def _of_outcome(argv: Sequence[str], outcome: Outcome, how: Exit | None) -> list[Hint]:
    if outcome is Outcome.SILENT:
        cause = "it runs, and says nothing in answer to initialize"
        remedy = (
            "give it more time with --timeout, if it starts slowly; else it serves HTTP, waits for"
            " a terminal, or is not an MCP server"
        )
        return [Hint(cause, remedy)]
    if outcome is Outcome.STALLED:
        remedy = (
            "clients would wait without end for its tools: it may wait for a login, the network or"
            " another program; run it by hand, or give it more time with --timeout"
        )
        return [Hint("it answers initialize, and not tools/list", remedy)]
    if outcome is Outcome.REFUSED:
        remedy = "read its error above; it may miss an argument, or speak another protocol"
        return [Hint("it answers initialize with an error", remedy)]
    if outcome is Outcome.CLOSED:
        remedy = "it has gone into the background, or given its stdout away; start it in front"
        return [Hint("it closed its stdout and runs on", remedy)]
    return of_end(argv, how or Exit())


def _of_noise(noise: Noise) -> list[Hint]:
    if any(line.lower().startswith("content-length:") for line in noise.sample):
        remedy = "its SDK frames messages as language servers do; MCP has one JSON text a line"
        return [Hint("it writes heads before its messages", remedy)]
    remedy = "harmless behind mcpbridge, which leaves such lines out; better let it log on stderr"
    return [Hint("it prints lines on stdout that are not messages", remedy)]
