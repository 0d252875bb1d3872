"""Fits the settings to the system's limits, which are raised if possible.

Open files and the stack are checked once, before anything starts, so that the operator learns of a
problem at the start and not from the thousandth client. The number of server processes that fit
into memory is known when the first of them runs, and changes as they grow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

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
"""The interpreter's C stack; with less it may crash by a signal in the middle of a call."""


def fitted(config: Config) -> Config | str:
    """Return the configuration with possible numbers of connections and processes, or the problem.

    Logs every number that is lower than requested.
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
            f"the limit on open files is {limit} but at least {least_needed(BAND)} are needed:"
            " raise it (ulimit -n, LimitNOFILE=, --ulimit nofile=)"
        )
    # The operator has not asked for the number that memory may have room for, so no warning.
    if shared.children < (settings.child_pool.max_children or UNMEASURED):
        extra = {
            "open_files": limit,
            "max_children": shared.children,
            "max_connections": shared.connections,
            "raise": "ulimit -n",
        }
        log.warning("serve.limits_lowered", extra=extra)
    given = settings.child_pool.max_children is not None
    child_pool = msgspec.structs.replace(
        settings.child_pool,
        max_children=shared.children if given else None,
        most_children=shared.children,
    )
    # A client's connection to a replica may need one to another, which has then one more.
    most = shared.connections // 3 if config.peer_bind is not None else shared.connections
    connections = msgspec.structs.replace(settings.connections, max_connections=most)
    fitting = msgspec.structs.replace(settings, child_pool=child_pool, connections=connections)
    return msgspec.structs.replace(config, settings=fitting)


def _stack_problem() -> str | None:
    """Raise the limit on the stack if it is too low; return the problem if that fails, or None."""
    try:
        import resource
    except ImportError:  # the stack of a program for Windows stands in its file
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft == resource.RLIM_INFINITY or soft >= _LEAST_STACK_BYTES:
        return None
    needed = f"{_LEAST_STACK_BYTES >> 10} KiB"
    if hard != resource.RLIM_INFINITY and hard < _LEAST_STACK_BYTES:
        return (
            f"the limit on the stack is {soft >> 10} KiB but {needed} are needed:"
            " raise it (ulimit -s, LimitSTACK=)"
        )
    resource.setrlimit(resource.RLIMIT_STACK, (_LEAST_STACK_BYTES, hard))
    return None


_MEASURE_EVERY_S = 30.0


class PoolSizer:
    """A task that limits the number of server processes to what fits into memory."""

    def __init__(
        self,
        child_pool: ChildPool,
        most: int,
        pools: Callable[[], int] = lambda: 1,
        threads: anyio.CapacityLimiter | None = None,
    ) -> None:
        """Read the memory limit.

        Args:
            child_pool: The pool to resize.
            most: Number that the limit on open files allows.
            pools: Returns how many pools share the memory.
            threads: Limits how many threads measure at once; None: anyio's own limit.
        """
        self._pools = pools
        self._threads = threads
        self._child_pool = child_pool
        self._most = most
        self._limit_bytes = memory_limit()
        self._logged = False

    async def run(self) -> None:
        """Measure when the first process is ready, and then periodically."""
        if self._limit_bytes is None:
            return
        # Before that there is no process whose size could be measured.
        await self._child_pool.was_ready.wait()
        while True:
            await self._measure(self._limit_bytes)
            await anyio.sleep(_MEASURE_EVERY_S)

    async def _measure(self, limit_bytes: int) -> None:
        pids = [lease.child.pid for lease in self._child_pool.leases if lease.profile is not None]
        found = await to_thread.run_sync(
            footprints, [pid for pid in pids if pid], limiter=self._threads
        )
        if not found:
            return
        child_bytes = max(footprint.bytes for footprint in found.values())
        bridge_bytes = await to_thread.run_sync(own_footprint, limiter=self._threads)
        pools = max(1, self._pools())
        share, own_share = limit_bytes // pools, bridge_bytes // pools
        fitting = children_that_fit(share, own_share, child_bytes, self._most)
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
