"""The middle: who may speak to which child, and which stream each message belongs to.

In reading order: `stream` (an event log that readers wait on), `exchange` (one client request
and everything that answers it), `mux` (many waiters on one child's pipe), `supervisor` (keeps the
shared child running), `placement` (which child serves whom), `session` and `sessions`
(handshake-era conversations), `gate` (one condition for readiness), `drain` (the ordered end),
`bridge` (the facade that the faces talk to).
"""
