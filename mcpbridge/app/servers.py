"""Assembles a process with several servers from the entries of their file; starts nothing."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import anyio
import msgspec
from anyio import to_thread
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from mcpbridge.app.build import (
    Additions,
    CallerAccess,
    Served,
    access_of,
    admin_app,
    budget_of,
    child_makers,
    host_rules,
    serving,
    tracer_of,
    trusted_proxies,
)
from mcpbridge.app.lifecycle import announce_ready
from mcpbridge.app.listening import Endpoints
from mcpbridge.app.resource_limits import PoolSizer
from mcpbridge.app.server_routes import (
    SERVERS_PATH,
    FleetPosts,
    ServerList,
    ServerPaths,
    ServerRoutes,
    address_of,
    below_of,
)
from mcpbridge.bridge.bridge import Bridge
from mcpbridge.bridge.budget import Budget
from mcpbridge.bridge.tenant import ChildMakers
from mcpbridge.config.model import Config, Settings
from mcpbridge.config.remote_server import RemoteServer
from mcpbridge.config.servers_file import FailedEntry, ServerEntry
from mcpbridge.errors import CommandNotExecutable, CommandNotFound
from mcpbridge.fleet.adoption import ChildSwitch, ServedEntry
from mcpbridge.fleet.directory import Directory, Unusable
from mcpbridge.fleet.member import DrainTimes, Member, Task
from mcpbridge.fleet.start_on_demand import IdleStop
from mcpbridge.http.app import (
    AccessCheck,
    HttpApp,
    PostHandling,
    admin_routes,
    login_routes,
    mcp_routes,
)
from mcpbridge.http.body import BodyLimits
from mcpbridge.http.health import Probes, Render
from mcpbridge.http.refusals import Refusals, Refused
from mcpbridge.http.server.fast_path import FastPath
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.spec import check_command
from mcpbridge.rules.mcp.era_probe import ChildEra
from mcpbridge.rules.mcp.methods import KNOWN_REQUESTS
from mcpbridge.rules.supervision.shutdown_times import times_within
from mcpbridge.runtime.exit_status import cause_of_failure
from mcpbridge.telemetry.metrics import Meters
from mcpbridge.telemetry.tracer import Tracer

log = logging.getLogger("mcpbridge.app")

_FEWEST = 2
"""Processes of a server, if the limit on open files leaves each server less."""

_RETRY_S = 2.0
"""Longest wait between two attempts to reach a server elsewhere."""

Servers = Directory[ServerEntry, ServerPaths]


class ServerCompanion(Protocol):
    """A part of another program that serves: it runs beside one server of a file."""

    async def run(self) -> None:
        """Work until cancelled, which is when the server has ended."""

    def remark(self) -> str:
        """Return what is wrong though the server serves, as one line; empty if nothing is."""


class FleetCompanion(Protocol):
    """A part of another program that serves the servers of a file."""

    refused: Refused | None
    """Takes each request that is refused; None: nothing does."""

    def additions(self, entry: ServerEntry) -> Additions:
        """Return what it adds to the bridge of a server."""

    def routes(self, servers: Servers) -> Sequence[BaseRoute]:
        """Return further routes of the endpoint, which is that of these servers."""

    def started(self, url: Callable[[str], str]) -> None:
        """Take note that clients can connect; `url` returns the URL of a path."""

    def text_form(self, *, colored: bool) -> logging.Formatter:
        """Return the formatter of logs as text: see `app.lifecycle.Companion`."""

    def beside(self, entry: ServerEntry, bridge: Bridge, url: str) -> ServerCompanion:
        """Return what runs beside a server, whose clients connect to `url`."""


class Fleet(msgspec.Struct, frozen=True):
    """The parts of a process with several servers that `app.servers_lifecycle` runs."""

    config: Config
    directory: Servers
    endpoints: Endpoints
    access: CallerAccess
    meters: Meters
    budget: Budget
    process_tree: ProcessTree
    tracer: Tracer | None


def fleet_of(
    config: Config,
    process_tree: ProcessTree,
    url: Callable[[str], str],
    companion: FleetCompanion | None = None,
) -> Fleet:
    """Assemble the process; its directory is empty.

    Args:
        config: The configuration of the process, whose settings each entry may override.
        process_tree: Gets the processes of all servers.
        url: Returns the URL of a path for a client on this machine.
        companion: Gives each server what runs beside it; None: nothing does.
    """
    meters, tracer, budget = Meters(KNOWN_REQUESTS), tracer_of(config), budget_of(config)
    callers = access_of(config)
    members = _Members(config, process_tree, tracer, callers, budget, url, companion)
    times = DrainTimes(times_within(config.settings.shutdown.grace_s))
    directory: Servers = Directory(members.make, times)
    members.join(directory)
    meters.watch("ready", lambda: float(directory.ready))
    return Fleet(
        config,
        directory,
        _endpoints(config, directory, members, callers, meters, companion),
        callers,
        meters,
        budget,
        process_tree,
        tracer,
    )


def checked_entry(entry: ServerEntry | FailedEntry) -> ServerEntry | Unusable:
    """Return the entry if it can be served; log why not if it cannot."""
    if isinstance(entry, ServerEntry):
        problem = _problem_of(entry)
        if problem is None:
            return entry
        entry = problem
    extra = {
        "server_name": entry.name,
        "field": entry.field,
        "problem": entry.problem,
        "remedy": entry.remedy,
    }
    log.error("server.unusable", extra=extra)
    remedy = f"; {entry.remedy}" if entry.remedy else ""
    return Unusable(f"{entry.field}: {entry.problem}{remedy}")


def _problem_of(entry: ServerEntry) -> FailedEntry | None:
    if isinstance(entry.source, RemoteServer):
        return _problem_of_remote(entry.name, entry.source)
    try:
        check_command(entry.source)
    except (CommandNotFound, CommandNotExecutable) as error:
        found_file = isinstance(error, CommandNotExecutable)
        # Imported for a failure only, since it compiles many patterns.
        from mcpbridge.rules.supervision.start_hints import of_command

        hints = [str(each) for each in of_command(entry.source.argv, found_file=found_file)]
        remedy = hints[0] if hints else "install it, or give its whole path"
        return FailedEntry(entry.name, "command", str(error), remedy)
    return None


def _problem_of_remote(name: str, server: RemoteServer) -> FailedEntry | None:
    from mcpbridge.client.http_client import http_url  # for servers elsewhere alone

    try:
        http_url(server.url)
    except ValueError as error:
        return FailedEntry(name, "url", str(error), "write https://HOST/mcp")
    return None


class _Members:
    """A maker of members from entries, and the meters of those that it made."""

    def __init__(
        self,
        config: Config,
        process_tree: ProcessTree,
        tracer: Tracer | None,
        callers: CallerAccess,
        budget: Budget,
        url: Callable[[str], str],
        companion: FleetCompanion | None,
    ) -> None:
        self._companion = companion
        self._config = config
        self._because = f"its entry in {Path(config.settings.servers.config or '').name}"
        self._process_tree = process_tree
        self._tracer = tracer
        self._callers = callers
        self._budget = budget
        self._url = url
        self._directory: Servers | None = None
        self._threads = anyio.CapacityLimiter(1)
        """Ten servers start at once, and a thread takes a tenth of a MiB for good."""
        self._meters: dict[Member[ServerPaths], Meters] = {}

    def join(self, directory: Servers) -> None:
        """Share limits of the process with the other servers of this directory."""
        self._directory = directory

    def make(self, entry: ServerEntry) -> Member[ServerPaths]:
        """Return the member of an entry that can be served."""
        config, meters = self.config_of(entry), Meters(KNOWN_REQUESTS)
        access, below = self._callers.control, below_of(entry.name)
        budget = self._budget if _shares_memory(config, self._config) else None
        switch = ChildSwitch()
        additions = msgspec.structs.replace(self.additions(entry), made_by=switch.through)
        parts = (config, self._process_tree, meters, self._tracer, access, below, budget)
        served = serving(*parts, additions)
        bridge, answers = served.bridge, config.settings.answers
        window_s = 0.0 if self._tracer is not None else answers.json_window_s
        address = address_of(entry.name)
        paths = ServerPaths(
            entry.name,
            mcp_routes(served.streamable, served.sse, [address], access),
            PostHandling(served.streamable, access),
            Probes(bridge.readiness),
            window_s,
        )
        adopter = _EntryParts(self, self._process_tree, bridge)
        in_force = ServedEntry(entry, adopter, bridge, switch, self._because)
        ready = functools.partial(announce_ready, bridge, meters, self._url(address))
        tasks: list[Task] = [*self._tasks_of(entry, config, served, in_force), ready, in_force.run]

        def why() -> str:
            return last_failure(in_force.entry.source, bridge)

        held = (tasks, why, in_force.remark, in_force.adopting)
        member = Member(entry.name, bridge, paths, *held)
        self._meters = {each: found for each, found in self._meters.items() if not each.leaving}
        self._meters[member] = meters
        return member

    def additions(self, entry: ServerEntry) -> Additions:
        """Return what the companion adds to the bridge of a server."""
        return self._companion.additions(entry) if self._companion is not None else Additions()

    def beside(self, entry: ServerEntry, bridge: Bridge) -> ServerCompanion | None:
        """Return what the companion runs beside a server."""
        if self._companion is None:
            return None
        return self._companion.beside(entry, bridge, self._url(address_of(entry.name)))

    def meters(self) -> Iterator[tuple[str, Meters]]:
        """Yield the meters of the servers that take calls."""
        assert self._directory is not None
        for member in self._directory.members:
            if member in self._meters:
                yield member.name, self._meters[member]

    def _tasks_of(
        self,
        entry: ServerEntry,
        config: Config,
        served: Served,
        in_force: ServedEntry[ServerEntry],
    ) -> list[Task]:
        tasks: list[Task] = [
            served.keepalive.run,
            functools.partial(_hear_giving_up, in_force, served),
        ]
        if config.settings.child_pool.max_children is None:
            most = config.settings.child_pool.most_children
            tasks.append(PoolSizer(served.child_pool, most, self._count, self._threads).run)
        if entry.idle_stop_s is not None:
            tasks.append(IdleStop(served.bridge, entry.idle_stop_s).run)
        return tasks

    def _count(self) -> int:
        return len(self._directory) if self._directory is not None else 1

    def config_of(self, entry: ServerEntry) -> Config:
        """Return the configuration of a server."""
        pool = entry.settings.child_pool
        most = max(_FEWEST, pool.most_children // max(1, self._count()))
        roots = tuple(each if "://" in each else Path(each).as_uri() for each in entry.roots)
        settings = msgspec.structs.replace(
            entry.settings,
            child_pool=msgspec.structs.replace(pool, most_children=most, roots=roots),
        )
        if isinstance(entry.source, RemoteServer):
            settings = _of_remote(settings, entry.source)
        keyring = self._config.keyring
        if keyring is not None:
            # What one server's client keeps for a parked call is of no use at another server.
            keyring = keyring.of_server(entry.name)
        return msgspec.structs.replace(
            self._config,
            settings=settings,
            source=entry.source,
            keyring=keyring,
            lazy=entry.lazy,
        )


class _EntryParts:
    """What is made from the entries of one server: see `EntryParts`."""

    def __init__(self, members: _Members, process_tree: ProcessTree, bridge: Bridge) -> None:
        self._members = members
        self._process_tree = process_tree
        self._bridge = bridge

    def keeps_sessions(self, before: ServerEntry, after: ServerEntry) -> bool:
        """Return whether sessions can stay: see `ServerEntry.keeps_sessions`."""
        return before.keeps_sessions(after)

    def makers(self, before: ServerEntry, after: ServerEntry) -> ChildMakers | None:
        """Return what makes children of the changed entry; None if they would be the same."""
        # The makers also decorate the channels, and what records must know the secrets.
        if (before.source, before.secrets) == (after.source, after.secrets):
            return None
        config, bridge = self._members.config_of(after), self._bridge
        decorate = self._members.additions(after).decorate
        held = (bridge.budget.children, decorate, bridge.readiness)
        return child_makers(config, self._process_tree, *held)

    def beside(self, entry: ServerEntry) -> ServerCompanion | None:
        """Return what the companion runs beside the server."""
        return self._members.beside(entry, self._bridge)


def _of_remote(settings: Settings, server: RemoteServer) -> Settings:
    """Return the settings of a server that is reached by HTTP.

    It costs no process, so that it is tried again and again, and soon: it may be back any moment.
    """
    restart = msgspec.structs.replace(settings.restart, give_up_after=0, max_delay_s=_RETRY_S)
    # A server of 2024-11-05 knows no other revision that it could be asked for.
    era = ChildEra.LEGACY if server.sse else settings.eras.child
    eras = msgspec.structs.replace(settings.eras, child=era)
    return msgspec.structs.replace(settings, restart=restart, eras=eras)


def _shares_memory(config: Config, of_process: Config) -> bool:
    own = config.settings.loads.max_memory_bytes
    return own == of_process.settings.loads.max_memory_bytes


def _endpoints(
    config: Config,
    directory: Servers,
    members: _Members,
    callers: CallerAccess,
    meters: Meters,
    companion: FleetCompanion | None,
) -> Endpoints:
    settings, access = config.settings, callers.control
    probes, rules = Probes(directory), host_rules(config, config.bind)
    refused = companion.refused if companion is not None else None
    render, refusals = _rendering(meters, members), Refusals(meters, refused=refused)
    listen = settings.listen
    servers = ServerRoutes(directory, access, listen.mcp_paths, listen.sse_below)
    asking = [Middleware(AccessCheck, access)] if access.asks else []
    routes: list[BaseRoute] = [
        Route(SERVERS_PATH, ServerList(directory).answer, middleware=asking),
        servers,
        *admin_routes(probes, render if config.admin_bind is None else None, access),
        *login_routes(access),
        *(companion.routes(directory) if companion is not None else ()),
    ]
    endpoint = HttpApp(
        routes,
        rules,
        root_path=settings.proxy.root_path,
        meter=meters.http,
        headers=[pair.header for pair in settings.auth.header_env],
        trusted=trusted_proxies(config),
        refusals=refusals,
        methods=servers.methods,
    )
    limits = BodyLimits(settings.guard.max_request_bytes, settings.pipes.max_json_depth)
    # A traced call runs in a separate task, whose records carry its trace.
    window_s = settings.answers.json_window_s if config.otel is None else 0.0
    posts = FleetPosts(directory, window_s)
    fast_path = FastPath(posts, limits, rules, window_s, meters.http)
    admin = admin_app(config, admin_routes(probes, render), refusals)
    return Endpoints(endpoint, fast_path, admin, lambda: directory.ending, meters, refusals)


def _rendering(meters: Meters, members: _Members) -> Render:
    """Return what renders the metrics; it is imported in a thread, at the first scrape."""
    made: list[Render] = []

    def make() -> Render:
        from mcpbridge.telemetry.servers import FleetExport

        return FleetExport(meters, members.meters).render

    async def render(accept: str | None) -> tuple[bytes, str]:
        if not made:
            made.append(await to_thread.run_sync(make))
        return await made[0](accept)

    return render


async def _hear_giving_up(in_force: ServedEntry[ServerEntry], served: Served) -> None:
    """Log why a server has been given up; the process and its other servers go on."""
    await served.bridge.eras.gave_up.wait()
    log.error("server.gave_up", extra=_cause(in_force.entry.source, served.bridge))


def last_failure(source: object, bridge: Bridge) -> str:
    """Return the cause of a server's last failure as one line; empty if it has none.

    Args:
        source: What is started or reached.
        bridge: The server's bridge.
    """
    eras = bridge.eras
    if eras.last_report is None and eras.start_failure is None:
        return ""
    cause = _cause(source, bridge)
    words = cause.get("last_words") or ()
    hints = cause.get("hints") or ()
    how = f" ({cause['how']})" if "how" in cause else ""
    assert isinstance(words, list | tuple)
    assert isinstance(hints, list | tuple)
    last = f": {words[-1].strip()}" if words else ""
    remedy = f"; {hints[0]}" if hints else ""
    return f"{cause['problem']}{how}{last}{remedy}"


def _cause(source: object, bridge: Bridge) -> dict[str, object]:
    eras = bridge.eras
    return cause_of_failure(source, eras.last_report, eras.start_failure)
