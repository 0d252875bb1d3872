"""Children: server processes that the bridge starts and ends.

`child` is the interface of a process and of a connection to one: `subprocess_child` is a process of
the bridge, `socket_child` one that another program starts at the other end of a connection. `spec`
says what to start, `run_as` as which user, `spawn` starts it and signals its group; `process_tree`
finds processes that left their group; `reaper` and its program `_reaper` end what is left after the
bridge was killed. `linux` has what only Linux offers, `windows` what only Windows needs, `memory`
reads a child's footprint and the kernel's OOM kills, `stderr` logs a child's stderr.
"""
