"""Every decision, pure: no clock (time arrives as `now`), no I/O, no logging, no randomness.

`faults` builds the errors of the bridge itself, `outcome` classifies how a call ended, `event_log`
records one stream, `trace_context` finds the trace of a call.

- `mcp/`: revisions, methods, the ids on a child's pipe, and translation between the eras.
- `access/`: hosts, principals, tokens, rates and tools.
- `supervision/`: restarts, health, isolation, descriptors and all states.
"""
