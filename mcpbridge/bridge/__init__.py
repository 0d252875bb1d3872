"""The middle: who may speak to which child, and which stream each message belongs to.

In reading order: `stream` (an event log that readers wait on) and `streams` (those of one session,
kept for resuming); `mux` (many waiters on one child's pipe); `exchange` (one client request and
everything that answers it), `tracing` (its spans) and `ledger` (what is written down of it);
`placement` (which child serves whom), `handshake`, `supervisor`
(keeps the shared child running); `session` (a handshake-era conversation) with its parts `outbox`
(what waits for the child), `inquiries` (what the child asks) and `commons` (what it shares with
others); `sessions` (all of them, and their limits); `repeat` (what a new child is told); `gate`
(one condition for readiness), `drain` (the ordered end); `quarters` (what belongs to one
principal), `allotment` (where its children come from) and `lodgings` (whose quarters are whose);
`bridge` (the facade that the faces talk to).
"""
