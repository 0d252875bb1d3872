"""The command line: a group whose commands are the programs; without a command it serves.

Only the named program is imported: `mcpbridge health` runs every few seconds and needs little.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from mcpbridge.runtime.startup import hold_signals

if TYPE_CHECKING:
    import click

EXIT_CONFIG = 2

NAMED = {
    "call": "mcpbridge.cli.remote.call",
    "config-for": "mcpbridge.cli.config_for",
    "connect": "mcpbridge.cli.remote.connect",
    "copy-self": "mcpbridge.cli.copy_self",
    "dev": "mcpbridge.cli.dev",
    "doctor": "mcpbridge.cli.doctor",
    "health": "mcpbridge.cli.health",
    "list": "mcpbridge.cli.remote.list",
    "login": "mcpbridge.cli.remote.login",
    "replay": "mcpbridge.cli.tape.replay",
    "shim": "mcpbridge.cli.shim",
    "sidecar": "mcpbridge.cli.sidecar",
    "tail": "mcpbridge.cli.tape.tail",
    "tape": "mcpbridge.cli.tape.export",
    "verify": "mcpbridge.cli.tape.verify",
}
"""The programs that the first word names, with their modules; any other word means `serve`."""
_LOGGING = ("dev", "shim", "sidecar")
"""The programs that write a log, as the bridge does; the others answer a user or a probe."""
_COMPLETES = "_MCPBRIDGE_COMPLETE"
"""The variable of click's shell completion; it names no program, so `serve` is imported."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its status."""
    words = list(sys.argv[1:] if argv is None else argv)
    own, command = _split(words)
    if own[:1] == ["health"] and not any(word.startswith("-") for word in own) and len(own) <= 2:
        _ask_for_health(*own[1:])
    named = bool(own) and own[0] in NAMED
    if not named:
        # Before the slow imports: until then process 1 would lose a signal.
        hold_signals()
    import click

    from mcpbridge.cli.programs import Programs
    from mcpbridge.errors import ConfigError

    root: click.Command
    if named:
        # `mcpbridge health` runs every few seconds and needs little.
        options = {"help_option_names": ["-h", "--help"]}
        root = Programs(command, NAMED, name="mcpbridge", context_settings=options)
    else:
        serve = importlib.import_module("mcpbridge.cli.serve")
        root = serve.program(command, NAMED)
    try:
        status = root.main(own, "mcpbridge", complete_var=_COMPLETES, standalone_mode=False)
    except click.exceptions.Exit as ended:
        status = ended.exit_code
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption):
            program = error.ctx.command if error.ctx is not None else root
            nearest = _nearest(program, error.option_name)
            error = click.NoSuchOption(error.option_name, possibilities=nearest, ctx=error.ctx)
            error = _of_developers(error) or error
        if not _logged(own, error.format_message()):
            error.show()
        status = EXIT_CONFIG
    except ConfigError as error:
        if not _logged(own, str(error)):
            click.echo(f"mcpbridge: {error}", err=True)
        status = EXIT_CONFIG
    sys.exit(status)


def _ask_for_health(words: str | None = None) -> NoReturn:
    """Run `mcpbridge health` without options: images do so every half minute, and click costs
    more processor time than the question."""
    from mcpbridge.app.health_client import ask_for

    good, answer = ask_for(words or None)
    print(answer, file=sys.stdout if good else sys.stderr)
    sys.exit(0 if good else 1)


def _logged(words: Sequence[str], problem: str) -> bool:
    """Log an invalid setting as a record, if the program logs JSON; return whether it does."""
    if words and words[0] in NAMED and words[0] not in _LOGGING:
        return False
    # Only imported for this error.
    import click

    from mcpbridge.config.load import log_form
    from mcpbridge.telemetry.logs import is_json, start_error

    as_json = is_json(log_form(words))
    if as_json:
        click.echo(start_error(problem), err=True)
    return as_json


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Split the arguments into our own, and the server's command: all after the first `--`."""
    if "--" not in words:
        return words, []
    cut = words.index("--")
    return words[:cut], words[cut + 1 :]


def _of_developers(error: click.NoSuchOption) -> click.UsageError | None:
    """Return the error for an option that `mcpbridge dev` alone has; None for any other."""
    # Both only imported for this error.
    import click

    from mcpbridge.cli.dev import own_options

    flag = error.option_name
    if not any(flag in option.opts for option in own_options()):
        return None
    problem = (
        f"{flag} is for a server that is being written, and only `mcpbridge dev` has it:"
        f" mcpbridge dev {flag} … -- COMMAND"
    )
    return click.UsageError(problem, error.ctx)


def _nearest(program: click.Command, flag: str) -> list[str]:
    """Return the known flag most similar to an unknown one."""
    import difflib  # only needed for this error

    known = [name for param in program.params for name in param.opts if name.startswith("--")]
    return difflib.get_close_matches(flag, known, n=1, cutoff=0)
