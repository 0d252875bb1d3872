"""The everyday causes of a stdio server that cannot be served, and what to do about each.

Pure: signs in, hints out. A sign is a pattern in what the server last said on stderr, or on stdout
in place of a message; the order of the table is the order of how certain the sign is.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from mcpbridge.doctor.server.report import Buffering, Hint, Noise, Outcome
from mcpbridge.rules.faults import Exit

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
        "it opens a port of its own ({0}): it serves HTTP and not stdio",
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
        "it prints how it is to be used ({0})",
        "an argument is missing or misspelt; many servers need a word such as stdio",
    ),
)

_ERROR = re.compile(r"^\s*(?:Uncaught )?((?:[A-Za-z_][\w.]*)?(?:Error|Exception)\b.*)")
_ZOD = re.compile(r'"path":\s*\[\s*"?([^"\],]+)"?.*?"message":\s*"([^"]+)"', re.DOTALL)
_SHELL = re.compile(r"[|;<>&`]|\$[\w({]|^~")
_KEPT = 120


def hints(
    argv: Sequence[str],
    outcome: Outcome,
    *,
    said: Iterable[str] = (),
    how: Exit | None = None,
    noise: Noise | None = None,
    buffering: Buffering = Buffering.NONE,
) -> tuple[Hint, ...]:
    """What probably keeps a server from being served, the most certain first; each cause once.

    Args:
        argv: Its command.
        outcome: How its start went.
        said: The last lines of its stderr.
        how: How it ended by itself.
        noise: What stood on its stdout and was no message.
        buffering: Whether it keeps its answers back.
    """
    found: list[Hint] = []
    if outcome in (Outcome.NOT_FOUND, Outcome.NOT_EXECUTABLE):
        found += _of_the_command(argv, outcome)
    elif outcome is not Outcome.SERVED:
        found += _of_buffering(argv, buffering)
        words = [*said, *(noise.sample if noise else ())]
        found += _of_words("\n".join(words)) or _of_error(words)
        found += _of_shell(argv)
        found += _of_outcome(argv, outcome, how) if not found else []
    elif noise is not None:
        found += _of_noise(noise)
    return tuple(dict.fromkeys(found))


def _of_the_command(argv: Sequence[str], outcome: Outcome) -> list[Hint]:
    command = argv[0]
    if " " in command:
        remedy = "leave the quotes away: mcpbridge -- WORD WORD, or use --stdio"
        return [Hint("the whole command was given as one word", remedy)]
    found = _of_shell(argv)
    if outcome is Outcome.NOT_EXECUTABLE:
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
    remedy = missing.get(PurePath(command).name, "install it in this image, or give its full path")
    return [*found, Hint(f"there is no program {command!r} on the server's PATH", remedy)]


def _of_shell(argv: Sequence[str]) -> list[Hint]:
    runs_shell = len(argv) > 1 and PurePath(argv[0]).name in ("sh", "bash", "dash", "zsh")
    marked = [word for word in argv if _SHELL.search(word)]
    if runs_shell or not marked or "-c" in argv or "-e" in argv:
        return []
    cause = f"the command is started without a shell, and {marked[0]!r} is shell syntax"
    return [Hint(cause, "run a shell yourself: mcpbridge -- sh -c 'exec …'")]


def _of_words(text: str) -> list[Hint]:
    found = []
    for pattern, cause, remedy in _SIGNS:
        match = re.search(pattern, text)
        if match is not None:
            found.append(Hint(cause.format(match[1].strip()[:_KEPT]), remedy))
    return found


def _of_error(words: Sequence[str]) -> list[Hint]:
    """The error that the server names itself: of Python the last one, of others the first."""
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


def _of_buffering(argv: Sequence[str], buffering: Buffering) -> list[Hint]:
    if buffering is Buffering.NONE:
        return []
    if PurePath(argv[0]).name.startswith("python"):
        remedy = (
            "flush after each message: print(…, flush=True); PYTHONUNBUFFERED=1, which mcpbridge"
            " sets, does not reach a buffer that the program makes itself"
        )
    else:
        remedy = "flush stdout after each message; for programs of C's stdio: stdbuf -oL COMMAND"
    when = "more input comes" if buffering is Buffering.UNTIL_MORE else "its input ends"
    return [Hint(f"it keeps its answers in a buffer until {when}", remedy)]


def _of_outcome(argv: Sequence[str], outcome: Outcome, how: Exit | None) -> list[Hint]:
    if outcome is Outcome.SILENT:
        cause = "it runs, and says nothing in answer to initialize"
        remedy = (
            "give it more time with --timeout, if it starts slowly; else it serves HTTP, waits for"
            " a terminal, or is no MCP server"
        )
        return [Hint(cause, remedy)]
    if outcome is Outcome.STALLED:
        remedy = (
            "clients would wait for its tools in vain: it may wait for a login, the network or"
            " another program; run it by hand, or give it more time with --timeout"
        )
        return [Hint("it answers initialize, and not tools/list", remedy)]
    if outcome is Outcome.REFUSED:
        remedy = "read its error above; it may miss an argument, or speak a protocol of its own"
        return [Hint("it answers initialize with an error", remedy)]
    if outcome is Outcome.CLOSED:
        remedy = "it has gone into the background, or given its stdout away; start it in front"
        return [Hint("it closed its stdout and runs on", remedy)]
    return _of_end(argv, how or Exit())


def _of_end(argv: Sequence[str], how: Exit) -> list[Hint]:
    if how.signal == signal.SIGKILL or how.code == 128 + signal.SIGKILL:
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
    remedy = f"run it by hand and read what it says: {PurePath(argv[0]).name} …"
    return [Hint(f"it ended with {how} and said nothing that is known here", remedy)]


def _of_noise(noise: Noise) -> list[Hint]:
    if any(line.lower().startswith("content-length:") for line in noise.sample):
        remedy = "its SDK frames messages as language servers do; MCP has one JSON text a line"
        return [Hint("it writes heads before its messages", remedy)]
    remedy = "harmless behind mcpbridge, which leaves such lines out; better let it log on stderr"
    return [Hint("it prints on stdout what is no message", remedy)]
