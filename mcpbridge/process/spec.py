"""Defines what to start: the command, its environment and its folder.

The command comes from the operator only, as an argv without a shell; nothing that a client sends
can reach it.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence

import msgspec

from mcpbridge.errors import CommandNotExecutable, CommandNotFound
from mcpbridge.process.run_as import ChildUser
from mcpbridge.rules.access.principals import NOTHING, Secrets

_ON_WINDOWS = os.name == "nt"
_OWN_PREFIX = "MCPBRIDGE_"
_STDIO = {"MCP_TRANSPORT": "stdio", "FASTMCP_TRANSPORT": "stdio"}
_HIDDEN_NAME = r"(?i)key|token|secret|passw|credential|auth"
_TELLING_LENGTH = 12
_USER_INFO = r"//[^/@\s]+@"
_DROPPED = (
    "MCP_HTTP_PATH",
    "MCP_SESSION_MANAGEMENT",
    # Sockets passed to the bridge; a child would look for them at the same numbers.
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
)
_NEEDED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TZ", "TMPDIR",
           "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "TEMP", "TMP",
           "USERNAME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA",
           "PROGRAMDATA", "PROGRAMFILES", "PROCESSOR_ARCHITECTURE")  # fmt: skip
"""Variables that most programs need and that hold no secret."""


class ChildSpec(msgspec.Struct, frozen=True):
    """Everything needed to start a child; equal for all children of a bridge."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The child's complete environment."""
    cwd: str | None = None
    hidden: Secrets = NOTHING
    """Values in its environment that the log must not show."""
    user: ChildUser | None = None
    """The user to run as; None for the bridge's user."""
    confined: bool = False
    """Whether nothing that it executes may gain privileges by `sudo`, set-uid or capabilities."""


def child_environment(
    own: Mapping[str, str],
    added: Mapping[str, str],
    allowed: Sequence[str] = (),
    user: ChildUser | None = None,
) -> dict[str, str]:
    """Return the environment of a child: the bridge's, without what concerns only the bridge.

    `MCPBRIDGE_*` may hold secrets. Variables by which platforms make a server speak HTTP would make
    it leave its pipe. A Python child buffers its stdout if that is a pipe, and some servers never
    flush. The operator's variables override all of this.

    Args:
        own: The bridge's environment.
        added: The operator's variables for the child.
        allowed: Patterns for names to pass on, in addition to `_NEEDED`; none pass on all names.
        user: The user to run as.
    """
    env = {name: value for name, value in own.items() if not name.startswith(_OWN_PREFIX)}
    if allowed:
        patterns = (*_NEEDED, *allowed)
        env = {
            name: value
            for name, value in env.items()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        }
    if user is not None:
        env = {name: value for name, value in env.items() if name not in ("USER", "LOGNAME")}
        env.update(user.variables)
    for name in _DROPPED:
        env.pop(name, None)
    env.update(_STDIO)
    env.setdefault("PYTHONUNBUFFERED", "1")
    env.update(added)
    return env


def check_command(spec: ChildSpec) -> None:
    """Check that a shell would find the command, before anything is started.

    Raises:
        CommandNotFound: No such file, or not on the child's PATH.
        CommandNotExecutable: The file must not be executed, or would get other arguments.
    """
    command = spec.argv[0]
    path = spec.env.get("PATH", os.defpath)
    file = found_file(spec)
    if file is not None:
        if _ON_WINDOWS:
            _check_words(file, spec.argv[1:])
        elif _is_bare_text(file):
            raise CommandNotExecutable(command, "it is a text without a #! line")
        return
    if _is_there(_in_folder(command, spec.cwd), path):
        raise CommandNotExecutable(command, "the file exists but is not executable")
    where = "no such file" if _has_folder(command) else "not found on PATH"
    raise CommandNotFound(command, where)


def found_file(spec: ChildSpec) -> str | None:
    """Return the file of the command, found in the child's PATH and folder; None if none is."""
    path = spec.env.get("PATH", os.defpath)
    return shutil.which(_in_folder(spec.argv[0], spec.cwd), path=path)


def startable(spec: ChildSpec, *, on_windows: bool = _ON_WINDOWS) -> Sequence[str]:
    """Return the argv to give to the system, which on Windows must name a file.

    Raises:
        CommandNotExecutable: The program would get other arguments.
    """
    file = found_file(spec) if on_windows else None
    if file is None:
        return spec.argv
    _check_words(file, spec.argv[1:])
    return (file, *spec.argv[1:])


def _check_words(file: str, words: Sequence[str]) -> None:
    from mcpbridge.process.windows.command import check_words  # on Windows alone

    check_words(file, words)


def is_secret(name: str, value: str) -> bool:
    """Return whether logs must not show the value of this variable of the operator.

    A short value with a harmless name, such as `info`, may be part of any line, and a path helps to
    read a traceback.
    """
    if re.search(_HIDDEN_NAME, name) is not None:
        return bool(value)
    return len(value) >= _TELLING_LENGTH and not value.startswith(os.sep)


def shown(argv: Sequence[str]) -> str:
    """Return the command for the log, without values of arguments that look like secrets."""
    words: list[str] = []
    hide = False
    for word in argv:
        name, equals, _ = word.partition("=")
        secret = re.search(_HIDDEN_NAME, name) is not None
        words.append("***" if hide else _masked(word))
        hide = not hide and secret and not equals and word.startswith("-")
    return shlex.join(words)


def _masked(word: str) -> str:
    """Mask in one word what looks like a secret: `api_key=…`, `Authorization: …`, `//me:…@`."""
    for mark in ("=", ": "):
        name, found, _ = word.partition(mark)
        if found and re.search(_HIDDEN_NAME, name) is not None:
            return f"{name}{mark}***"
    return re.sub(_USER_INFO, "//***@", word)


def _in_folder(command: str, cwd: str | None) -> str:
    return os.path.join(cwd, command) if cwd is not None and _has_folder(command) else command


def _has_folder(command: str) -> bool:
    """Return whether a command is a path, which is not searched for."""
    return os.sep in command or (os.altsep is not None and os.altsep in command)


def _is_there(command: str, path: str) -> bool:
    if _has_folder(command):
        return os.path.exists(command)
    return any(os.path.isfile(os.path.join(folder, command)) for folder in path.split(os.pathsep))


def _is_bare_text(file: str) -> bool:
    """Return whether the kernel would refuse the file: a script without a `#!` line."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(512)
    except OSError:
        # It may be executable but not readable, so only starting it would tell.
        return False
    return not head.startswith((b"#!", b"\x7fELF")) and b"\0" not in head
