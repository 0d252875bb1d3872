"""What `mcpbridge doctor -- COMMAND` finds out, as facts; `--json` prints them as they stand."""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from mcpbridge.rules.supervision.start_hints import Hint


class Outcome(enum.Enum):
    """How the start went."""

    SERVED = "answered"
    NOT_FOUND = "not_found"
    NOT_EXECUTABLE = "not_executable"
    NOT_STARTED = "not_started"
    ENDED = "ended"
    """The process ended before it answered."""
    CLOSED = "closed_stdout"
    """It closed its stdout and lived on."""
    REFUSED = "refused"
    """It answered with an error, or with what is no introduction."""
    SILENT = "silent"
    """It lived and said nothing within the time."""
    STALLED = "stalled"
    """It introduced itself, and then did not answer `tools/list`."""


class Buffering(enum.Enum):
    """When an answer leaves the server."""

    NONE = "none"
    UNTIL_MORE = "until_more_is_sent"
    UNTIL_END = "until_the_end_of_input"


class Noise(msgspec.Struct, frozen=True):
    """What came on stdout and was no message."""

    lines: int
    bytes: int
    sample: tuple[str, ...]


class Listing(msgspec.Struct, frozen=True):
    """One list of the server, all its pages together."""

    count: int
    bytes: int
    pages: int
    names: tuple[str, ...]
    """The first of them."""
    problem: str | None = None
    unanswered: bool = False
    """A page of it was asked for, and no answer came."""


class Memory(msgspec.Struct, frozen=True):
    """What the process group took after its lists were read."""

    bytes: int
    processes: int


Rung = Literal["itself", "end_of_input", "SIGTERM", "SIGKILL"]
"""What it took for a process to end."""


class Ending(msgspec.Struct, frozen=True):
    """How the process that was asked most came to its end."""

    by: Rung
    seconds: float
    """From the end of its input."""
    how: str
    """`exit code 0`, `signal 9`."""


class Flag(msgspec.Struct, frozen=True):
    """What to give mcpbridge for this server."""

    words: tuple[str, ...]
    reason: str


class ServerReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found out about one command."""

    command: str
    served: bool
    """mcpbridge can serve it as it is."""
    outcome: Outcome
    problem: str | None = None
    """Why it cannot be served, in words."""
    started: int = 1
    """How many processes of it were started for this report."""
    handshake_s: float | None = None
    """From the start of the process to its answer."""
    revisions: tuple[str, ...] = ()
    """Those seen in its answers, oldest first; a legacy server may know more."""
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
    """None where stdout was clean."""
    overlong_bytes: int = 0
    """The longest line over --max-message-bytes; 0: none."""
    buffering: Buffering = Buffering.NONE
    questions: tuple[str, ...] = ()
    """What it asked a client that offers roots and sampling, without any call."""
    notifications: dict[str, int] = {}
    memory: Memory | None = None
    ending: Ending | None = None
    stderr: tuple[str, ...] = ()
    """The last lines."""
    hints: tuple[Hint, ...] = ()
    flags: tuple[Flag, ...] = ()
    command_line: str | None = None
    """Ready to use; None where it cannot be served."""
