"""`mcpbridge [OPTIONS] -- COMMAND`: every setting is an option, under headings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import click

from mcpbridge import __version__
from mcpbridge.cli.programs import Programs
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
  mcpbridge --config mcp.json
  mcpbridge doctor -- python server.py
  mcpbridge health http://127.0.0.1:8000

Every option is a variable too: --max-sessions is MCPBRIDGE_MAX_SESSIONS. The option wins.
"""


_SHORT = {"--port": "-p"}
_LIKE = 0.8
"""Least similarity of a word to a command's name to suggest it: docter, and not docker."""


class _Flag(click.Option):
    """An option with the heading that it is listed under."""

    def __init__(self, *names: str, heading: str, **more: Any) -> None:
        super().__init__(list(names), **more)
        self.heading = heading


def program(command: Sequence[str], programs: Mapping[str, str]) -> click.Group:
    """Return the group that serves if none of its commands is named.

    Args:
        command: The server's command, all after `--`.
        programs: The modules of the other programs, by the words that name them.
    """
    hold_signals()
    occupy_descriptors()
    collect_seldom()
    # Imported afterwards: it takes time and makes many objects, and a signal may come.
    from mcpbridge.http.server.lazy_import import import_libraries

    import_libraries()
    from mcpbridge.config.model import options

    @click.pass_context
    def serve(ctx: click.Context, /, **flags: Any) -> int | None:
        if ctx.invoked_subcommand is not None:
            return None
        return _run(texts_given(flags), command)

    class Serve(Programs):
        """A group with its options under headings, and a hint for misplaced words."""

        def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            """Write the commands, then the options, one section for each heading."""
            self.format_commands(ctx, formatter)
            _write_options(self.get_params(ctx), ctx, formatter)

        def resolve_command(
            self, ctx: click.Context, args: list[str]
        ) -> tuple[str | None, click.Command | None, list[str]]:
            """Return the program that the first word names, or raise a hint."""
            given = texts_given(ctx.params)
            if not ctx.resilient_parsing and (given or args[0] not in self.list_commands(ctx)):
                raise click.UsageError(
                    _unexpected_hint(given, args, command, self.list_commands(ctx))
                )
            return super().resolve_command(ctx, args)

    return Serve(
        command,
        programs,
        name="mcpbridge",
        callback=serve,
        params=[*(flag_of(option) for option in options()), _version_flag()],
        help=_HELP,
        invoke_without_command=True,
        subcommand_metavar="-- COMMAND",
        # The words after the first one that is not an option belong to the server; a flag
        # there is not ours to refuse, and the hint can show the correct command line.
        context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
    )


def _run(given: Mapping[str, list[str]], command: Sequence[str]) -> int:
    from mcpbridge.app.lifecycle import run
    from mcpbridge.config.load import load

    config = load(given, command)
    if config.settings.servers.config is None:
        return run(config)
    from mcpbridge.app.servers_lifecycle import run_servers  # needed with --config alone

    return run_servers(config)


def texts_given(flags: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the texts given for each flag, as on the command line."""
    given = {f"--{name.replace('_', '-')}": _texts(value) for name, value in flags.items()}
    return {flag: texts for flag, texts in given.items() if texts}


def _write_options(
    parameters: Sequence[click.Parameter], ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    """Write the options under their headings; click's own come last."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is not None:
            sections.setdefault(getattr(parameter, "heading", "General"), []).append(record)
    for heading, records in sections.items():
        with formatter.section(heading):
            formatter.write_dl(records)


def flag_of(option: Any, *, hidden: bool = False) -> click.Option:
    """Return the option of click for a setting; `hidden`: `--help` does not show it."""
    from mcpbridge.config.load import environment_names
    from mcpbridge.config.values import shown

    facts = option.setting
    switch = facts.unit is Unit.SWITCH
    notes = [f"[{', '.join(environment_names(facts)[1:])}]"] if facts.also_env else []
    default = shown(option.default, facts.unit)
    if default:
        notes.append(f"[default: {default}]")
    return _Flag(
        *([_SHORT[facts.flag]] if facts.flag in _SHORT else []),
        facts.flag,
        facts.flag.removeprefix("--").replace("-", "_"),
        heading=facts.group,
        hidden=hidden,
        help=" ".join([facts.help, *notes]),
        is_flag=switch,
        default=None,
        multiple=facts.repeatable,
        metavar=None if switch else facts.metavar or "|".join(facts.choices) or facts.unit.value,
    )


def _unexpected_hint(
    given: dict[str, list[str]],
    unexpected: Sequence[str],
    command: Sequence[str],
    names: Sequence[str],
) -> str:
    import difflib  # only needed for this error

    from mcpbridge.process.spec import shown

    if unexpected[0] in names:
        name, flag = unexpected[0], next(iter(given))
        return f"{name} comes first, as in: mcpbridge {name} …; {flag} is not an option of it"
    near = difflib.get_close_matches(unexpected[0], names, n=1, cutoff=_LIKE)
    if near:
        return f"no command {unexpected[0]!r}; did you mean {near[0]!r}?"
    if command:
        return f"unexpected {unexpected[0]!r} before --; only options of mcpbridge may precede it"
    own = [word for flag, texts in given.items() for text in texts for word in (flag, text)]
    ours = shlex.join(["mcpbridge", *own])
    return (
        f"the server's command, here {unexpected[0]!r}, must follow --, as in:\n"
        f"  {ours if not given.get('--env') else 'mcpbridge …'} -- {shown(unexpected)}"
    )


def _version_flag() -> click.Option:
    def show(ctx: click.Context, parameter: click.Parameter, asked: bool) -> None:
        if asked and not ctx.resilient_parsing:
            click.echo(f"mcpbridge {__version__}")
            ctx.exit()

    return _Flag(
        "-V",
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
