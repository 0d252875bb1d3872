"""Rows 96 to 120 and 140: what may go wrong with the process itself and the machine it runs on."""

from __future__ import annotations

from tests.faults.row import Row

ROWS = (
    Row(
        96,
        "SIGTERM while calls are in flight.",
        "They are answered, then it ends with status 0; those that take longer than `--grace`"
        " allows get one final error.",
    ),
    Row(
        97,
        "A second signal, and a third.",
        "The second, half a second later or more, ends every call with its error and kills the"
        " server, status 3; the third ends the process where it stands.",
    ),
    Row(
        98,
        "Ctrl-C on a terminal.",
        "As SIGTERM; the server does not get the terminal's signal.",
    ),
    Row(
        99,
        "SIGHUP.",
        "If a terminal hangs up, it is an order to end, like SIGTERM; without a terminal it is"
        " logged, files that settings name are read again, and nothing ends.",
    ),
    Row(100, "A write to a connection that is gone raises SIGPIPE.", "It is ignored."),
    Row(
        101,
        "SIGUSR1 or SIGUSR2.",
        "The one logs what the process is doing, the other switches debug records on and off.",
    ),
    Row(
        102,
        "SIGKILL ends mcpbridge.",
        "On Linux nothing outlives it, not even what ignores the end of its stdin or has left"
        " its process group.",
    ),
    Row(
        103,
        "Memory runs out.",
        "The kernel is told to take the server first, and not mcpbridge.",
    ),
    Row(
        104,
        "Descriptors run out.",
        "Some are kept in reserve: at `--max-connections`, which follows from the limit on open"
        " files, a further connection gets 503, and those that are there go on.",
    ),
    Row(
        105,
        "The disk of the log is full.",
        "Records are lost, no request is.",
    ),
    Row(
        106,
        "The log's pipe is closed, or it is not read.",
        "Records are lost and counted; no request waits for them, the end a second at most.",
    ),
    Row(
        107,
        "The clock jumps.",
        "No deadline moves: all are measured by a clock that cannot. Access tokens go by the time"
        " of day, with 60 s of leeway.",
    ),
    Row(
        108,
        "The machine is suspended and woken up.",
        "Sessions and processes are as they were; nothing is killed for the time that is missing.",
    ),
    Row(109, "Orphans become its children, as process 1 of a container.", "They are reaped."),
    Row(
        110,
        "It is process 1, whose signals the kernel drops unless they are handled.",
        "All are handled from the first moments on.",
    ),
    Row(
        111,
        "Nothing can be written, there is no HOME and the user has no name.",
        "It runs.",
    ),
    Row(
        112,
        "The limits on descriptors or processes are low.",
        "They are raised if that is allowed; otherwise `--max-connections` and `--max-children`"
        " are made to fit and the log says so, or it refuses to start with one line.",
    ),
    Row(
        113,
        "IPv6 only, or both.",
        "`--host` takes addresses of either kind.",
    ),
    Row(114, "The port is taken.", "One line, status 1, and no server is started."),
    Row(
        115,
        "A service manager hands over an open socket.",
        "It is listened on; the server inherits neither the socket nor the variables that announce"
        " it. Anything else that is handed over is refused before a server is started.",
    ),
    Row(
        116,
        "The name of the server's host (`--connect`) or of the authorization server cannot be"
        " resolved.",
        "It is tried again, ever later; clients get 503 that says when to come back, `/readyz` 503,"
        " `/livez` 200. Keys that were fetched before stay valid for 24 hours; after"
        " that, tokens are answered with 503 and not with 401.",
    ),
    Row(
        117,
        "The event loop stands still.",
        "A separate thread notices within seconds and logs where; `/livez`, which the loop"
        " serves, does not answer. After 30 seconds the process ends with status 70.",
    ),
    Row(
        118,
        "Something is leaked with every session or call.",
        "Nothing is: descriptors, threads, processes and tasks are afterwards as before"
        " (`make soak` for many).",
    ),
    Row(
        119,
        "A fault in mcpbridge itself.",
        "In one session it is that session's alone; anywhere else the process ends with status 70"
        " and a record of its state, and no server process is left.",
    ),
    Row(
        120,
        "An option or variable is misspelt, or a secret is too short.",
        "Status 2 and one line that says what is right, before anything is started.",
    ),
    Row(
        140,
        "A callback of the event loop fails.",
        "As 119: the process ends with status 70 and says which, since what the callback serves"
        " would stand still. A callback of a client's connection ends that connection.",
    ),
)
