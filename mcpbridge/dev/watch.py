"""Watches the files of a server and reports changes, once they have stopped coming.

Folders are watched and not files: many editors save by writing another file and renaming it. Each
folder is watched by itself, so that those with thousands of files of others cost nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Callable, Collection, Container, Iterable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import anyio
import msgspec
from anyio import to_thread

from mcpbridge import DISTRIBUTION
from mcpbridge.errors import ConfigError
from mcpbridge.rules.supervision.start_hints import program_name

IGNORED = frozenset((".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv"))
"""Folders of tools and of packages; what is in them is neither watched nor walked."""
MAX_FOLDERS = 2000
"""Most folders that are watched: the system limits them, and each takes some kernel memory."""
_QUIET_MS = 300
_LONGEST_MS = 5000
"""Milliseconds after which changes are reported though more are coming."""

_PYTHON = (".py",)
_NODE = (".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx")
_LANGUAGES = {
    "python": _PYTHON, "uv": _PYTHON, "uvx": _PYTHON, "fastmcp": _PYTHON, "poetry": _PYTHON,
    "node": _NODE, "npx": _NODE, "npm": _NODE, "pnpm": _NODE, "yarn": _NODE, "bun": _NODE,
    "bunx": _NODE, "deno": _NODE, "tsx": _NODE, "ts-node": _NODE,
    "ruby": (".rb",), "php": (".php",), "go": (".go",), "java": (".jar", ".class"),
    "dotnet": (".cs", ".dll"), "cargo": (".rs",), "perl": (".pl", ".pm"), "lua": (".lua",),
    "sh": (".sh",), "bash": (".sh",),
}  # fmt: skip
_SUFFIXES = {suffix: group for group in _LANGUAGES.values() for suffix in group}


class Watched(msgspec.Struct, frozen=True):
    """One folder whose changes count."""

    folder: Path
    pattern: str
    """A regular expression for the path of a file below the folder, with `/`."""
    deep: bool = True
    """Whether the folders in it are watched too."""
    means: str = ""
    """What is watched, for people."""

    def matches(self, path: Path) -> bool:
        """Return whether a change of this file counts."""
        try:
            below = path.relative_to(self.folder)
        except ValueError:
            return False
        if IGNORED.intersection(below.parts):
            return False
        return re.fullmatch(self.pattern, below.as_posix(), re.DOTALL) is not None


def watched_by_default(
    argv: Sequence[str], folder: Path, *, any_language: bool = True
) -> Watched | None:
    """Return what to watch for a server's command: the files of its language beside its script.

    Args:
        argv: The server's command.
        folder: The folder that it is started in.
        any_language: Whether every file counts if the language is not known.

    Returns:
        None if there is nothing certain: it runs from a package, or is started without a script in
        the home folder itself.
    """
    suffixes = suffixes_of(argv)
    script = script_in(argv, folder)
    if script is None and not suffixes and not any_language:
        return None
    if script is None and program_name(argv[0]) in ("npx", "uvx", "bunx", "docker", "podman"):
        # It runs what was fetched from a registry: no file here is its program.
        return None
    chosen = script.parent if script is not None else folder
    if script is not None and script.suffix not in suffixes:
        suffixes = (*suffixes, script.suffix)
    if chosen in (Path.home(), Path(chosen.anchor)):
        # Below it are all files of a person or of the machine.
        return _beside(chosen, suffixes) if script is not None else None
    return _all_of(chosen, suffixes, chosen, script)


def suffixes_of(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the suffixes of the files of a command's language; empty if it is not known."""
    name = re.sub(r"[\d.]+\Z", "", program_name(argv[0]).lower().removesuffix(".exe"))
    if name in _LANGUAGES:
        return _LANGUAGES[name]
    return next((_SUFFIXES[s] for s in map(_suffix, argv) if s in _SUFFIXES), ())


def watched_as_asked(texts: Iterable[str], argv: Sequence[str], folder: Path) -> list[Watched]:
    """Return what `--watch` asks for.

    Args:
        texts: Files, folders and patterns, relative to `folder`.
        argv: The server's command; of a folder the files of its language count.
        folder: The folder that the command is started in.

    Raises:
        ConfigError: There is no such file or folder.
    """
    return [_watched(text, suffixes_of(argv), folder) for text in texts]


def require_watchfiles() -> Any:
    """Import the library that watches.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import watchfiles  # an extra that may not be installed
    except ImportError:
        remedy = f"pip install '{DISTRIBUTION}[dev-proxy]', or give --no-watch"
        raise ConfigError("--watch", "", "needs the package watchfiles", remedy) from None
    return watchfiles


class FileWatcher:
    """A watcher of the files of one server."""

    def __init__(self, watched: Collection[Watched], ignored: Container[Path] = ()) -> None:
        """Make a watcher.

        Args:
            watched: What counts.
            ignored: Files that do not, though they are in it; asked at each change.

        Raises:
            ConfigError: The library that watches is not installed.
        """
        self._watchfiles = require_watchfiles()
        self.watched = tuple(watched)
        self._ignored = ignored

    async def run(self, started: Callable[[], None], changed: Callable[[list[str]], None]) -> None:
        """Watch until cancelled.

        Args:
            started: Called when changes are seen from now on.
            changed: Called after each burst of changes with the names of the files.

        Raises:
            ConfigError: There are too many folders, or the system does not let them be watched.
        """
        folders = await to_thread.run_sync(self._folders)
        while True:
            paths = await self._watch(folders, started, changed)
            # A folder is new, and files may have been put into it before it was watched.
            before, folders = folders, await to_thread.run_sync(self._folders)
            paths += await to_thread.run_sync(_files_in, folders - before)
            if names := self.names(paths):
                changed(names)

    def names(self, paths: Iterable[Path]) -> list[str]:
        """Return the names, for people, of those files whose changes count."""
        found = {
            path.relative_to(each.folder).as_posix()
            for path in paths
            for each in self.watched
            if path not in self._ignored and each.matches(path)
        }
        return sorted(found)

    async def _watch(
        self,
        folders: Collection[Path],
        started: Callable[[], None],
        changed: Callable[[list[str]], None],
    ) -> list[Path]:
        """Watch these folders until one is added; return the changes that came with it."""
        stop = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_set_at_cancellation, stop)
            # The watch begins in the turn of the loop in which its first changes are asked for.
            asyncio.get_running_loop().call_soon(started)
            try:
                async with aclosing(self._bursts(folders, stop)) as bursts:
                    async for paths in bursts:
                        if any(self._is_new_folder(path, folders) for path in paths):
                            return paths
                        if names := self.names(paths):
                            changed(names)
            finally:
                tasks.cancel_scope.cancel()
        return []

    async def _bursts(
        self, folders: Collection[Path], stop: anyio.Event
    ) -> AsyncGenerator[list[Path], None]:
        watched = self._watchfiles.awatch(
            *folders,
            watch_filter=None,
            debounce=_LONGEST_MS,
            step=_QUIET_MS,
            stop_event=stop,
            recursive=False,
            ignore_permission_denied=True,
        )
        try:
            async for burst in watched:
                yield [Path(path) for _, path in burst]
        except OSError as error:
            problem = f"the system does not let {len(folders)} folders be watched: {error}"
            raise ConfigError("--watch", "", problem, "name fewer with --watch") from None

    def _is_new_folder(self, path: Path, folders: Collection[Path]) -> bool:
        deep = any(each.deep and path.is_relative_to(each.folder) for each in self.watched)
        return deep and path not in folders and path.name not in IGNORED and path.is_dir()

    def _folders(self) -> set[Path]:
        found: set[Path] = set()
        for each in self.watched:
            found.add(each.folder)
            for top, names, _ in os.walk(each.folder) if each.deep else ():
                names[:] = [name for name in names if name not in IGNORED]
                found.update(Path(top, name) for name in names)
                if len(found) > MAX_FOLDERS:
                    problem = f"more than {MAX_FOLDERS} folders in {each.folder}"
                    raise ConfigError("--watch", "", problem, "name fewer: --watch 'src/*.py'")
        return found


async def _set_at_cancellation(stop: anyio.Event) -> None:
    # The thread that waits for changes does not see a cancellation, and the end waits for it.
    try:
        await anyio.sleep_forever()
    finally:
        stop.set()


def _files_in(folders: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for folder in folders:
        with suppress(OSError):  # it may be gone again
            found += folder.iterdir()
    return found


def _watched(text: str, suffixes: Sequence[str], folder: Path) -> Watched:
    path = (folder / Path(text).expanduser()).resolve()
    if path.is_dir():
        return _all_of(path, suffixes, folder, None)
    if path.is_file():
        return Watched(path.parent, re.escape(path.name), deep=False, means=text)
    parts = Path(text).expanduser().parts
    fixed = next((n for n, part in enumerate(parts) if _is_pattern(part)), None)
    top = (folder / Path(*parts[:fixed])).resolve() if fixed is not None else path
    if fixed is None or not top.is_dir():
        raise ConfigError("--watch", text, "no such file or folder", "name one that exists")
    rest = parts[fixed:]
    return Watched(top, _regex(rest), deep=len(rest) > 1, means=text)


def _all_of(top: Path, suffixes: Sequence[str], folder: Path, script: Path | None) -> Watched:
    ends = "|".join(map(re.escape, suffixes))
    shown = ", ".join(f"*{suffix}" for suffix in suffixes) or "every file"
    place = "." if top == folder and script is None else str(top)
    return Watched(top, f".*(?:{ends})" if suffixes else ".*", means=f"{shown} in {place}")


def _beside(folder: Path, suffixes: Sequence[str]) -> Watched:
    """Return the files of a language in a folder, but not below it."""
    ends = "|".join(map(re.escape, suffixes))
    shown = ", ".join(f"*{suffix}" for suffix in suffixes) or "every file"
    means = f"{shown} in {folder}, but not in folders below"
    return Watched(folder, f"[^/]*(?:{ends})", deep=False, means=means)


def script_in(argv: Sequence[str], folder: Path) -> Path | None:
    """Return the first word of a command that is a file with a suffix of a language; else None."""
    for word in argv[1:] if len(argv) > 1 else argv:
        path = folder / Path(word).expanduser()
        if _suffix(word) in _SUFFIXES and path.is_file():
            return path.resolve()
    first = folder / Path(argv[0]).expanduser()
    # A command such as ./server: the file itself, if it is not a program of the system.
    if os.sep in argv[0] and first.is_file() and first.resolve().is_relative_to(folder.resolve()):
        return first.resolve()
    return None


def _suffix(word: str) -> str:
    return Path(word).suffix.lower()


def _is_pattern(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _regex(parts: Sequence[str]) -> str:
    """Return a regular expression for a pattern; `**` stands for any number of folders."""
    found = ""
    for number, part in enumerate(parts, 1):
        if part == "**":
            found += ".*" if number == len(parts) else "(?:[^/]+/)*"
            continue
        found += _regex_of_name(part) + ("" if number == len(parts) else "/")
    return found


def _regex_of_name(part: str) -> str:
    """Return a regular expression for a pattern without `/`, whose signs match no `/`."""
    words = re.findall(r"\[[!^]?\]?[^\]]*\]|.", part, re.DOTALL)
    found = ""
    for word in words:
        if word == "*":
            found += "[^/]*"
        elif word == "?":
            found += "[^/]"
        elif len(word) > 1:
            negated = word[1] in "!^"
            inner = re.escape(word[1 + negated : -1]).replace(r"\-", "-")
            found += f"(?!/)[{'^' if negated else ''}{inner}]"
        else:
            found += re.escape(word)
    return found
