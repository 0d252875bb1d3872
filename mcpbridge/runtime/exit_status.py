"""Exit statuses of every program that serves."""

from __future__ import annotations

import logging
import os

from mcpbridge.errors import CommandNotExecutable, CommandNotFound
from mcpbridge.process.linux import forbid_new_privileges
from mcpbridge.process.spec import ChildSpec, check_command, shown
from mcpbridge.process.subprocess_child import ExitReport
from mcpbridge.rules.faults import Exit, Fault

log = logging.getLogger("mcpbridge.app")

EXIT_OK = 0
"""Ended as asked, every call answered."""
EXIT_START = 1
"""Could not start, for example because the address is taken; or `--connect` gave up."""
EXIT_CONFIG = 2
"""An invalid option or variable, or no command."""
EXIT_FORCED = 3
"""Ended by a second signal or at the deadline; calls in flight got an error."""
EXIT_START_TIMEOUT = 4
"""The server kept exceeding `--start-timeout`."""
EXIT_INTERNAL = 70
"""A bug in mcpbridge itself; please report it with the log."""
EXIT_NOT_EXECUTABLE = 126
"""The command cannot be executed."""
EXIT_NOT_FOUND = 127
"""The command was not found."""


def checked(spec: ChildSpec) -> int:
    """Return `EXIT_OK` if the command can be started; otherwise log why not and return its status.

    If the spec is confined, so is this process from now on: see `forbid_new_privileges`.
    """
    if (status := checked_process(spec)) != EXIT_OK:
        return status
    try:
        check_command(spec)
    except (CommandNotFound, CommandNotExecutable) as error:
        found_file = isinstance(error, CommandNotExecutable)
        # Imported for a failure only, since it compiles many patterns.
        from mcpbridge.rules.supervision.start_hints import of_command

        hints = [str(each) for each in of_command(spec.argv, found_file=found_file)]
        log.error("serve.failed", extra={"problem": str(error), "hints": hints})
        return EXIT_NOT_EXECUTABLE if found_file else EXIT_NOT_FOUND
    return EXIT_OK


def checked_process(spec: ChildSpec) -> int:
    """Return `EXIT_OK` if this process may start a child as the spec says, whatever its command.

    As `checked` does it logs why not, and confines this process.
    """
    if spec.confined and not forbid_new_privileges():
        problem = "--no-new-privileges: this system does not support it"
        log.error("serve.failed", extra={"problem": problem})
        return EXIT_START
    if spec.user is not None and not _is_root():
        problem = "--child-user: only root may start the server as another user"
        log.error("serve.failed", extra={"problem": problem})
        return EXIT_CONFIG
    return EXIT_OK


def status_of_failure(report: ExitReport | None, start_failure: Fault | None) -> int:
    """Return the exit status of a bridge that gave up on its server; never 0.

    Args:
        report: The end of the server's last process.
        start_failure: The fault of its last start; None if it had been ready.
    """
    if start_failure is not None and start_failure.reason == "start_timeout":
        return EXIT_START_TIMEOUT
    if report is None or report.asked:
        # The bridge itself stopped it, so its status does not show the cause.
        return EXIT_START
    how = report.how
    return 128 + how.signal if how.signal is not None else (how.code or EXIT_START)


def cause_of_failure(
    source: object, report: ExitReport | None, start_failure: Fault | None
) -> dict[str, object]:
    """Return the log fields for a server that was given up: problem, end, last lines, hints."""
    how = report.how if report is not None and not report.asked else Exit()
    said = report.last_words if report is not None else ()
    if start_failure is None:
        problem = "the server keeps ending"
    elif how.is_known:
        problem = "the server ended before it answered"
    else:
        problem = start_failure.message
    cause: dict[str, object] = {"problem": problem}
    if isinstance(source, ChildSpec):
        cause["command"] = shown(source.argv)
    if how.is_known:
        cause["how"] = str(how)
    cause["last_words"] = list(said)
    if isinstance(source, ChildSpec) and start_failure is not None:
        # Imported for a failure only, since it compiles many patterns.
        from mcpbridge.rules.supervision.start_hints import of_failed_start

        cause["hints"] = [str(each) for each in of_failed_start(source.argv, said, how)]
    return cause


def warn_of_root(spec: ChildSpec) -> None:
    """Warn if the server will run as root.

    It is not refused: many images have no other user, and in a rootless engine root has no
    privileges.
    """
    if spec.user is None and _is_root():
        problem = "the server runs as root; give --child-user, or run mcpbridge as another user"
        log.warning("child.as_root", extra={"problem": problem})


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
