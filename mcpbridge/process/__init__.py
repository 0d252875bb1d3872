"""Children: server processes that the bridge starts and ends.

`spec` says what to start and with which environment; `spawn` starts it and tells of its end;
`child` is one running process from its spawn to its report; `group` ends a process together with
everything it started; `stderr` keeps what a child says to people; `orphans` is what process 1
owes the rest of its container.
"""
