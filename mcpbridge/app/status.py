"""Exit statuses of every program that serves."""

from __future__ import annotations

import logging

from mcpbridge.errors import CommandNotExecutable, CommandNotFound
from mcpbridge.process.spec import ChildSpec, check_command

log = logging.getLogger("mcpbridge.app")

EXIT_OK = 0
EXIT_START = 1
EXIT_CONFIG = 2
EXIT_FORCED = 3
EXIT_INTERNAL = 70
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


def checked(spec: ChildSpec) -> int:
    """`EXIT_OK` for a command that can be started; else why not, which is logged then."""
    try:
        check_command(spec)
    except CommandNotFound as error:
        log.error("serve.failed", extra={"problem": str(error)})
        return EXIT_NOT_FOUND
    except CommandNotExecutable as error:
        log.error("serve.failed", extra={"problem": str(error)})
        return EXIT_NOT_EXECUTABLE
    return EXIT_OK
