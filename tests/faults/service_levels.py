"""What holds whatever goes wrong and what proves it; what is not promised."""

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
        "Probes are answered while a server misbehaves: until the answer the event loop uses less"
        " than 100 ms of processor time for 99 of 100 probes, and none of its turns takes 40 ms,"
        " whichever message of `benchmarks/hostile.py` arrives.",
        "`test_faults_bounds`, `test_turns`",
    ),
)
"""A sentence each, and the suites or test modules that would fail if it did not hold."""

NOT_PROMISED = (
    "**Time by the clock.** The tests hold processor time, since time by the clock depends on the"
    " machine. `make bench` measures the longest turn of the event loop (goal:"
    " 20 ms) and the slowest of all probes (goal: 100 ms); no test holds these goals.",
    "**Memory within `--max-memory` alone.** It bounds what is kept. `make soak` holds resident"
    " memory under attack to what the idle bridge takes, `--max-memory` (64 MiB there) and 128 MiB"
    " more. The small calls in flight (`--max-calls` times 4 KiB) are not counted, nor are the"
    " kernel's buffers and the memory of the server's processes.",
    "**That sent answers are let go at once.** An answer that was sent as a stream is kept so that"
    " its client can resume: that the connection took the bytes does not say that the client has"
    " them. It counts towards `--max-memory`, and is let go when 75 % of that is used.",
    "**That clients of one process do not feel each other.** A server process that clients share"
    " ends for all of them: each call that it works on, at most `--max-calls-per-child` (64), gets"
    " an error, and so does each that waits for it. They also share its memory, its environment"
    " and what it keeps. `--isolation session` gives each session its own process.",
    "**Other hosts than Linux.** There, a process that has left its server's group is not found,"
    " the server may outlive a SIGKILL of mcpbridge, and the kernel does not take the server first"
    " when memory is short. Nor is anything promised on a machine that loses its power, is too"
    " small for the limits that are set, or allows fewer than 52 open files, with which mcpbridge"
    " does not start.",
)
"""A paragraph each, with its figures."""
