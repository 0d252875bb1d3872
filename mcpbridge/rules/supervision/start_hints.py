"""Finds common causes why a server cannot be started, each with a remedy.

A sign is a pattern in the last lines on stderr, or on stdout in place of a message; the table is
ordered by the certainty of the sign.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from mcpbridge.rules.faults import Exit


class Hint(msgspec.Struct, frozen=True):
    """A common cause that the signs suggest."""

    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.remedy}"


_SIGNS: tuple[tuple[str, str, str], ...] = (
    (
        r"No module named '?([\w.]+)",
        "the Python module {0} is not installed for the interpreter that runs the server",
        "install it there, or name the right environment's interpreter: /path/to/venv/bin/python",
    ),
    (
        r"Cannot find (?:module|package) '([^']+)'",
        "the Node package or file {0} is missing",
        "run npm install in the server's folder, and start it there with --cwd",
    ),
    (
        r"ImportError: (.+)",
        "an import fails: {0}",
        "the versions of the server's packages do not fit each other; install its locked ones",
    ),
    (
        r"can't open file '([^']+)'",
        "there is no file {0}",
        "give the full path, or the folder with --cwd",
    ),
    (
        r"\b(EAI_AGAIN|ENOTFOUND|ECONNREFUSED|getaddrinfo|[Nn]ame resolution"
        r"|[Nn]etwork is unreachable)",
        "it asked the network at its start and got no answer ({0})",
        "install the server into the image, so that npx or uvx has nothing to fetch",
    ),
    (
        r"(?i)npm (?:ERR!|error) (?:code )?(E404|ETARGET)",
        "npm knows no such package or version ({0})",
        "look at the spelling of the package's name",
    ),
    (
        r"(?i)(EROFS|read-only file system)",
        "it writes where nothing may be written ({0})",
        "give it a writable folder: --env npm_config_cache=/tmp/npm, UV_CACHE_DIR or HOME",
    ),
    (
        r"(?i)(EACCES|permission denied)",
        "it may not read or write something ({0})",
        "look at the files' owner: in a container the server runs as another user",
    ),
    (
        r"(?i)(EADDRINUSE|address already in use|uvicorn running on|serving http on"
        r"|listening (?:on|at) (?:http|port))",
        "it opens a port ({0}): it serves HTTP and not stdio",
        "start its stdio mode, often an argument such as stdio or --transport stdio",
    ),
    (
        r"(?i)(not a tty|not a terminal|inappropriate ioctl)",
        "it wants a terminal ({0})",
        "start it without one: docker run -i instead of -it, no pager, no prompt",
    ),
    (
        r"(?i)(\w*(?:API_?KEY|TOKEN|SECRET|PASSWORD)\w*|environment variable).{0,40}"
        r"(?:required|missing|not set|must be|not found|undefined)",
        "it misses a variable ({0})",
        "give it with --env NAME=VALUE or --env-file",
    ),
    (
        r"(?i)(?:missing|required|must provide|please set).{0,40}"
        r"(\w*(?:API_?KEY|TOKEN|SECRET|PASSWORD)\w*|environment variable)",
        "it misses a variable ({0})",
        "give it with --env NAME=VALUE or --env-file",
    ),
    (
        r"KeyError: ['\"]([A-Z][A-Z0-9_]{2,})['\"]",
        "it misses a variable ({0})",
        "give it with --env NAME=VALUE or --env-file",
    ),
    (
        r"(SyntaxError.*)",
        "its interpreter does not understand its source ({0})",
        "use the version of Python or Node that the server asks for",
    ),
    (
        r"(GLIBC_[\d.]+|ld-linux[^:]*|ld-musl[^:]*|[Ee]xec format error)",
        "the program is built for another system ({0})",
        "use the build for this image: glibc or musl, amd64 or arm64",
    ),
    (
        r"(?im)^\s*(usage:.*)",
        "it prints its usage ({0})",
        "an argument is missing or misspelt; many servers need a word such as stdio",
    ),
)

_ERROR = re.compile(r"^\s*(?:Uncaught )?((?:[A-Za-z_][\w.]*)?(?:Error|Exception)\b.*)")
_ZOD = re.compile(r'"path":\s*\[\s*"?([^"\],]+)"?.*?"message":\s*"([^"]+)"', re.DOTALL)
_SHELL = re.compile(r"[|;<>&`]|\$[\w({]|^~")
_KEPT = 120
_SIGKILL = 9


def of_command(argv: Sequence[str], *, found_file: bool) -> list[Hint]:
    """Return the causes for a command that is not found, or (`found_file`) is not executable."""
    command = argv[0]
    if " " in command:
        remedy = "leave the quotes away: mcpbridge -- WORD WORD, or use --stdio"
        # `cd x && python server.py` in quotes needs more than the quotes removed.
        return of_shell(argv) or [Hint("the whole command was given as one word", remedy)]
    found = of_shell(argv)
    if command == "cd":
        remedy = "give the folder with --cwd FOLDER, and after -- only the command to run there"
        return [Hint("cd is a word of the shell, and no shell runs the command", remedy)]
    if found_file:
        remedy = "chmod +x it and begin it with #!, or name the program that runs it: python, node"
        return [*found, Hint(f"{command} is there and cannot be run", remedy)]
    missing = {
        "npx": "Node is not installed here; use an image with Node",
        "node": "Node is not installed here; use an image with Node",
        "uvx": "uv is not installed here; use an image with uv, or install the server with pip",
        "uv": "uv is not installed here; use an image with uv, or install the server with pip",
        "docker": "there is no docker here; run the server itself in this image",
        "python": "try python3, or the interpreter's full path",
    }
    remedy = missing.get(program_name(command), "install it in this image, or give its full path")
    return [*found, Hint(f"there is no program {command!r} on the server's PATH", remedy)]


def of_shell(argv: Sequence[str]) -> list[Hint]:
    """Return a hint if the command contains shell syntax and no shell runs it."""
    runs_shell = len(argv) > 1 and program_name(argv[0]) in ("sh", "bash", "dash", "zsh")
    marked = [word for word in argv if _SHELL.search(word)]
    if runs_shell or not marked or "-c" in argv or "-e" in argv:
        return []
    cause = f"the command is started without a shell, and {marked[0]!r} is shell syntax"
    return [Hint(cause, "run a shell yourself: mcpbridge -- sh -c 'exec …'")]


def of_words(text: str) -> list[Hint]:
    """Return a hint for each sign in a server's output."""
    found = []
    for pattern, cause, remedy in _SIGNS:
        match = re.search(pattern, text)
        if match is not None:
            found.append(Hint(cause.format(match[1].strip()[:_KEPT]), remedy))
    return found


def of_error(words: Sequence[str]) -> list[Hint]:
    """Return the error that the server reports: of Python the last one, of others the first."""
    settings = _ZOD.search("\n".join(words)) if any("Zod" in line for line in words) else None
    if settings is not None:
        cause = f"it refuses its settings: {settings[1].strip()}: {settings[2]}"[:_KEPT]
        return [Hint(cause, "give what it names with --env NAME=VALUE, or as an argument")]
    errors = [match[1].strip() for line in words if (match := _ERROR.match(line))]
    if not errors:
        return []
    is_python = any(line.startswith("Traceback ") for line in words)
    cause = f"it says: {errors[-1 if is_python else 0][:_KEPT]}"
    return [Hint(cause, "read its words above; run it by hand to see all of them")]


def of_end(argv: Sequence[str], how: Exit) -> list[Hint]:
    """Return the hint that the exit status alone gives."""
    if how.signal == _SIGKILL or how.code == 128 + _SIGKILL:
        return [Hint("it was killed, as the system does when memory runs out", "raise the limit")]
    if how.signal is not None:
        remedy = "run it by hand; native modules of another system end like this"
        return [Hint(f"it crashed ({how})", remedy)]
    if how.code == 0:
        remedy = (
            "it may be a tool that does its work and ends, go into the background, or need a word"
            " such as stdio or serve"
        )
        return [Hint("it ended as if all were done, without reading its input", remedy)]
    remedy = f"read its last words, and run it by hand to see all: {program_name(argv[0])} …"
    return [Hint(f"it ended with {how}, for a reason that mcpbridge does not recognize", remedy)]


def of_failed_start(argv: Sequence[str], said: Iterable[str], how: Exit) -> tuple[Hint, ...]:
    """Return the probable causes of an end before the first answer, the most certain first.

    Args:
        argv: The server's command.
        said: The last lines of its stderr.
        how: Its end.
    """
    words = list(said)
    found = (of_words("\n".join(words)) or of_error(words)) + of_shell(argv)
    if not found and how.is_known:
        found = of_end(argv, how)
    return tuple(dict.fromkeys(found))


def program_name(path: str) -> str:
    """Return the last part of a program's path, also of a Windows path."""
    return re.split(r"[\\/]", path)[-1]
