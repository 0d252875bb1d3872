"""The command line: `mcpbridge [OPTIONS] -- COMMAND` and `mcpbridge health [URL]`."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from mcpbridge import __version__
from mcpbridge.errors import ConfigError
from mcpbridge.settings import Unit

EXIT_CONFIG = 2

_HELP = """Serve a stdio MCP server over HTTP.

Starts COMMAND, keeps it running, and lets many clients use it at once over Streamable HTTP at
/mcp. Health probes: /livez, /readyz, /startupz, /health.

\b
  mcpbridge -- python server.py
  mcpbridge --port 9000 -- npx -y @modelcontextprotocol/server-everything
  mcpbridge --stdio "node /srv/index.js" --listen 0.0.0.0:8000
  mcpbridge health http://127.0.0.1:8000

Every option is a variable too: --max-sessions is MCPBRIDGE_MAX_SESSIONS.
"""


class _GroupedCommand(click.Command):
    """A command whose help shows its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, one section for each heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its status."""
    words = list(sys.argv[1:] if argv is None else argv)
    own, command = _split(words)
    try:
        if own[:1] == ["health"]:
            status = _health_command().main(own[1:], "mcpbridge health", standalone_mode=False)
        else:
            status = _serve_command(command).main(own, "mcpbridge", standalone_mode=False)
    except click.exceptions.Exit as ended:
        status = ended.exit_code
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and error.possibilities:
            error.possibilities = difflib.get_close_matches(
                error.option_name, error.possibilities, n=1, cutoff=0
            )
        error.show()
        status = EXIT_CONFIG
    except ConfigError as error:
        click.echo(f"mcpbridge: {error}", err=True)
        status = EXIT_CONFIG
    sys.exit(status)


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Our own words, and the server's command: all after the first `--`."""
    if "--" not in words:
        return words, []
    cut = words.index("--")
    return words[:cut], words[cut + 1 :]


def _serve_command(command: Sequence[str]) -> click.Command:
    # Imported here: `mcpbridge health` runs every few seconds and needs none of it.
    from mcpbridge.config.load import environment_names
    from mcpbridge.config.model import options

    def serve(stray: tuple[str, ...], **flags: Any) -> int:
        from mcpbridge.app.serve import run
        from mcpbridge.config.load import load

        if stray:
            raise click.UsageError(
                f"unexpected {stray[0]!r}; the server's command stands after --, as in:"
                " mcpbridge --port 8000 -- python server.py"
            )
        given = {f"--{name.replace('_', '-')}": _texts(value) for name, value in flags.items()}
        return run(load({flag: texts for flag, texts in given.items() if texts}, command))

    params: list[click.Parameter] = [click.Argument(["stray"], nargs=-1, metavar="-- COMMAND")]
    for option in options():
        facts = option.setting
        switch = facts.unit is Unit.SWITCH
        notes = [f"[{', '.join(environment_names(facts)[1:])}]"] if facts.also_env else []
        default = _default_text(option.default, facts.unit)
        if default:
            notes.append(f"[default: {default}]")
        params.append(
            _Flag(
                facts.flag,
                facts.flag.removeprefix("--").replace("-", "_"),
                heading=facts.group,
                help=" ".join([facts.help, *notes]),
                is_flag=switch,
                default=None,
                multiple=facts.repeatable,
                metavar=None
                if switch
                else facts.metavar or "|".join(facts.choices) or facts.unit.value,
            )
        )
    params.append(_version_flag())
    return _GroupedCommand("mcpbridge", callback=serve, params=params, help=_HELP)


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


def _health_command() -> click.Command:
    @click.command(help="Ask a running bridge how it is; exits 0 when it can serve, else 1.")
    @click.argument("url", required=False)
    def health(url: str | None) -> int:
        from mcpbridge.app.health import ask

        good, answer = ask(url or f"http://127.0.0.1:{_own_port()}")
        click.echo(answer, err=not good)
        return 0 if good else 1

    return health


def _own_port() -> str:
    return os.environ.get("MCPBRIDGE_PORT") or os.environ.get("PORT") or "8000"


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return ["true"] if value else []
    return [value] if isinstance(value, str) else list(value)


def _default_text(value: Any, unit: Unit) -> str:
    if value in (None, (), False):
        return ""
    if unit is Unit.SECONDS:
        return f"{value:g}s"
    if unit is Unit.BYTES:
        return f"{value >> 20}MiB" if value >= 1 << 20 else str(value)
    return str(getattr(value, "value", value))
