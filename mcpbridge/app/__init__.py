"""The program: `build` assembles it without any I/O, `serve` is its life from start to end.

`access` says who may call, `listeners` opens what `server`, uvicorn as a part, listens on, `watch`
what the metrics read, `stall` tells of a loop that stands still, `early` keeps signals until
`serve` hears them. The lives of the other programs: `shim`, at the other end of a connection;
`sidecar`, which counts what passes it; `doctor`, which asks a server or an endpoint and says what
it found; `health`, a small client. `status` has the exit statuses.
"""
