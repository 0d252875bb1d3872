"""Settings of the server: a command with its environment, or an address to connect to."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mcpbridge.errors import ConfigError
from mcpbridge.process.run_as import ChildUser, child_user
from mcpbridge.process.spec import ChildSpec, child_environment, shown
from mcpbridge.settings import SettingsSection, Unit, setting
from mcpbridge.wire.socket_address import Address, address_of

COMMAND_LINE = "the command line"
"""The origin of a value given as a flag."""

_OF_A_CHILD = ("child_env_allow", "child_user", "no_new_privileges")
_DRIVE = r"(?:^|[\s'\"])[A-Za-z]:\\"
"""A path of Windows; POSIX shells give a backslash after a drive another meaning."""
_NAME = r"[A-Za-z_][A-Za-z0-9_]*\Z"


class CommandSettings(SettingsSection, frozen=True):
    """The command to start, or the address to connect to."""

    stdio: str | None = setting(
        None,
        "--stdio",
        "The server's command as one text, split like a shell would but run without one; or give"
        " it after `--`.",
        group="Server",
        metavar="COMMAND",
    )
    connect: Address | None = setting(
        None,
        "--connect",
        "Connect to this address in place of starting a command: a `mcpbridge shim`, or the like,"
        " that starts a server process for each connection.",
        group="Server",
        metavar="unix:PATH|tcp:HOST:PORT",
        parse=address_of,
    )
    env: tuple[str, ...] = setting(
        (),
        "--env",
        "Set a variable for the server; may be repeated.",
        group="Server",
        metavar="NAME=VALUE",
        repeatable=True,
        quoted=True,
    )
    env_file: str | None = setting(
        None,
        "--env-file",
        "Set the variables in this file, one NAME=VALUE a line, for the server.",
        group="Server",
        metavar="FILE",
    )
    cwd: str | None = setting(
        None, "--cwd", "Start the server in this folder.", group="Server", metavar="FOLDER"
    )
    child_env_allow: tuple[str, ...] = setting(
        (),
        "--child-env-allow",
        "Of the bridge's variables pass on only those whose names match, and PATH, HOME, USER,"
        " LOGNAME, LANG, LC_*, TZ and TMPDIR; may be repeated. By default all but MCPBRIDGE_*.",
        group="Server",
        metavar="GLOB",
        repeatable=True,
    )
    child_user: ChildUser | None = setting(
        None,
        "--child-user",
        "Start the server as this user; only root can. Implies --no-new-privileges on Linux.",
        group="Server",
        metavar="NAME|UID[:GROUP]",
        parse=child_user,
    )
    no_new_privileges: bool = setting(
        False,
        "--no-new-privileges",
        "Do not let programs that the server executes gain privileges, by sudo or set-uid;"
        " Linux only.",
        group="Server",
        unit=Unit.SWITCH,
    )


class ServersSettings(SettingsSection, frozen=True):
    """The file that lists servers, in place of one command."""

    config: str | None = setting(
        None,
        "--config",
        "Serve every server of this file, in the form of Claude, VS Code and Cursor: each under"
        " /servers/NAME/mcp.",
        group="Server",
        metavar="FILE",
    )


def no_child(
    settings: CommandSettings,
    origins: Mapping[str, str],
    command: Sequence[str],
    env: Mapping[str, str],
) -> ChildSpec:
    """Return a spec without a command: with `--config` each server of the file has its own.

    Args: as for `child_of`.

    Raises:
        ConfigError: A command is given as well, or a setting of one.
    """
    if command:
        problem = f"a command stands after -- as well: {shown(command)}"
        raise ConfigError("--config", COMMAND_LINE, problem, "give only one")
    for field in ("stdio", "connect", "env", "env_file", "cwd"):
        if field in origins:
            flag = f"--{field.replace('_', '-')}"
            problem = "has no effect with --config"
            raise ConfigError(flag, origins[field], problem, "write it into the server's entry")
    user = settings.child_user
    confined = settings.no_new_privileges or (user is not None and sys.platform == "linux")
    return ChildSpec((), env, user=user, confined=confined)


def child_of(
    settings: CommandSettings,
    origins: Mapping[str, str],
    command: Sequence[str],
    env: Mapping[str, str],
) -> ChildSpec | Address:
    """Return the command to start, or the address at which another program starts it.

    Args:
        settings: The settings.
        origins: The origin of each field of `settings`; none for a default.
        command: The arguments after `--`.
        env: The environment of this process.

    Raises:
        ConfigError: Neither is given, or more than one; or a value is invalid.
    """
    if settings.connect is not None and (origins.get("connect") == COMMAND_LINE or not command):
        return _only_connect(settings, origins, command, settings.connect)
    return spec_of(settings, origins, command, env)


def spec_of(
    settings: CommandSettings,
    origins: Mapping[str, str],
    command: Sequence[str],
    env: Mapping[str, str],
) -> ChildSpec:
    """Return the command to start; arguments and errors as for `child_of`."""
    text, origin = settings.stdio, origins.get("stdio", "")
    if command and text is not None and origin == COMMAND_LINE:
        raise ConfigError("--stdio", origin, "a command stands after -- as well", "give only one")
    if text is not None and not command:
        command = words_of(text, "--stdio", origin)
    if not command or not command[0]:
        raise ConfigError(
            "command",
            "",
            "no MCP server to start",
            "put its command after --, as in: mcpbridge --port 8000 -- python server.py",
        )
    cwd = settings.cwd
    if cwd is not None and not Path(cwd).is_dir():
        raise ConfigError("--cwd", origins.get("cwd", ""), f"{cwd!r} is not a folder")
    user = settings.child_user
    return ChildSpec(
        tuple(command),
        child_environment(env, _added(settings, origins), settings.child_env_allow, user),
        cwd,
        user=user,
        confined=settings.no_new_privileges or (user is not None and sys.platform == "linux"),
    )


def variables_given(settings: CommandSettings) -> Collection[str]:
    """Return the names of the variables that the operator sets for the server."""
    return _added(settings, {}).keys()


def words_of(text: str, key: str, origin: str) -> list[str]:
    """Split a text like a shell would; a backslash is plain text in Windows paths.

    Args:
        text: The text.
        key: The setting, for the error.
        origin: The setting's origin, for the error.

    Raises:
        ConfigError: A quotation is not closed.
    """
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    if sys.platform == "win32" or re.search(_DRIVE, text):
        lexer.escape = ""
    try:
        return list(lexer)
    except ValueError as error:
        problem = str(error)
        raise ConfigError(
            key, origin, f"cannot be split: {problem[:1].lower()}{problem[1:]}"
        ) from None


def _only_connect(
    settings: CommandSettings, origins: Mapping[str, str], command: Sequence[str], address: Address
) -> Address:
    origin = origins.get("connect", "")
    if not hasattr(os, "fork"):
        problem = "is not supported on Windows, which cannot read a socket like a pipe"
        raise ConfigError("--connect", origin, problem, "start the server here, after --")
    if command:
        problem = f"a command stands after -- as well: {shown(command)}"
        raise ConfigError("--connect", origin, problem, "give only one")
    if settings.stdio is not None and (
        origin != COMMAND_LINE or origins.get("stdio") == COMMAND_LINE
    ):
        raise ConfigError("--connect", origin, "--stdio gives a command as well", "give only one")
    for field in ("env", "env_file", "cwd", *_OF_A_CHILD):
        if origins.get(field) == COMMAND_LINE:
            flag = f"--{field.replace('_', '-')}"
            problem = "has no effect with --connect"
            raise ConfigError(flag, COMMAND_LINE, problem, "give it to the listening program")
    return address


def _added(settings: CommandSettings, origins: Mapping[str, str]) -> dict[str, str]:
    added: dict[str, str] = {}
    if (name := settings.env_file) is not None:
        origin = origins.get("env_file", "")
        try:
            lines = Path(name).read_text("utf-8-sig").splitlines()
        except OSError as error:
            problem = f"{name!r} cannot be read: {error.strerror}"
            raise ConfigError("--env-file", origin, problem) from None
        except UnicodeDecodeError:
            raise ConfigError("--env-file", origin, f"{name!r} is not UTF-8 text") from None
        for number, line in enumerate(lines, 1):
            if line.strip() and not line.lstrip().startswith("#"):
                added.update([_assignment(line.strip(), f"--env-file {name}:{number}", origin)])
    for text in settings.env:
        added.update([_assignment(text, "--env", origins.get("env", ""))])
    return added


def _assignment(text: str, key: str, origin: str) -> tuple[str, str]:
    # The error does not repeat the text, since what was meant as a value may be a secret.
    name, equals, value = text.partition("=")
    if not equals or re.match(_NAME, name) is None:
        raise ConfigError(key, origin, "is not of the form NAME=VALUE")
    if "\0" in value:
        raise ConfigError(key, origin, f"the value of {name} contains a NUL")
    return name, value
