"""Rows 51 to 95 and 121 to 137: what a client, or a program that poses as one, may do wrong."""

from __future__ import annotations

from tests.faults.row import Row

ROWS = (
    Row(
        51,
        "A client sends the head of its request slowly.",
        "408 at `--header-timeout`, and the connection is closed.",
    ),
    Row(
        52,
        "A client sends the body of its request slowly.",
        "408 at `--body-timeout`, and the connection is closed.",
    ),
    Row(
        53,
        "A client keeps connections that it does not use.",
        "They are closed after `--keep-alive-timeout`.",
    ),
    Row(
        54,
        "A client stops reading its event stream.",
        "Its stream keeps `--stream-buffer` and sheds the oldest notifications, never answers;"
        " after `--send-timeout` without any progress it is cut; no other client waits.",
    ),
    Row(
        55,
        "A client of a session goes away while its call runs.",
        "The call goes on, and its answer is kept for a client that comes back.",
    ),
    Row(
        56,
        "A client of 2026-07-28 goes away while its call runs.",
        "That is the cancellation: the server is told so, and a late answer is dropped; a call"
        " that still waits for its turn never reaches the server.",
    ),
    Row(
        57,
        "A client vanishes without a word on the network.",
        "Comments on idle streams and TCP keep-alive find it out, and its streams are ended.",
    ),
    Row(
        58,
        "A client comes back with the last event it has seen.",
        "It gets what it missed of that stream, each event once, and then what is new.",
    ),
    Row(
        59,
        "A client comes back with an event that is unknown, too old or another session's.",
        "Nothing is replayed: another's is 400, one that is over 405, nonsense a new stream.",
    ),
    Row(
        60,
        "A session opens a second listening stream.",
        "Messages go to the newest; the older one stays open and takes over when the newer ends.",
    ),
    Row(
        61,
        "A client uses an id again while its first call runs.",
        "The second call is refused with -32600; the first one is answered.",
    ),
    Row(62, "Different sessions use equal ids.", "Each gets its own answers."),
    Row(
        63,
        "The length a client announces is over the limit.",
        "413 before anything is read, naming `--max-request-bytes`.",
    ),
    Row(
        64,
        "A body without an announced length grows over the limit.",
        "413 as soon as it does; no more than the limit is kept.",
    ),
    Row(65, "A body is compressed.", "415: a small body could unpack to any size."),
    Row(66, "A body is not announced as JSON.", "415."),
    Row(
        67,
        "A client does not say what it accepts, or says `*/*`, or something else.",
        "JSON if that is acceptable, otherwise a stream, otherwise 406.",
    ),
    Row(68, "The body is not JSON.", "400 with -32700."),
    Row(69, "The body is empty.", "400 with -32700."),
    Row(
        70,
        "The body is a batch.",
        "Served in sessions of 2025-03-26, up to 100 messages; 400 with -32600 elsewhere.",
    ),
    Row(71, "The id of a request is null, a fraction, a boolean or an object.", "400 with -32600."),
    Row(72, "The id is a number of 20 digits.", "It comes back as it was written."),
    Row(
        73,
        "The id is a text with line separators or quotes, or a very long one.",
        "It comes back as it was written; over 1024 bytes it is 400.",
    ),
    Row(
        74,
        "The body holds NaN, invalid UTF-8, half a surrogate pair or a member twice.",
        "400, except for the escape of half a surrogate pair, which passes byte for byte.",
    ),
    Row(
        75,
        "The body is nested 100 000 deep.",
        "400 with -32600; the bound is `--max-json-depth`.",
    ),
    Row(
        76,
        "A client of 2026-07-28 calls a method that does not exist.",
        "404 with -32601 in the body.",
    ),
    Row(
        77,
        "The routing headers of 2026-07-28 are missing or contradict the body.",
        "400 with -32020; for an unknown revision -32022 with those that are served.",
    ),
    Row(
        78,
        "The header `Mcp-Name` holds line ends, NUL, nonsense or many kilobytes.",
        "400; its text is neither logged nor handed on.",
    ),
    Row(79, "A client names a session that does not exist.", "404, for every verb."),
    Row(
        80,
        "A client names no session after `initialize`.",
        "The shared process serves it, so that simple clients work; 400 with"
        " `--require-session`. A GET and a DELETE always need a session.",
    ),
    Row(
        81,
        "A client guesses or smuggles in the id of another's session.",
        "Ids hold 256 bits of chance and are taken from their header only; a wrong one is 404.",
    ),
    Row(
        82,
        "A session is deleted while its calls run.",
        "They get one error that says so, its own process ends, and its id is 404 from then on.",
    ),
    Row(
        83,
        "Clients open sessions and never delete them.",
        "Unused ones end after `--unused-session-timeout`, idle ones after"
        " `--session-idle-timeout`; at `--max-sessions` the one idle longest makes room.",
    ),
    Row(
        84,
        "One client floods the bridge with requests.",
        "At `--max-calls-per-child` calls wait for their turn, at `--queue-length`,"
        " `--queue-bytes` and `--max-calls` they get an error that names the flag."
        " `--rate-limit` bounds the messages of one client.",
    ),
    Row(
        85,
        "Clients hold very many idle streams.",
        "Each costs some kilobytes; at `--max-streams` and `--max-connections` further ones are"
        " refused with the flag's name.",
    ),
    Row(86, "A client sends several requests before it reads.", "Answered in order."),
    Row(
        87,
        "A request could be read in two ways (two lengths, broken chunks, folded lines).",
        "400, and the connection is closed.",
    ),
    Row(
        88,
        "A head has 200 KB.",
        "431 at `--max-header-bytes`, and the connection is closed.",
    ),
    Row(
        89,
        "The Host header holds a path or a query.",
        "It is refused; which endpoint is meant is decided by the path alone.",
    ),
    Row(
        90,
        "A web page, or another name for this machine, is behind a request.",
        "403 for an Origin that is not allowed, 421 for a Host that is not; before the body is"
        " read.",
    ),
    Row(
        91,
        "A browser asks beforehand what is allowed.",
        "204 for an origin that `--allow-origin` lists, before it is asked who it is; 403 for one"
        " that is not allowed, 405 for others, and none of their pages can read an answer.",
    ),
    Row(92, "A GET does not accept an event stream, or has none in its revision.", "406, or 405."),
    Row(
        93,
        "A client asks whether it may send its body and then sends none.",
        "As 52.",
    ),
    Row(
        94,
        "Something other than HTTP/1.1 comes to the port: TLS, HTTP/2, HTTP/1.0.",
        "400 or an end of the connection, without a traceback; HTTP/1.0 is served.",
    ),
    Row(
        95,
        "A client answers a question that was not asked.",
        "202 and no effect; without a session 400.",
    ),
    Row(
        121,
        "A client offers another protocol (`Upgrade`).",
        "The offer is ignored: the body is read whole, no byte of it becomes a request, and what"
        " follows it is the next request.",
    ),
    Row(
        122,
        "A client sends more than 100 requests without waiting for an answer.",
        "The 100 are answered in order, the next ones are not served, and the connection ends.",
    ),
    Row(
        123,
        "What is kept for clients reaches `--max-memory`.",
        "New work gets 503 with `reason: memory`, which names the flag, a call in a session that"
        " error as its answer; if that lasts, the heaviest gives way. Probes are answered.",
    ),
    Row(
        124,
        "The calls of one client crash the server again and again.",
        "That client is paused, ever longer (429 with `reason: paused`); other clients are served,"
        " and mcpbridge does not give up.",
    ),
    Row(
        125,
        "A client takes all connections.",
        "At `--max-connections` those of it that have no request in service give way to a client"
        " that has fewer.",
    ),
    Row(
        126,
        "A client takes all sessions.",
        "At `--max-sessions` its idle ones give way, and no session of a client that has fewer.",
    ),
    Row(
        127,
        "A client takes all processes.",
        "At `--max-children` its idle ones give way, and no process of a client that has fewer.",
    ),
    Row(
        128,
        "A client takes all calls.",
        "At `--queue-length` and `--max-calls` its newest waiting calls give way with"
        " `reason: capacity`; calls that the server has are not ended, and the last sixteenth of"
        " `--max-calls` is for clients that have fewer than their share.",
    ),
    Row(
        129,
        "A client of 2026-07-28 takes all listens.",
        "At `--max-sessions` the oldest of its listens ends with its result and gives way.",
    ),
    Row(
        130,
        "A client leaves questions unanswered until no further call can be parked.",
        "At `--max-parked` and `--max-children` the call of it that has been parked for longest"
        " gives way to another client.",
    ),
    Row(
        131,
        "A listen names too many resources, or one with too long a URI.",
        "400 that names `--max-subscriptions` or the bound of 8192 bytes; the server gets none of"
        " the names.",
    ),
    Row(
        132,
        "A client makes up values for a header of `--header-env`.",
        "Beyond its share of sets of values, `--max-header-values`, it gets 429, and no process is"
        " started; other clients keep theirs.",
    ),
    Row(
        133,
        "The key that signed a client's token is withdrawn.",
        "Once the keys are fetched without it, its streams end and its token gets 401; tokens of"
        " keys that are published are served all the time.",
    ),
    Row(
        134,
        "Tokens name keys that do not exist, so that keys are fetched for each.",
        "A fetch for an unknown key is made twice a minute at most; in between such tokens get 503"
        " with a time to come back, other broken ones 401.",
    ),
    Row(
        135,
        "Bad requests come in a flood.",
        "The log has one record for each kind of refusal and not one for each request; the metric"
        " counts them all.",
    ),
    Row(
        136,
        "A method is spelled almost like `tools/call`, to get past `--deny-tool`.",
        "-32602, which says what it could be read as; without an id it is dropped. The server gets"
        " neither.",
    ),
    Row(
        137,
        "A message of a client is costly to read for its size.",
        "Members, elements and levels are counted before they are walked, and long messages are"
        " read in a thread: no turn of the event loop takes 40 ms of processor time.",
    ),
)
