"""Results of `mcpbridge doctor -- COMMAND` as data; `--json` prints them unchanged."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from mcpbridge.rules.supervision.start_hints import Hint


class Outcome(enum.Enum):
    """The outcome of the start."""

    SERVED = "answered"
    NOT_FOUND = "not_found"
    NOT_EXECUTABLE = "not_executable"
    NOT_STARTED = "not_started"
    ENDED = "ended"
    """The process ended before it answered."""
    CLOSED = "closed_stdout"
    """It closed its stdout and continued to run."""
    REFUSED = "refused"
    """It answered with an error, or with an invalid `initialize` result."""
    SILENT = "silent"
    """It ran and did not answer in time."""
    STALLED = "stalled"
    """It answered `initialize`, but not `tools/list`."""


class Buffering(enum.Enum):
    """When the server writes an answer."""

    NONE = "none"
    UNTIL_MORE = "until_more_is_sent"
    UNTIL_END = "until_the_end_of_input"


class Noise(msgspec.Struct, frozen=True):
    """The lines on stdout that are not messages."""

    lines: int
    bytes: int
    sample: tuple[str, ...]


class Listing(msgspec.Struct, frozen=True):
    """One list of the server, with all its pages."""

    count: int
    bytes: int
    pages: int
    names: tuple[str, ...]
    """The first names."""
    problem: str | None = None
    unanswered: bool = False
    """Whether a page was requested and not answered."""


class Memory(msgspec.Struct, frozen=True):
    """The memory of the process group after its lists were read."""

    bytes: int
    processes: int


StopStep = Literal["itself", "end_of_input", "SIGTERM", "SIGKILL"]
"""The step that ended the process."""


class Ending(msgspec.Struct, frozen=True):
    """The end of the main process."""

    by: StopStep
    seconds: float
    """Seconds since the end of its input."""
    how: str
    """`exit code 0` or `signal 9`."""


class Flag(msgspec.Struct, frozen=True):
    """A recommended flag of mcpbridge for this server."""

    words: tuple[str, ...]
    reason: str


class ServerReport(msgspec.Struct, frozen=True, kw_only=True):
    """All results about one command."""

    command: str
    served: bool
    """Whether mcpbridge can serve it as it is."""
    outcome: Outcome
    problem: str | None = None
    """The reason why it cannot be served."""
    started: int = 1
    """Number of processes started for this report."""
    handshake_s: float | None = None
    """Seconds from the start of the process to its answer."""
    revisions: tuple[str, ...] = ()
    """Revisions seen in its answers, oldest first; a legacy server may know more."""
    legacy: bool = False
    modern: bool = False
    name: str | None = None
    version: str | None = None
    capabilities: tuple[str, ...] = ()
    tools: Listing | None = None
    prompts: Listing | None = None
    resources: Listing | None = None
    resource_templates: Listing | None = None
    noise: Noise | None = None
    """None if stdout had messages only."""
    overlong_bytes: int = 0
    """The longest line over --max-message-bytes; 0 for none."""
    buffering: Buffering = Buffering.NONE
    questions: tuple[str, ...] = ()
    """Methods that it requested of a client with roots and sampling, without any call."""
    notifications: dict[str, int] = {}
    memory: Memory | None = None
    ending: Ending | None = None
    stderr: tuple[str, ...] = ()
    """The last lines of its stderr."""
    hints: tuple[Hint, ...] = ()
    flags: tuple[Flag, ...] = ()
    command_line: str | None = None
    """Ready to use; None if it cannot be served."""
