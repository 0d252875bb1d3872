"""`mcpbridge verify FILE -- COMMAND` and `mcpbridge verify FILE URL`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mcpbridge.cli.remote import one_request
from mcpbridge.cli.tape.replay import SERVER_HELP

if TYPE_CHECKING:
    from mcpbridge.dev.verify import Verification
    from mcpbridge.tape.comparison import Ignored
    from mcpbridge.tape.recording import Recording
    from mcpbridge.tape.verification import CheckedRequest

_HELP = """Ask a server what a recording asks, and compare its answers with the recorded ones.

Each recorded session becomes a session again: its requests in their order, and the client's answers
to what the server asks. A difference is named by its JSON path. Pings, subscriptions and requests
without an answer are left out; a request whose params had a secret is skipped.

\b
  mcpbridge dev --record tape.jsonl -- python server.py
      Use the server; then, after a change of it:
  mcpbridge verify tape.jsonl -- python server.py
  mcpbridge verify tape.jsonl http://localhost:8000/mcp
  mcpbridge verify tape.jsonl --ignore '$.result.serverInfo.version' -- python server.py
      Or '$.result.content[*].text', '$..time', 'tools/call now:$.result'.
  mcpbridge verify tape.jsonl --update -- python server.py
      Takes the new answers into the recording.
  mcpbridge verify tape.jsonl --format junit -- python server.py > report.xml

Exits with 0, with 1 if an answer differs or is missing, 2 for wrong use, 3 if the server cannot be
reached.
"""
_IGNORE = "Differences at this JSON path and below it do not count; may be repeated."
_UPDATE = "Write the answers that differ into the recording, and exit with 0."


def program(command: Sequence[str]) -> click.Command:
    """Return the command that compares; `command` is the server's, all after `--`."""

    def verify(
        file: Path,
        url: str | None,
        server: str | None,
        form: str,
        ignored: tuple[Ignored, ...],
        update: bool,
        **given: Any,
    ) -> int:
        from mcpbridge.tape.recording import frames_of, read_recording
        from mcpbridge.tape.verification import conversations, junit, line_of, summary

        recording = read_recording(file)
        sessions = conversations(frames_of(recording, file, server))
        if not sessions:
            raise click.UsageError(f"{file} has no request that was answered")
        checked = _verification(recording, url, command, ignored, given)

        async def work() -> int:
            outcomes = []
            async for each in checked.run(sessions):
                outcomes.append(each)
                if form == "text":
                    click.echo(line_of(each))
            click.echo(junit(outcomes, str(file)) if form == "junit" else summary(outcomes))
            return _settled(checked, recording, file, outcomes) if update else _status(outcomes)

        return one_request.status_of(work)

    return click.Command("verify", callback=verify, params=_params(), help=_HELP)


def _params() -> list[click.Parameter]:
    return [
        click.Argument(["file"], type=click.Path(path_type=Path), metavar="FILE"),
        click.Argument(["url"], required=False, metavar="-- COMMAND | URL"),
        click.Option(["--server"], metavar="NAME", help=SERVER_HELP),
        click.Option(
            ["--format", "form"],
            type=click.Choice(["text", "junit"]),
            default="text",
            show_default=True,
            help="The form of the report on stdout.",
        ),
        click.Option(
            ["--ignore", "ignored"],
            multiple=True,
            metavar="PATH",
            callback=_ignored,
            help=_IGNORE,
        ),
        click.Option(["--update"], is_flag=True, help=_UPDATE),
        *(each for each in one_request.options() if each.name != "as_json"),
    ]


def _ignored(
    context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> tuple[Ignored, ...]:
    from mcpbridge.tape.comparison import ignored_path

    found = []
    for text in texts:
        try:
            found.append(ignored_path(text))
        except ValueError as error:
            raise click.BadParameter(f"{text!r} {error}") from None
    return tuple(found)


def _verification(
    recording: Recording,
    url: str | None,
    command: Sequence[str],
    ignored: Sequence[Ignored],
    given: dict[str, Any],
) -> Verification:
    from mcpbridge.config.load import spec_for
    from mcpbridge.dev.verify import Verification
    from mcpbridge.reverse.one_request import talking_to_command, talking_to_url
    from mcpbridge.tape.redaction import Redactor, secret_values

    connect = one_request.opener(url, command, given, talking_to_url, talking_to_command)
    redactor = None
    if recording.facts.get("redacted") is not False:
        env = spec_for({}, command).env if command else {}
        redactor = Redactor(secret_values(env, ()))
    return Verification(connect, ignored, redactor)


def _status(outcomes: Sequence[CheckedRequest]) -> int:
    return one_request.FAILED if any(each.differs for each in outcomes) else 0


def _settled(
    checked: Verification, recording: Recording, file: Path, outcomes: Sequence[CheckedRequest]
) -> int:
    """Take the new answers into the recording; return the exit status."""
    from mcpbridge.tape.recording import replace_answers

    at = {id(frame): number for number, frame in enumerate(recording.frames)}
    replace_answers(file, {at[id(frame)]: reply for frame, reply in checked.replaced})
    click.echo(f"{len(checked.replaced)} answers of {file} replaced", err=True)
    return one_request.FAILED if any(each.problem for each in outcomes) else 0
