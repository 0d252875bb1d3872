"""What profiles showed to stand in the way of goals, told by the bench where one is not met.

Each says what was measured, and how: with `cProfile` in one process, without sockets, where nothing
else is said. Parts of a profile are told as parts, for processors differ.
"""

PAYLOAD = (
    "a call of 1 MB takes 1.3 ms for checking and decoding its request and its answer (measured"
    " alone, with time.perf_counter), more than what the prototype takes in all, which looks at"
    " nothing of a message. The rest are copies (the body and the line made whole, params and"
    " result cut out), reads, and writes to child and client. Only a decoder that checks UTF-8,"
    " depth and members in one pass, and hands out views, would help."
)
STRUCTURED = (
    "two thirds of the processor time are the worker thread that reads the request and the"
    " answer. Of that, 48 % is to count brackets and colons byte by byte, in ten passes"
    " (count_rare), 24 % to find how deep they nest (_check_depth: replace, translate, split), 17"
    " % msgspec's passes (cProfile in that thread, by thread_time). msgspec's passes take 2.1 ms,"
    " and with what the prototype takes in all that is more than the goal. One native pass that"
    " checks depth and counts members while it decodes would help."
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
    "when it took 203 k instructions, counted by callgrind, 81 k were the interpreter's own loop,"
    " and no other function took more than 5 k; they are spread over 123 calls of Python (make"
    " bench-moves)."
    " Only fewer calls would help, which means fewer and longer functions on the way of a call."
)
IDLE = (
    "an interpreter that has imported anyio, click, msgspec, uvloop and uvicorn without its"
    " supervisors, and done nothing, holds 28.3 MiB, with Starlette 31.4 MiB (CPython 3.11; 8.5 MiB"
    " without imports). Our own modules add 5.4 MiB and serving 2.3; the goal leaves 2.6 for both."
    " Only fewer libraries would help."
)
SERVERS = (
    "with one server in the file it is 39.6 MiB, so that each further one takes a quarter of a MiB;"
    " 37.4 MiB are there once the program and its libraries are imported (CPython 3.11). ctypes,"
    " through which Linux is asked for orphaned processes, takes 0.3 more. malloc_trim and a"
    " garbage collection after the start give back 0.2 MiB at most."
    " Only fewer libraries would help."
)
NOTE = (
    "a third of it is to find the call by its token and to put the client's own in its place, a"
    " third to write it and keep it in the log that makes a stream resumable, a fifth to check and"
    " decode it; no step takes more than a tenth by itself."
)
START = (
    "two thirds of the instructions are the interpreter and the libraries (counted by callgrind to"
    " the end of a bridge that is stopped once it is ready, in this order of imports: the"
    " interpreter 4 %, asyncio 21 %, click 5 %, anyio 12 %, msgspec 2 %, uvloop 1 %, uvicorn 12 %,"
    " Starlette 9 %), a fifth the imports of 190 modules of our own (a third of it makes classes, a"
    " fifth reads bytecode), 2 % the command line; what an interpreter takes that only imports"
    " those libraries, without Starlette, stands in the table. Only fewer imports would help."
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
