"""What to start: the command, its environment and its folder.

The command comes from the operator alone, as an argv without a shell; nothing a client sends can
reach it.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence

from mcpbridge.errors import CommandNotExecutable, CommandNotFound
from mcpbridge.process.run_as import ChildUser
from mcpbridge.rules.access.principals import NOTHING, Secrets

_OWN_PREFIX = "MCPBRIDGE_"
_STDIO = {"MCP_TRANSPORT": "stdio", "FASTMCP_TRANSPORT": "stdio"}
_SECRET = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)
_USER_INFO = re.compile(r"//[^/@\s]+@")
_DROPPED = (
    "MCP_HTTP_PATH",
    "MCP_SESSION_MANAGEMENT",
    # Sockets that were handed to the bridge; a child would look for them at the same numbers.
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
)
_NEEDED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TZ", "TMPDIR",
           "SYSTEMROOT", "PATHEXT", "TEMP", "TMP", "USERPROFILE", "APPDATA")  # fmt: skip
"""What hardly a program can do without, and what holds no secret."""


@dataclasses.dataclass(frozen=True, slots=True)
class ChildSpec:
    """Everything needed to start a child; the same for all children of a bridge."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    """The child's whole environment."""
    cwd: str | None = None
    hidden: Secrets = NOTHING
    """Values in its environment that are a client's; not logged where it writes them."""
    user: ChildUser | None = None
    """Whom it is to be; None for whoever the bridge is."""
    confined: bool = False
    """Nothing that it executes may gain privileges: no `sudo`, no set-uid bit, no capability."""


def child_environment(
    own: Mapping[str, str],
    added: Mapping[str, str],
    allowed: Sequence[str] = (),
    user: ChildUser | None = None,
) -> dict[str, str]:
    """The environment of a child: the bridge's, less what is the bridge's alone.

    `MCPBRIDGE_*` may hold secrets. Variables by which platforms tell a server to speak HTTP would
    make it leave its pipe. A Python child buffers its stdout when that is a pipe, and some servers
    never flush. What the operator adds wins over all of this.

    Args:
        own: The bridge's own.
        added: What the operator sets for the child.
        allowed: Patterns for the names that pass, besides what every program needs; none: all do.
        user: Whom the child is to be.
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
    """Look for the command as a shell would, before anything is started.

    Raises:
        CommandNotFound: No file of that name, here or on the child's PATH.
        CommandNotExecutable: The file may not be executed.
    """
    command = spec.argv[0]
    path = spec.env.get("PATH", os.defpath)
    file = shutil.which(_in_folder(command, spec.cwd), path=path)
    if file is not None:
        if _is_bare_text(file):
            raise CommandNotExecutable(command, "it is a text without a #! line")
        return
    if _is_there(_in_folder(command, spec.cwd), path):
        raise CommandNotExecutable(command, "it is there, but it is no executable file")
    where = "no such file" if os.sep in command else "not found on PATH"
    raise CommandNotFound(command, where)


def shown(argv: Sequence[str]) -> str:
    """The command for the log, without the values of arguments that look like secrets."""
    words: list[str] = []
    hide = False
    for word in argv:
        name, equals, _ = word.partition("=")
        secret = _SECRET.search(name) is not None
        words.append("***" if hide else _masked(word))
        hide = not hide and secret and not equals and word.startswith("-")
    return shlex.join(words)


def _masked(word: str) -> str:
    """One word without what looks like a secret: `api_key=…`, `Authorization: …`, `//me:…@`."""
    for mark in ("=", ": "):
        name, found, _ = word.partition(mark)
        if found and _SECRET.search(name) is not None:
            return f"{name}{mark}***"
    return _USER_INFO.sub("//***@", word)


def _in_folder(command: str, cwd: str | None) -> str:
    return os.path.join(cwd, command) if cwd is not None and os.sep in command else command


def _is_there(command: str, path: str) -> bool:
    if os.sep in command:
        return os.path.exists(command)
    return any(os.path.isfile(os.path.join(folder, command)) for folder in path.split(os.pathsep))


def _is_bare_text(file: str) -> bool:
    """Whether the kernel would refuse it as no executable format: a script without its `#!`."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(512)
    except OSError:
        # May be executed and not read: only trying tells.
        return False
    return not head.startswith((b"#!", b"\x7fELF")) and b"\0" not in head
