"""Exit statuses of every program that serves."""

from __future__ import annotations

import logging
import os

from mcpbridge.errors import CommandNotExecutable, CommandNotFound
from mcpbridge.process.linux import forbid_new_privileges
from mcpbridge.process.spec import ChildSpec, check_command

log = logging.getLogger("mcpbridge.app")

EXIT_OK = 0
"""Ended as asked, every call answered."""
EXIT_START = 1
"""Could not start, as when the address is taken; or `--connect` gave up."""
EXIT_CONFIG = 2
"""A wrong option or variable, or no command."""
EXIT_FORCED = 3
"""Ended by a second signal or at the deadline; calls in flight got an error."""
EXIT_INTERNAL = 70
"""A fault of mcpbridge itself; please report it with the log."""
EXIT_NOT_EXECUTABLE = 126
"""The command cannot be executed."""
EXIT_NOT_FOUND = 127
"""The command was not found."""


def checked(spec: ChildSpec) -> int:
    """`EXIT_OK` for a command that can be started; else why not, which is logged then.

    Where it is to be confined this process is from here on: see `forbid_new_privileges`.
    """
    if spec.confined and not forbid_new_privileges():
        problem = "--no-new-privileges: this system cannot do that"
        log.error("serve.failed", extra={"problem": problem})
        return EXIT_START
    if spec.user is not None and not _is_root():
        problem = "--child-user: only root may start the server as another user"
        log.error("serve.failed", extra={"problem": problem})
        return EXIT_CONFIG
    try:
        check_command(spec)
    except CommandNotFound as error:
        log.error("serve.failed", extra={"problem": str(error)})
        return EXIT_NOT_FOUND
    except CommandNotExecutable as error:
        log.error("serve.failed", extra={"problem": str(error)})
        return EXIT_NOT_EXECUTABLE
    return EXIT_OK


def warn_of_root(spec: ChildSpec) -> None:
    """Say once that the server runs as root, if it will.

    It is not refused: many an image has no other user, and in a rootless engine root is nobody.
    """
    if spec.user is None and _is_root():
        problem = "the server runs as root; give --child-user, or run mcpbridge as another user"
        log.warning("child.as_root", extra={"problem": problem})


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
