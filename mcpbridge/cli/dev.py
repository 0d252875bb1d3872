"""`mcpbridge dev [-- COMMAND]`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from mcpbridge.errors import ConfigError
from mcpbridge.runtime.startup import hold_signals, occupy_descriptors

if TYPE_CHECKING:
    from mcpbridge.config.model import Config
    from mcpbridge.dev.page.page import Page
    from mcpbridge.rules.injected_faults import FaultRule

_HELP = """Serve a server while you write it: a save takes effect, and the sessions stay.

Starts COMMAND like `mcpbridge -- COMMAND`, and another process of it when its files change. The new
one takes over once it has answered its handshake; calls in flight are finished by the old one, and
clients hear that the lists may have changed. If the new one cannot start, the old one serves on and
the log says why.

\b
  mcpbridge dev -- python server.py
      Watches the *.py files in the folder of server.py and below.
  mcpbridge dev --watch 'src/**/*.ts' -- npx tsx src/server.ts
      Watches these files. A folder stands for the files of its language in it.
  mcpbridge dev --no-watch -- npx -y @modelcontextprotocol/server-everything
      Watches nothing: only the log and the address are those of a developer.
  mcpbridge dev
      Serves every server of .mcp.json, .vscode/mcp.json or mcp.json in this folder, or of
      --config FILE, and reloads each by itself.

\b
  mcpbridge dev --fault 'tool=find* delay=2s' --fault 'tool=add error rate=0.5' -- python server.py
      Shows how a client or an agent bears a slow tool and one that fails now and then.

What you paste next is printed with the address: the entry for a client's configuration, the page
that shows what passes, and the command of the MCP Inspector. On a terminal each call has a line in
the log.

Watching needs the extra `dev-proxy`. All options of mcpbridge are accepted too;
`mcpbridge --help` shows them, and the most useful ones are below.
"""
_SHOWN = frozenset((
    "--port", "--host", "--cwd", "--env", "--env-file", "--isolation", "--start-timeout",
    "--log-level", "--log-format", "--config",
))  # fmt: skip
_DEFAULTS = {"--log-calls": "true", "--give-up-after": "0", "--spares": "0"}
"""What a developer needs otherwise: a server that cannot start is about to be repaired."""
_SOURCES = ("--config", "--connect", "--stdio")
"""Settings that say what to serve, in place of a command."""
_WATCH = """A file, a folder, or a pattern such as 'src/**/*.py', relative to the server's folder;
may be repeated. By default the files of the language beside the server's script."""

_RECORD = """Record what passes between mcpbridge and its servers in this file, without secrets;
`mcpbridge replay` answers from it, `mcpbridge tape` shows it, `mcpbridge verify` asks it again."""
_MAX = """Size of the recording at which it is renamed to FILE.1 and another one is begun.
[default: 100MiB]"""
_RAW = "Keep the secrets in the recording."
_FAULT = """Spoil calls on purpose; may be repeated. RULE is a few words. Which requests:
tool=PATTERN, method=PATTERN, server=PATTERN; every call of a tool by default. What happens:
delay=2s, error, drop (no answer), garbage (half an answer), die (the process is killed). How often:
rate=0.5 seed=7, the same ones in each run."""
_TAIL = "Print what passes to stdout, a line for each message, as `mcpbridge tail` does."
_RECORD_MAX = 100 << 20
_RECORD_LEAST = 1 << 16


class _ShownPage(NamedTuple):
    """What the flags say of the page."""

    shows: bool
    opens: bool


def program(command: Sequence[str]) -> click.Command:
    """Return the command that serves a developer; `command` is the server's, all after `--`."""
    hold_signals()
    occupy_descriptors()
    # Imported afterwards: it takes time, and a signal may come.
    from mcpbridge.cli.serve import flag_of, texts_given
    from mcpbridge.config.model import options

    def dev(
        watch: tuple[str, ...],
        no_watch: bool,
        record: Path | None,
        record_max: int | None,
        record_raw: bool,
        no_page: bool,
        open_page: bool,
        tail: bool,
        fault: tuple[FaultRule, ...],
        **flags: Any,
    ) -> int:
        if watch and no_watch:
            raise click.UsageError("give either --watch or --no-watch")
        if record is None and (record_max is not None or record_raw):
            raise click.UsageError("--record-max and --record-raw need --record FILE")
        recorded = (record, record_max or _RECORD_MAX, record_raw) if record is not None else None
        if no_page and open_page:
            raise click.UsageError("give either --open or --no-page")
        page = _ShownPage(not no_page, open_page)
        asked = _Asked(watch, recorded, fault, page, watches=not no_watch, tails=tail)
        return _run(texts_given(flags), command, asked)

    params: list[click.Parameter] = [
        *own_options(),
        *(flag_of(each, hidden=each.setting.flag not in _SHOWN) for each in options()),
    ]
    return click.Command(
        "dev", callback=dev, params=params, help=_HELP, options_metavar="[OPTIONS] [-- COMMAND]"
    )


def own_options() -> list[click.Parameter]:
    """Return the options that no other program has."""
    return [
        click.Option(["--watch"], multiple=True, metavar="PATH|GLOB", help=_WATCH),
        click.Option(["--no-watch"], is_flag=True, help="Watch no files."),
        click.Option(["--record"], type=click.Path(path_type=Path), metavar="FILE", help=_RECORD),
        click.Option(["--record-max"], callback=_size, metavar="SIZE", help=_MAX),
        click.Option(["--record-raw"], is_flag=True, help=_RAW),
        click.Option(["--fault"], multiple=True, callback=_rules, metavar="RULE", help=_FAULT),
        click.Option(["--tail"], is_flag=True, help=_TAIL),
        click.Option(["--no-page"], is_flag=True, help="Serve no page that shows what passes."),
        click.Option(["--open", "open_page"], is_flag=True, help="Open the page in a browser."),
    ]


def _size(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    from mcpbridge.config.values import size

    if text is None:
        return None
    try:
        found = size(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} {error}") from None
    if found < _RECORD_LEAST:
        raise click.BadParameter(f"{text!r} is too small (expected at least 64KiB)")
    return found


def _rules(
    context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> tuple[FaultRule, ...]:
    from mcpbridge.rules.injected_faults import fault_rule

    found = []
    for text in texts:
        try:
            found.append(fault_rule(text))
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}") from None
    return tuple(found)


class _Asked(NamedTuple):
    """What is asked for beside the settings of mcpbridge."""

    watch: Sequence[str]
    recorded: tuple[Path, int, bool] | None
    faults: Sequence[FaultRule]
    page: _ShownPage
    watches: bool
    tails: bool


def _run(flags: dict[str, list[str]], command: Sequence[str], asked: _Asked) -> int:
    from mcpbridge.config.load import is_given, load

    given = {**{flag: [text] for flag, text in _DEFAULTS.items()}, **flags}
    if not command and not is_given(_SOURCES, flags):
        given["--config"] = [_file_here()]
    config = load(given, command)
    file = config.settings.servers.config
    from mcpbridge.dev.decoration import Record

    if file is not None and asked.watch:
        remedy = 'write "dev": {"watch": "src/**/*.py"} into the entry of a server'
        raise ConfigError("--watch", "", f"is for one server, and {file} may list several", remedy)
    record = Record(*asked.recorded) if asked.recorded is not None else None
    with ExitStack() as held:
        more: dict[str, Any] = {
            "watches": asked.watches,
            "record": record,
            "faults": asked.faults,
            "page": _page(config, asked.page, held),
            "tails": asked.tails,
        }
        if file is None:
            from mcpbridge.dev.program import run

            return run(config, asked.watch, **more)
        from mcpbridge.dev.servers import run_file

        return run_file(config, **more)


def _page(config: Config, asked: _ShownPage, held: ExitStack) -> Page | None:
    """Return the page, or None if there is none.

    Args:
        config: The configuration; on a unix socket there is no page, since no browser reaches it.
        asked: What the flags say.
        held: Ends what opens the browser.

    Raises:
        ConfigError: See `check_page` and `opener`.
    """
    if not asked.shows or config.bind.path is not None:
        return None
    from mcpbridge.dev.page.page import Page, check_page

    check_page(config)
    if not asked.opens:
        return Page(authenticates=config.asks_who)
    from mcpbridge.dev.page.opener import opener

    browser = held.enter_context(opener())
    return Page(authenticates=config.asks_who, open_url=browser.open)


def _file_here() -> str:
    """Return the path of the file of servers in this folder; raise ConfigError without one."""
    from mcpbridge.config.servers_file import FILE_NAMES, find_servers_file

    found = find_servers_file(Path())
    if found is None:
        names = f"{', '.join(FILE_NAMES[:-1])} or {FILE_NAMES[-1]}"
        problem = f"no MCP server to start: no command after --, and no {names} in {Path.cwd()}"
        remedy = "give a command, as in: mcpbridge dev -- python server.py, or --config FILE"
        raise ConfigError("command", "", problem, remedy)
    return str(found)
