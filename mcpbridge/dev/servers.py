"""`mcpbridge dev` without a command: the servers of a file, each reloaded when its files change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread
from starlette.routing import BaseRoute

from mcpbridge.app.build import Additions
from mcpbridge.app.server_routes import address_of
from mcpbridge.app.servers import ServerCompanion, Servers
from mcpbridge.app.servers_lifecycle import run_servers
from mcpbridge.bridge.bridge import Bridge
from mcpbridge.config.model import Config
from mcpbridge.config.servers_file import ServerEntry, folder_of
from mcpbridge.dev.decoration import Decoration, Record, decorating
from mcpbridge.dev.program import announce, quieten, reload_when_saved, remark_of
from mcpbridge.dev.terminal_log import TerminalFormatter
from mcpbridge.dev.watch import (
    FileWatcher,
    require_watchfiles,
    script_in,
    watched_as_asked,
    watched_by_default,
)
from mcpbridge.errors import ConfigError
from mcpbridge.http.refusals import Refused
from mcpbridge.process.spec import ChildSpec, shown
from mcpbridge.rules.injected_faults import FaultRule

if TYPE_CHECKING:
    from mcpbridge.dev.page.page import Page
    from mcpbridge.dev.page.servers import ShownServer

log = logging.getLogger("mcpbridge.dev")


def run_file(
    config: Config,
    *,
    watches: bool = True,
    record: Record | None = None,
    page: Page | None = None,
    faults: Iterable[FaultRule] = (),
    tails: bool = False,
) -> int:
    """Serve the servers of a file until told to end, and reload each when its files change.

    Args:
        config: The configuration of the process, which names the file.
        watches: Whether files are watched at all.
        record: Where what passes to and from all servers is recorded; None: it is not.
        page: Shows what passes; None: there is no page.
        faults: The rules of faults on purpose.
        tails: Whether what passes is printed to stdout.

    Returns:
        The exit status: see `app.servers_lifecycle.run_servers`.

    Raises:
        ConfigError: The file cannot be read, the recording cannot be written, or the library that
            watches is not installed.
    """
    quieten()
    if watches:
        require_watchfiles()
    assert config.settings.servers.config is not None
    path = Path(config.settings.servers.config)
    written = record.files if record is not None else ()
    command = ("mcpbridge", "dev", "--config", str(path))
    with decorating(record, faults, command, page, tails=tails) as decoration:
        made = (folder_of(path), decoration, written)
        return run_servers(config, DevelopedServers(*made, watches=watches, page=page))


class OtherFiles:
    """The scripts of other servers alone, as many servers share a folder, and recordings."""

    def __init__(
        self, own: Path | None, scripts: Mapping[DevelopedServer, Path], written: Sequence[Path]
    ) -> None:
        """Make it.

        Args:
            own: The script of the server itself; None: it has none.
            scripts: The scripts of all servers that run.
            written: The files of the recording.
        """
        self._own = own
        self._scripts = scripts
        self._written = written

    def __contains__(self, path: object) -> bool:
        return path in self._written or (path != self._own and path in self._scripts.values())


class DevelopedServers:
    """A companion of the servers of a file: see `FleetCompanion`."""

    def __init__(
        self,
        folder: Path,
        decoration: Decoration,
        written: Sequence[Path],
        *,
        watches: bool,
        page: Page | None = None,
    ) -> None:
        """Make a companion.

        Args:
            folder: The folder that the patterns of entries are relative to.
            decoration: Decorates the channels of the servers.
            written: The files of the recording, which are not watched.
            watches: Whether files are watched at all.
            page: Shows what passes; None: there is no page.
        """
        self.refused: Refused | None = page.events.refused if page is not None else None
        self._page = page
        self._decoration = decoration
        self._written = written
        self._folder = folder if watches else None
        self._commands: dict[str, Sequence[str]] = {}
        """The command of each server, by name."""
        self._scripts: dict[DevelopedServer, Path] = {}

    def additions(self, entry: ServerEntry) -> Additions:
        """Return what it adds to the bridge of a server: see `FleetCompanion`."""
        spec = entry.source if isinstance(entry.source, ChildSpec) else None
        # One that is not watched, and has no client yet, is started again by the clock alone.
        waits = spec is not None and self._folder is not None and _watches(entry, spec)
        named = (entry.name, spec, (), entry.secrets)
        return self._decoration.additions(*named, waits_for_change=waits)

    def routes(self, servers: Servers) -> Sequence[BaseRoute]:
        """Return the routes of the page: see `FleetCompanion`."""
        if self._page is None:
            return ()

        def over() -> bool:
            running = servers.running_members()
            return servers.ending and all(each.bridge.drain.cut_off for each in running)

        return self._page.routes(lambda: _shown(servers), over)

    def started(self, url: Callable[[str], str]) -> None:
        """Log the address of the page: see `FleetCompanion`."""
        if self._page is not None:
            log.info("dev.page_served", extra={"page": self._page.announced(url("/"))})

    def text_form(self, *, colored: bool) -> TerminalFormatter:
        """Return the form of the log as text: see `FleetCompanion`."""
        return TerminalFormatter((), colored=colored, commands=self._commands)

    def beside(self, entry: ServerEntry, bridge: Bridge, url: str) -> ServerCompanion:
        """Return what reloads one server: see `FleetCompanion`."""
        if not isinstance(entry.source, ChildSpec):
            return RemoteBeside(entry.name, entry.source.url, url)
        self._commands[entry.name] = entry.source.argv
        files = (self._folder, self._scripts, self._written)
        return DevelopedServer(entry, entry.source, bridge, url, *files)


class RemoteBeside:
    """A companion of a server elsewhere, of which no file can be watched."""

    def __init__(self, name: str, remote_url: str, url: str) -> None:
        self._name = name
        self._remote_url = remote_url
        self._url = url

    async def run(self) -> None:
        """Log its address: see `ServerCompanion`."""
        announce(self._remote_url, self._name, self._url, None)

    def remark(self) -> str:
        """Return an empty text: see `ServerCompanion`."""
        return ""


def _shown(servers: Servers) -> Sequence[ShownServer]:
    """Return the servers as the page shows them."""
    from mcpbridge.dev.page.servers import ShownServer

    found: list[ShownServer] = []
    for name in servers.names:
        status, member = servers.status(name), servers.find(name)
        assert status is not None
        bridge = member.bridge if member is not None else None
        found.append(ShownServer(name, address_of(name), status, bridge, name))
    return found


def _watches(entry: ServerEntry, spec: ChildSpec) -> bool:
    """Return whether files of a server are watched, if its patterns name any."""
    folder = Path(spec.cwd or ".").resolve()
    found = entry.watch or watched_by_default(spec.argv, folder, any_language=False)
    return bool(found)


class DevelopedServer:
    """A companion of one server of a file: see `ServerCompanion`."""

    def __init__(
        self,
        entry: ServerEntry,
        spec: ChildSpec,
        bridge: Bridge,
        url: str,
        folder: Path | None,
        scripts: dict[DevelopedServer, Path],
        written: Sequence[Path],
    ) -> None:
        """Make a companion.

        Args:
            entry: The server's entry.
            spec: Its command.
            bridge: Its bridge.
            url: Where clients connect.
            folder: The folder that its patterns are relative to; None: nothing is watched.
            scripts: The scripts of all servers that run.
            written: The files of the recording, which are not watched.
        """
        self._entry = entry
        self._written = written
        self._spec = spec
        self._bridge = bridge
        self._url = url
        self._folder = folder
        self._scripts = scripts
        self._unwatched = ""
        """Why its files are not watched, as one line."""

    async def run(self) -> None:
        """Reload the server after changes, until cancelled: see `ServerCompanion`."""
        watcher: FileWatcher | None = None
        try:
            # In a thread: a slow disk holds no call up.
            watcher = await to_thread.run_sync(self._watcher)
            if watcher is not None:
                await reload_when_saved(self._bridge, watcher, lambda: self._announce(watcher))
        except ConfigError as error:
            # The server is served all the same.
            self._unwatched = self._log(error)
        finally:
            self._scripts.pop(self, None)
        if watcher is None:
            self._announce(None)

    def remark(self) -> str:
        """Return why the program as it is now is not served, or not watched; else empty."""
        return remark_of(self._bridge) or self._unwatched

    def _watcher(self) -> FileWatcher | None:
        """Return what watches the server's files; None: nothing is watched.

        Raises:
            ConfigError: A pattern of the entry names no file and no folder.
        """
        if self._folder is None:
            return None
        argv, cwd = self._spec.argv, Path(self._spec.cwd or ".").resolve()
        script = script_in(argv, cwd)
        if script is not None:
            self._scripts[self] = script
        if self._entry.watch:
            watched = watched_as_asked(self._entry.watch, argv, self._folder)
            return FileWatcher(watched, self._written)
        # Of a program of the system no file in the project is certain to be a part.
        found = watched_by_default(argv, cwd, any_language=False)
        others = OtherFiles(script, self._scripts, self._written)
        return FileWatcher([found], others) if found is not None else None

    def _announce(self, watcher: FileWatcher | None) -> None:
        announce(shown(self._spec.argv), self._entry.name, self._url, watcher)

    def _log(self, error: ConfigError) -> str:
        if error.origin:
            problem, remedy = f"{error.origin}: {error.problem}", error.remedy
        else:
            problem, remedy = error.problem, "name the files of this server alone"
        extra = {"field": "dev.watch", "problem": problem, "remedy": remedy}
        log.error("watch.failed", extra=extra)
        return f"not watched: dev.watch: {problem}; {remedy}"
