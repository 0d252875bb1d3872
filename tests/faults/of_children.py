"""Rows 1 to 50, 138 and 139: what a server process may do wrong."""

from __future__ import annotations

from tests.faults.row import Row

ROWS = (
    Row(
        1,
        "The command does not exist or cannot be executed.",
        "It ends before it listens, with status 127 or 126 and one line that names the command.",
    ),
    Row(
        2,
        "The server fails as soon as it is started.",
        "If the very first start ends by itself mcpbridge ends at once with the server's status and"
        " says why. Else clients get 503 with the exit status, starts are repeated ever later, and"
        " after `--give-up-after` ends within a minute mcpbridge ends with that status.",
    ),
    Row(
        3,
        "The server ends with status 0 before it has answered the handshake.",
        "As 2, and the error says code 0.",
    ),
    Row(
        4,
        "The server never answers the handshake.",
        "After `--start-timeout` the clients that wait are told so and the whole process group is"
        " killed;"
        " until then `/startupz` says 503.",
    ),
    Row(
        5,
        "The server crashes while calls are in flight.",
        "Each of them gets one error with the exit status, at once; sessions stay and their next"
        " call is served by a new process that was told what the last one had been told.",
    ),
    Row(
        6,
        "The server crashes while nothing is in flight.",
        "A new process is started; sessions stay. With `--on-child-exit end` they get 404, with"
        " `exit` mcpbridge ends as well.",
    ),
    Row(
        7,
        "The server is killed by SIGKILL, by a person or because memory ran out.",
        "As 5, and the error names the signal; the log says so if memory ran out.",
    ),
    Row(
        8,
        "The server crashes by SIGSEGV or SIGABRT.",
        "As 5, and the error names the signal. No core file is written, since it could hold"
        " secrets.",
    ),
    Row(
        9,
        "The server never answers one call.",
        "At `--request-idle-timeout` or `--request-timeout` the call gets an error that names"
        " the flag, the server is told that it is cancelled, and a late answer reaches no client."
        " After `--child-max-timeouts` of them in a row, in which the process says nothing, it is"
        " replaced.",
    ),
    Row(
        10,
        "The whole server process stands still.",
        "After three unanswered pings (`--ping-interval`, `--ping-timeout`) it is killed and"
        " replaced, and its calls get their error; other processes go on.",
    ),
    Row(
        11,
        "The server ignores SIGTERM.",
        "First its stdin is closed, then its group gets SIGTERM, then SIGKILL, each after a bound.",
    ),
    Row(12, "The server ignores the end of its stdin.", "As 11."),
    Row(
        13,
        "A process that the server started outlives it.",
        "The whole process group is stopped with the server.",
    ),
    Row(
        14,
        "A process that the server started keeps its stdout open after it.",
        "The end of the server counts and not the end of the pipe: its calls are told at once.",
    ),
    Row(
        15,
        "A process that the server started leaves its process group.",
        "On Linux it is found and stopped with the server that started it, and with mcpbridge.",
    ),
    Row(
        16,
        "No further process can be started: the system's limit is reached.",
        "A session that needs one gets 503 that says so; what runs goes on.",
    ),
    Row(
        17,
        "The server writes text for people on its stdout.",
        "The lines are skipped and counted; once a second at most the log shows a sample.",
    ),
    Row(18, "The server writes a banner before it answers the handshake.", "As 17."),
    Row(
        19,
        "The server writes half a line, or one that is not JSON.",
        "If it answers a call beyond doubt, that call gets `bad_child_message` at once; otherwise"
        " the line is skipped and counted.",
    ),
    Row(20, "Lines begin with a byte-order mark.", "It is taken off."),
    Row(21, "Lines end with CR and LF.", "CR before LF is taken for a part of the line's end."),
    Row(22, "A line is not UTF-8.", "As 19; no client ever gets bytes that are not UTF-8."),
    Row(23, "A line holds raw NUL or other control characters.", "As 19."),
    Row(24, "A text holds half of a surrogate pair as an escape.", "It passes byte for byte."),
    Row(25, "A line holds NaN or Infinity.", "As 19."),
    Row(
        26,
        "Numbers have 20 or 5000 digits, or are spelled 1.0.",
        "Results and parameters pass byte for byte.",
    ),
    Row(
        27,
        "A member stands twice in a message.",
        "In the envelope the message is skipped, since the call that it answers is unknown; below"
        " it"
        " passes byte for byte.",
    ),
    Row(
        28,
        "A message is nested 100 000 deep.",
        "Its call gets `bad_child_message`; depth is counted before any parser sees the line.",
    ),
    Row(29, "A message comes one byte at a time.", "It is put together, in linear time."),
    Row(
        30,
        "One line has 60 MB.",
        "Its call gets `message_too_large`, which names `--max-message-bytes`; no more than the"
        " limit is kept, and others are served.",
    ),
    Row(
        31,
        "A line has no end.",
        "At four times `--max-message-bytes` the process is given up and replaced, as in 5.",
    ),
    Row(
        32,
        "The server floods its clients with notifications.",
        "Each stream keeps a bounded number, and a change of a list once; what is shed is counted,"
        " answers never are, and others are served.",
    ),
    Row(
        33,
        "The server floods its stderr.",
        "It is always read; the log shows a bounded amount a second, and how much it left out.",
    ),
    Row(34, "The server closes its stderr.", "Nothing happens: it is served as before."),
    Row(
        35,
        "The server closes its stdout and lives on.",
        "It counts as ended: its calls get their error, the process group is stopped, another is"
        " started.",
    ),
    Row(36, "The server closes its stdin and lives on.", "As 35, with the next write."),
    Row(
        37,
        "The server does not read its stdin.",
        "Only its own callers wait. After `--child-stall-timeout` it is replaced: what it was"
        " given fails, what still waited goes to the next process.",
    ),
    Row(38, "The server answers a call twice.", "The first answer counts; others are counted."),
    Row(
        39,
        "The server answers a call that no client made.",
        "The answer is dropped and counted; no client ever gets it.",
    ),
    Row(
        40,
        'The server answers with the id as a text ("1" for 1).',
        "It is taken for the call's answer: on the pipe all ids are mcpbridge's own numbers.",
    ),
    Row(
        41,
        "The server answers a call after it was cancelled.",
        "The cancelled call has ended already; the late answer is dropped and counted.",
    ),
    Row(
        42,
        "An answer has both a result and an error, or neither.",
        "Its call gets `bad_child_message`.",
    ),
    Row(
        43,
        "The server asks its client (sampling, elicitation, roots).",
        "The question goes to the one client that can be meant: on the stream of its only call,"
        " else on its listening stream, else it waits `--question-timeout` for one.",
    ),
    Row(
        44,
        "A server process that several sessions share asks a client.",
        "It gets an error at once, since the client that it means is unknown; ping is answered.",
    ),
    Row(
        45,
        "A shared process says something that belongs to no call.",
        "Changed lists reach every session, updates those that subscribed, log messages the only"
        " caller; all else is dropped and counted.",
    ),
    Row(
        46,
        "Clients use equal ids, progress tokens or subscription ids.",
        "On the pipe each has a number of mcpbridge's own; each client gets its own back.",
    ),
    Row(
        47,
        "The server's memory grows without end.",
        "With `--child-max-rss`, `--child-max-requests` or `--child-max-age` the process is"
        " replaced: its calls are answered by it, new ones by the next, and none is lost.",
    ),
    Row(
        48,
        "Many servers start at once, and slowly.",
        "Twice as many start at once as there are cores; one that waits has the whole"
        " `--start-timeout`, and clients that come during that time wait.",
    ),
    Row(
        49,
        "The server looks for descriptors it could misuse.",
        "It has its three pipes and nothing else.",
    ),
    Row(
        50,
        "The server reads the environment for secrets of the bridge.",
        "No variable `MCPBRIDGE_*` reaches it.",
    ),
    Row(
        138,
        "A message of the server is costly to read for its size.",
        "As 137; long answers are also translated between the eras in a thread.",
    ),
    Row(
        139,
        "The server writes sequences that control a terminal.",
        "In the log as text, and in what `mcpbridge list` prints, they are escaped or replaced.",
    ),
)
