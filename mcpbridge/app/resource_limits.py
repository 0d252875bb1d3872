"""What the system allows this process: raised where it may be, and the settings made to fit.

Better said at the start than found out by the thousandth client.
"""

from __future__ import annotations

import dataclasses
import logging
import sys

import msgspec

from mcpbridge.config.model import Config
from mcpbridge.http.server.limits import BAND
from mcpbridge.rules.supervision.fd_budget import least_needed, share
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
    asked = settings.child_pool.max_children
    shared = share(limit, BAND, asked, settings.connections.max_connections)
    if shared is None:
        return (
            f"the limit on open files is {limit} and {least_needed(BAND)} are needed at least:"
            " raise it (ulimit -n, LimitNOFILE=, --ulimit nofile=)"
        )
    if shared.children < asked:
        extra = {
            "open_files": limit,
            "max_children": shared.children,
            "max_connections": shared.connections,
            "raise": "ulimit -n",
        }
        log.warning("serve.limits_lowered", extra=extra)
    child_pool = dataclasses.replace(settings.child_pool, max_children=shared.children)
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
