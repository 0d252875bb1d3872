"""What the system allows this process: raised where it may be, and the settings made to fit.

Open files and the stack are looked at once, before anything starts. How many processes of the
server fit into the memory shows when the first of them runs, and changes as they grow.

Better said at the start than found out by the thousandth client.
"""

from __future__ import annotations

import dataclasses
import logging
import sys

import anyio
import msgspec
from anyio import to_thread

from mcpbridge.bridge.children.child_pool import ChildPool
from mcpbridge.config.model import Config
from mcpbridge.http.server.limits import BAND
from mcpbridge.process.memory import footprints, memory_limit, own_footprint
from mcpbridge.rules.supervision.fd_budget import least_needed, share
from mcpbridge.rules.supervision.memory_budget import MOST, UNMEASURED, children_that_fit
from mcpbridge.runtime.open_files import raise_open_files

log = logging.getLogger("mcpbridge.app")

_LEAST_STACK_BYTES = 512 << 10
"""The interpreter's own C stack; with less it may end by a signal in the middle of a call."""


def fitted(config: Config) -> Config | str:
    """The configuration with as many connections and processes as can be had; or why there is none.

    Logs what had to be less than was asked for.
    """
    limit = raise_open_files()
    problem = _stack_problem()
    if problem is not None:
        return problem
    settings = config.settings
    asked = settings.child_pool.max_children or MOST
    shared = share(limit, BAND, asked, settings.connections.max_connections)
    if shared is None:
        return (
            f"the limit on open files is {limit} and {least_needed(BAND)} are needed at least:"
            " raise it (ulimit -n, LimitNOFILE=, --ulimit nofile=)"
        )
    # Fewer than the memory may have room for is nothing that anybody asked for.
    if shared.children < (settings.child_pool.max_children or UNMEASURED):
        extra = {
            "open_files": limit,
            "max_children": shared.children,
            "max_connections": shared.connections,
            "raise": "ulimit -n",
        }
        log.warning("serve.limits_lowered", extra=extra)
    given = settings.child_pool.max_children is not None
    child_pool = dataclasses.replace(
        settings.child_pool,
        max_children=shared.children if given else None,
        most_children=shared.children,
    )
    connections = dataclasses.replace(settings.connections, max_connections=shared.connections)
    fitting = msgspec.structs.replace(settings, child_pool=child_pool, connections=connections)
    return msgspec.structs.replace(config, settings=fitting)


def _stack_problem() -> str | None:
    """Why there is too little stack, if there is; raised where it may be."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft == resource.RLIM_INFINITY or soft >= _LEAST_STACK_BYTES:
        return None
    needed = f"{_LEAST_STACK_BYTES >> 10} KiB"
    if hard != resource.RLIM_INFINITY and hard < _LEAST_STACK_BYTES:
        return (
            f"the limit on the stack is {soft >> 10} KiB and {needed} are needed:"
            " raise it (ulimit -s, LimitSTACK=)"
        )
    resource.setrlimit(resource.RLIMIT_STACK, (_LEAST_STACK_BYTES, hard))
    return None


_MEASURE_EVERY_S = 30.0


class PoolSizer:
    """Lets as many server processes run as fit into the memory."""

    def __init__(self, child_pool: ChildPool, most: int) -> None:
        """Make it.

        Args:
            child_pool: Is told how many processes may run.
            most: What open files allow.
        """
        self._child_pool = child_pool
        self._most = most
        self._limit_bytes = memory_limit()
        self._logged = False

    async def run(self) -> None:
        """Measure when the first process is ready, and now and then from then on."""
        if self._limit_bytes is None:
            return
        await self._child_pool.was_ready.wait()
        while True:
            await self._measure(self._limit_bytes)
            await anyio.sleep(_MEASURE_EVERY_S)

    async def _measure(self, limit_bytes: int) -> None:
        pids = [lease.child.pid for lease in self._child_pool.leases if lease.profile is not None]
        found = await to_thread.run_sync(footprints, [pid for pid in pids if pid])
        if not found:
            return
        child_bytes = max(footprint.bytes for footprint in found.values())
        bridge_bytes = await to_thread.run_sync(own_footprint)
        fitting = children_that_fit(limit_bytes, bridge_bytes, child_bytes, self._most)
        self._child_pool.resize(fitting)
        extra = {
            "max_children": fitting,
            "memory_limit": limit_bytes,
            "bridge": bridge_bytes,
            "per_process": child_bytes,
        }
        if not self._logged:
            self._logged = True
            log.info("child_pool.sized", extra=extra)
