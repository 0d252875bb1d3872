"""The core: which child serves a client, and which stream each message belongs to.

`bridge` is the facade that transports call; `tenant` holds everything that belongs to one
principal; `readiness` says whether traffic may come, `drain` orders the end, `recycler` replaces
children that are due, `evictors` end idle children to make room, `tasks` contains failures.
Below them, in the order of imports:

- `legacy/`: sessions of the revisions that begin with `initialize`.
- `modern/`: requests of 2026-07-28, which need no session.
- `calls/`: one call, from its context to its log record.
- `children/`: children, their pools and limits, and the multiplexer on each child's pipe.
"""
