"""The middle: which child serves whom, and which stream each message belongs to.

`bridge` is the facade that transports talk to; `tenant` holds everything that belongs to one
principal; `readiness` says whether traffic may come, `drain` orders the end, `recycler` replaces
children that are due, `evictors` ends those that can be done without, `tasks` contains failures.
Below them, in the order of imports:

- `legacy/`: sessions of the revisions that begin with `initialize`.
- `modern/`: requests of 2026-07-28, which need no session.
- `calls/`: one call, from its context to its line in the log.
- `children/`: processes, their pools and limits, and the multiplexer on each of their pipes.
"""
