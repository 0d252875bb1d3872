"""What holds whatever goes wrong, and what proves it."""

from __future__ import annotations

LEVELS = (
    (
        "Every call that was accepted gets exactly one answer: the server's or one error.",
        "`make chaos`, `test_child_faults`",
    ),
    (
        "No client ever gets what belongs to another session.",
        "`make chaos`, `test_child_faults`, `test_answers`",
    ),
    (
        "Memory is bounded for each session and in all, whatever a client or a server does.",
        "`make soak`, `test_ledger`, `test_memory`, `test_faults_bounds`, `test_backpressure`",
    ),
    (
        "No process outlives mcpbridge, even if mcpbridge is killed by SIGKILL (on Linux).",
        "`test_nothing_left`, `test_shutdown`, and the end of every other test",
    ),
    (
        "SIGTERM ends it within `--grace`, with status 0 if every call was answered.",
        "`test_shutdown`, and the end of every other test",
    ),
    (
        "After a crash of the server its calls are told within 100 ms, and the next one is served"
        " as soon as a new process is up.",
        "`make chaos`, `test_child_faults`, `test_wedged`",
    ),
    (
        "Probes are answered within 100 ms while a server misbehaves.",
        "`test_faults_bounds`, `test_turns`",
    ),
)
"""A sentence each, and the suites or test modules that would fail if it did not hold."""
