"""What profiles showed to stand in the way of goals, told by the bench where one is not met.

Each says what was measured, and how: with `cProfile` in one process, without sockets, where nothing
else is said. Parts of a profile are told as parts, for processors differ.
"""

PAYLOAD = (
    "sampled at 1 MB, where a call took 4.3 ms: checking the JSON of request and answer 15 %,"
    " writev to child and client 15 %, copies (the body and the line made whole, params and result"
    " cut out) 14 %, reads 11 %, page faults of objects of 1 MB 9 %, searches for line ends,"
    " escapes and brackets 5 %, UTF-8 3 %. The prototype looks at nothing of a message; the checks"
    " alone are 0.75 ms, a third of what it takes in all."
)
STREAM = (
    "a JSON answer is written by the code that hears it from the server. A stream is an ASGI"
    " request with a separate task and two or more events, whose head uvicorn checks line by"
    " line, and with a log that makes it resumable: 431 k instructions against 197 k of a JSON"
    " answer (make bench-gate, CPython 3.11). To stream without ASGI would be a second"
    " implementation of streams."
)
FAST_PATH = (
    "of 203 k instructions, counted by callgrind, 81 k are the interpreter's own loop and no other"
    " function takes more than 5 k; they are spread over 122 calls of Python (make bench-moves)."
    " Only fewer calls would help, which means fewer and longer functions on the way of a call."
)
IDLE = (
    "an interpreter that has imported anyio, click, msgspec, uvloop and uvicorn without its"
    " supervisors, and done nothing, holds 28.3 MiB, with Starlette 31.4 MiB (CPython 3.11; 8.5 MiB"
    " without imports). Our own modules add 5.4 MiB and serving 2.3; the goal leaves 2.6 for both."
)
SERVERS = (
    "with one server in the file it is 39.6 MiB, so that each further one takes a quarter of a MiB;"
    " 37.4 MiB are there once the program and its libraries are imported (CPython 3.11). ctypes,"
    " through which Linux is asked for orphaned processes, takes 0.3 more. malloc_trim and a"
    " garbage collection after the start give back 0.2 MiB at most."
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
    " those libraries, without Starlette, stands in the table."
)
SESSION = (
    "three requests, which a bare ASGI application answers in the time that stands below, take the"
    " ordinary way through parser, task and ASGI; a fifth of the profile is to open and close the"
    " session itself, the rest what every request passes: head, Host and Origin, body, admission."
)
FORK = (
    "two fifths of the profile are the child's own life: fork and exec, the pipes, the watch for"
    " its end, and reading /proc for what it may have left behind; a fifth are the three requests,"
    " the rest the tasks that start, introduce and end it."
)
ENVELOPE = (
    "a call of 2026-07-28 to a child of the legacy era is a translation: its params are opened"
    " to compare them with the head and read the envelope, cut, and the answer is stamped. That is"
    " 168 calls of Python in place of 122 (make bench-moves) and 44 % more instructions"
    " (counted by callgrind, CPython 3.11), spread over all of these steps."
)
