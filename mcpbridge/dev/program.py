"""`mcpbridge dev -- COMMAND`: one server, which is reloaded when its files change."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from starlette.routing import BaseRoute

from mcpbridge.app.build import Additions, App
from mcpbridge.app.lifecycle import run as serve
from mcpbridge.bridge.bridge import Bridge
from mcpbridge.config.command import variables_given
from mcpbridge.config.model import Config
from mcpbridge.dev.decoration import Record, decorating
from mcpbridge.dev.terminal_log import TerminalFormatter
from mcpbridge.dev.watch import FileWatcher, Watched, watched_as_asked, watched_by_default
from mcpbridge.errors import ConfigError
from mcpbridge.http.refusals import Refused
from mcpbridge.process.spec import ChildSpec, shown
from mcpbridge.rules.injected_faults import FaultRule
from mcpbridge.rules.supervision.start_hints import program_name

if TYPE_CHECKING:
    from mcpbridge.dev.page.page import Page
    from mcpbridge.dev.page.servers import ShownServer

log = logging.getLogger("mcpbridge.dev")

_NAMED = 3
"""Most changed files that the log names."""


def run(
    config: Config,
    watch: Sequence[str],
    *,
    watches: bool = True,
    record: Record | None = None,
    page: Page | None = None,
    faults: Iterable[FaultRule] = (),
    tails: bool = False,
) -> int:
    """Serve a command until told to end, and reload it when its files change.

    Args:
        config: The configuration.
        watch: The files, folders and patterns of `--watch`; none: the files beside the script.
        watches: Whether files are watched at all.
        record: Where what passes is recorded; None: it is not.
        page: Shows what passes; None: there is no page.
        faults: The rules of faults on purpose.
        tails: Whether what passes is printed to stdout.

    Returns:
        The exit status: see `app.lifecycle.run`.

    Raises:
        ConfigError: There is nothing to watch, or it cannot be watched.
    """
    quieten()
    spec = config.child
    folder = Path(spec.cwd or ".").resolve()
    written = record.files if record is not None else ()
    watcher = FileWatcher(_watched(spec, watch, folder), written) if watches else None
    label = name_of(spec.argv)
    with decorating(record, faults, spec.argv, page, label, tails=tails) as decoration:
        given = variables_given(config.settings.command)
        additions = decoration.additions(label, spec, given, waits_for_change=True)
        return serve(config, Developing(config, watcher, additions, page))


class Developing:
    """A companion of a bridge that reloads its server when files change."""

    def __init__(
        self,
        config: Config,
        watcher: FileWatcher | None,
        additions: Additions,
        page: Page | None = None,
    ) -> None:
        """Make a companion.

        Args:
            config: The configuration, which has the server's command.
            watcher: Reports changes; None: nothing is watched.
            additions: What it adds to the bridge.
            page: Shows what passes; None: there is no page.
        """
        self.additions = additions
        self.refused: Refused | None = page.events.refused if page is not None else None
        self._page = page
        self._config = config
        self._spec = config.child
        self._watcher = watcher

    def routes(self, bridge: Bridge) -> Sequence[BaseRoute]:
        """Return the routes of the page: see `Companion`."""
        if self._page is None:
            return ()
        return self._page.routes(lambda: [self._shown(bridge)], lambda: bridge.drain.cut_off)

    def _shown(self, bridge: Bridge) -> ShownServer:
        """Return the server as the page shows it."""
        # One server needs nothing of several but for its page.
        from mcpbridge.app.servers import last_failure
        from mcpbridge.dev.page.servers import ShownServer
        from mcpbridge.fleet.member import Member

        name, why = (
            name_of(self._spec.argv),
            functools.partial(last_failure, self._config.source, bridge),
        )
        # Never run: it reads the state of a bridge that serves already.
        member = Member(name, bridge, None, (), why, functools.partial(remark_of, bridge))
        path = self._config.settings.listen.path
        return ShownServer(name, path, member.status(), bridge)

    def text_form(self, *, colored: bool) -> TerminalFormatter:
        """Return the form of the log as text: see `Companion`."""
        return TerminalFormatter(self._spec.argv, colored=colored)

    async def run(self, app: App, url: str) -> None:
        """Reload the server after changes, until cancelled: see `Companion`."""

        def started() -> None:
            page = self._page.announced(url) if self._page is not None else None
            announce(shown(self._spec.argv), name_of(self._spec.argv), url, self._watcher, page)

        if self._watcher is None:
            started()
            return
        try:
            await reload_when_saved(app.bridge, self._watcher, started)
        except ConfigError as error:
            # The server is served all the same.
            log.error("watch.failed", extra={"problem": str(error)})


def quieten() -> None:
    """Have the library that watches not log each change, those that do not count included."""
    logging.getLogger("watchfiles").setLevel(logging.WARNING)


async def reload_when_saved(
    bridge: Bridge, watcher: FileWatcher, started: Callable[[], None]
) -> None:
    """Reload a server after each change of its files, until cancelled.

    Args:
        bridge: The server's bridge.
        watcher: Reports the changes.
        started: Called once, when changes are seen from now on or cannot be seen.

    Raises:
        ConfigError: The files cannot be watched.
    """
    reloader = bridge.reloader
    announced = anyio.Event()
    problem: ConfigError | None = None
    async with anyio.create_task_group() as tasks:

        def once() -> None:
            if not announced.is_set():
                announced.set()
                started()

        def changed(names: list[str]) -> None:
            if not bridge.drain.ending:
                tasks.start_soon(reloader.reload, because_of(names))

        try:
            await watcher.run(once, changed)
        except ConfigError as error:
            # Raised after the block, which would raise it in a group.
            problem = error
            once()
    if problem is not None:
        raise problem


def remark_of(bridge: Bridge) -> str:
    """Return why the program as it is now is not served, as one line; empty if it is."""
    last = bridge.reloader.last
    if last is None or last.problem is None:
        return ""
    words = f": {last.last_words[-1].strip()}" if last.last_words else ""
    problem = f"{last.because}: {last.problem}{words}"
    return f"not reloaded: {problem}; the process before serves until the next change"


def announce(
    source: str, name: str, url: str, watcher: FileWatcher | None, page: str | None = None
) -> None:
    """Log what a person pastes next, and what is watched.

    Args:
        source: The server's command, or its own URL.
        name: Its name in a client's configuration.
        url: Where clients connect.
        watcher: Watches its files; None: nothing does.
        page: The address of the page with its token; None: it is announced elsewhere, or there is
            none.
    """
    extra = {
        "command": source,
        "address": url,
        "client": client_entry(name, url),
        **({"page": page} if page is not None else {}),
        "inspector": inspector_command(url),
        "watching": "nothing",
    }
    if watcher is not None:
        extra["watching"] = "; ".join(each.means for each in watcher.watched)
    log.info("dev.started", extra=extra)


def because_of(names: Sequence[str]) -> str:
    """Return changed files as a reason, for people."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def name_of(argv: Sequence[str]) -> str:
    """Return a name for a server's entry in a client's configuration, taken from its command."""
    words = [word for word in argv[1:] if not word.startswith("-")]
    for word in (*words, argv[0]):
        name = re.sub(r"@[\w.^~-]+\Z", "", program_name(word))
        name = re.sub(r"\.\w{1,4}\Z", "", name)
        name = re.sub(r"[^\w-]+", "-", name).strip("-")
        if name and name not in ("run", "exec", "x", "index", "main"):
            return name
    return "my-server"


def client_entry(name: str, url: str) -> str:
    """Return the entry of a server in a client's configuration, as JSON in one line."""
    return json.dumps({"mcpServers": {name: {"type": "http", "url": url}}})


def inspector_command(url: str) -> str:
    """Return the command that opens the MCP Inspector on an endpoint."""
    return f"npx @modelcontextprotocol/inspector --transport http --server-url {url}"


def _watched(spec: ChildSpec, watch: Sequence[str], folder: Path) -> Sequence[Watched]:
    if watch:
        return watched_as_asked(watch, spec.argv, folder)
    found = watched_by_default(spec.argv, folder)
    if found is None:
        problem = f"it is not known which files in {folder} are those of {shown(spec.argv)}"
        remedy = "name them: --watch 'src/**/*.py', or give --no-watch"
        raise ConfigError("--watch", "", problem, remedy)
    return [found]
