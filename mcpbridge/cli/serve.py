"""`mcpbridge [OPTIONS] -- COMMAND`: every setting an option, under headings."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import click

from mcpbridge import __version__
from mcpbridge.runtime.startup import collect_seldom, hold_signals, occupy_descriptors
from mcpbridge.settings import Unit

_HELP = """Serve a stdio MCP server over HTTP.

Starts COMMAND, keeps it running, and lets many clients use it at once over Streamable HTTP at
/mcp. Health probes: /livez, /readyz, /startupz, /health.

\b
  mcpbridge -- python server.py
  mcpbridge --port 9000 -- npx -y @modelcontextprotocol/server-everything
  mcpbridge --stdio "node /srv/index.js" --listen 0.0.0.0:8000
  mcpbridge --connect unix:/run/mcp/mcp.sock
  mcpbridge health http://127.0.0.1:8000

Every option is a variable too: --max-sessions is MCPBRIDGE_MAX_SESSIONS. The option wins.
"""


class _GroupedCommand(click.Command):
    """A command whose help shows its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, one section for each heading; what is not ours comes last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                heading = getattr(parameter, "heading", "General")
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class _Flag(click.Option):
    """An option with the heading it stands under."""

    def __init__(self, *names: str, heading: str, **more: Any) -> None:
        super().__init__(list(names), **more)
        self.heading = heading


def program(command: Sequence[str]) -> click.Command:
    """The command that serves; `command` is the server's, all after `--`."""
    hold_signals()
    occupy_descriptors()
    collect_seldom()
    # Imported after that: it takes its time, and makes much, and a signal may come.
    from mcpbridge.config.model import options

    def serve(stray: tuple[str, ...], **flags: Any) -> int:
        from mcpbridge.app.lifecycle import run
        from mcpbridge.config.load import load

        given = {f"--{name.replace('_', '-')}": _texts(value) for name, value in flags.items()}
        if stray:
            raise click.UsageError(_stray_hint(given, stray, command))
        return run(load({flag: texts for flag, texts in given.items() if texts}, command))

    params: list[click.Parameter] = [click.Argument(["stray"], nargs=-1, metavar="-- COMMAND")]
    params.extend(_flag_of(option) for option in options())
    params.append(_version_flag())
    return _GroupedCommand(
        "serve",
        callback=serve,
        params=params,
        help=_HELP,
        # What follows the first word that is no option of ours belongs to the server; a flag
        # there is not ours to refuse, and the hint can show the line as it should have been.
        context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
    )


def _flag_of(option: Any) -> click.Option:
    from mcpbridge.config.load import environment_names
    from mcpbridge.config.values import shown

    facts = option.setting
    switch = facts.unit is Unit.SWITCH
    notes = [f"[{', '.join(environment_names(facts)[1:])}]"] if facts.also_env else []
    default = shown(option.default, facts.unit)
    if default:
        notes.append(f"[default: {default}]")
    return _Flag(
        facts.flag,
        facts.flag.removeprefix("--").replace("-", "_"),
        heading=facts.group,
        help=" ".join([facts.help, *notes]),
        is_flag=switch,
        default=None,
        multiple=facts.repeatable,
        metavar=None if switch else facts.metavar or "|".join(facts.choices) or facts.unit.value,
    )


def _stray_hint(given: dict[str, list[str]], stray: tuple[str, ...], command: Sequence[str]) -> str:
    from mcpbridge.process.spec import shown

    if command:
        return f"unexpected {stray[0]!r} before --; only options of mcpbridge stand there"
    own = [word for flag, texts in given.items() for text in texts for word in (flag, text)]
    ours = shlex.join(["mcpbridge", *own])
    return (
        f"the server's command, here {stray[0]!r}, stands after --, as in:\n"
        f"  {ours if not given.get('--env') else 'mcpbridge …'} -- {shown(stray)}"
    )


def _version_flag() -> click.Option:
    def show(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
        if asked and not ctx.resilient_parsing:
            click.echo(f"mcpbridge {__version__}")
            ctx.exit()

    return _Flag(
        "--version",
        heading="General",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show,
        help="Show the version and exit.",
    )


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return ["true"] if value else []
    return [value] if isinstance(value, str) else list(value)
