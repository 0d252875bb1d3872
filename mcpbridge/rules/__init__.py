"""Every decision, pure: no clock (time arrives as `now`), no I/O, no logging, no randomness.

`faults` is what a client is told when the bridge cannot answer, `outcome` how a call ended,
`event_log` the record of one stream, `trace_context` which trace a call belongs to.

- `mcp/`: revisions, methods, the ids on a child's pipe, and translation between the eras.
- `access/`: hosts, principals, tokens, rates and tools.
- `supervision/`: restarts, health, isolation, descriptors and all states.
"""
