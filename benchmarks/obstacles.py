"""What profiles showed to stand in the way of goals, told by the bench where one is not met.

Each says what was measured, and how: with `cProfile` in one process, without sockets, where nothing
else is said. Parts of a profile are told as parts, for processors differ.
"""

PAYLOAD = (
    "a call of 1 MB takes 0.7 ms for checking and decoding its request and its answer (measured"
    " alone, with time.perf_counter), of which 0.35 are msgspec's two passes, beside the 1.0 that"
    " the prototype takes in all, which looks at nothing of a message. The rest are searches for"
    " brackets, line ends and colons, and copies. Only a decoder that checks UTF-8, depth and"
    " members in its one pass, and hands out views, would help."
)
STRUCTURED = (
    "to read the request and the answer, of 0.92 MB each, takes 3.8 ms (measured alone, with"
    " time.perf_counter): 2.1 to find how deep they nest (translate, count), 1.5 for msgspec's two"
    " passes; the prototype takes 1.1 ms in all. One native pass that checks depth and counts"
    " members while it decodes would help."
)
BESIDE = (
    "the server reads its one pipe in order: of 8.0 ms that a light call took in the median, 5.7"
    " passed from when it was sent to the server until its answer was read, 91 % of the light"
    " calls found large ones before them, in the median 0.85 MB, and the answers to these came"
    " first as well (time.perf_counter in the bridge). The loop does not hold them: no callback"
    " took more than 2.1 ms of processor time (asyncio's loop). Letting light messages pass large"
    " ones that have not begun, letting at most one large one wait, and switching threads ten"
    " times as often changed the median by less than it differs between rounds. A child for each"
    " session helps, as the figures with one show."
)
TURN = (
    "most turns that read a long message are one native pass over it, or over the part of it that"
    " is opened (benchmarks.turn_meter): a codec that works in slices would help."
)
CROWD = (
    "a turn is as long as the callbacks that are due in it: the sweeps of sessions and streams go"
    " by slices (benchmarks.turn_meter). Smaller slices would help."
)
PROBE = (
    "native code that converts 16 MB of text, in passes of up to 60 ms each (measured with"
    " time.monotonic around each pass, in the worker thread), holds the interpreter, so that the"
    " loop waits for one or two passes though its own turns are short. An interpreter without its"
    " lock, or a codec that works in slices, would help."
)
STREAM = (
    "a JSON answer is written by the code that hears it from the server. A stream is an ASGI"
    " request with a separate task and two or more events, whose head uvicorn checks line by"
    " line, and with a log that makes it resumable: 415 k instructions against 179 k of a JSON"
    " answer (make bench-gate, CPython 3.11). To stream without ASGI would be a second"
    " implementation of streams."
)
FAST_PATH = (
    "of 159 k instructions that are counted with 16 connections, the interpreter's own loop takes"
    " 77 k (callgrind, CPython 3.11), spread over 98 calls of Python functions (cProfile), none of"
    " which takes more than 5 %."
    " Only fewer calls would help, which means fewer and longer functions on the way of a call."
)
IDLE = (
    "an interpreter that has imported anyio, click, msgspec, uvloop, uvicorn and Starlette, each"
    " without what a server does not need, and done nothing, holds 28.7 MiB (CPython 3.11; 8.5 MiB"
    " without imports); 4.2 of them are ssl, which asyncio and uvloop import. Our own 191 modules"
    " and serving add 7.8 MiB. Only fewer libraries would help."
)
SERVERS = (
    "most of it is what an idle bridge holds, for which the reason stands above; each further"
    " server takes a quarter of a MiB. Only fewer libraries would help."
)
NOTE = (
    "a third of it is to find the call by its token and to put the client's own in its place, a"
    " third to write it and keep it in the log that makes a stream resumable, a fifth to check and"
    " decode it; no step takes more than a tenth by itself."
)
START = (
    "two thirds of the processor time are the interpreter and the libraries, as stands below; the"
    " rest is to import 191 modules of our own, to read the command line, and to start the server."
    " asyncio and anyio are the largest of them: counted by callgrind to the end of a bridge that"
    " is stopped once it is ready, they were 21 % and 12 % of the instructions. Only fewer imports"
    " would help."
)
SESSION = (
    "the three requests take the ordinary way through parser, task and ASGI. A fifth of the profile"
    " is to open and to end the session (bridge.open and DELETE 11 % each), a fifth to read the"
    " requests, 12 % to decode the two messages, 10 % to send the answers, 7 % to look up fields of"
    " heads; no function takes more than 4 % by itself, and what a bare ASGI application takes for"
    " them stands below. Without opening and ending anything the ratio would still be 1.8. To serve"
    " the three without ASGI would be a second way for rare requests."
)
FORK = (
    "two fifths of the profile are the child's own life: fork and exec, the pipes, the watch for"
    " its end, and reading /proc for what it may have left behind; a fifth are the three requests,"
    " the rest the tasks that start, introduce and end it. Only a process that is there"
    " already would help, which is what spares are for."
)
ENVELOPE = (
    "a call of 2026-07-28 to a child of the legacy era is a translation: its params are opened"
    " to compare them with the head and read the envelope, cut, and the answer is stamped. That is"
    " 281 k instructions in place of 179 k (make bench-gate, CPython 3.11), spread over all of"
    " these steps. A server that speaks 2026-07-28 itself needs none of it."
)
IMAGE = (
    "mcpbridge with the extras otel, oauth and redis takes 63 MiB, as `pip install --target` and"
    " compileall leave it: cryptography 14, uvloop 13, compiled modules 17, mcpbridge itself 2.5"
    " (du). Python's own modules, compiled, take 9 MB more; without compiled ones a start takes"
    " four times the processor time. An image without the extras would be the smaller one."
)
BARE = (
    "the bridge makes 98 calls of Python functions for a call, the bare server 32 (cProfile), and"
    " the interpreter's own loop takes 77 k instructions of 159 k in place of 36 k of 128 k"
    " (callgrind, 16 connections, CPython 3.11), which is more than the whole difference. A third"
    " of the profile is to read the answer from the pipe, decode it and find its call, which the"
    " bare server does not do; to decode both messages is 14 %, to end the record of the call 10"
    " %, and no function of ours takes more than 5 % by itself, without those it calls. Only a"
    " fifth fewer instructions all along the way would do: fewer and longer functions, or compiled"
    " code."
)
CLIFF = (
    "latency is by the clock and holds what else the machine does. In one run a call took 51 us"
    " of processor time with 4,096 connections and 32 with 256, 49 with 64 children and 31 with 8;"
    " before each connection had been warm it took 69 us with 4,096, since the first call of a"
    " connection does not take the fast path."
    " With one child and 16 connections a read of its pipe holds twelve answers (cProfile), with a"
    " child for each call one. Fewer children for as many sessions would help."
)
