"""Children: server processes that the bridge starts and ends.

`spec` says what to start and with which environment; `spawn` starts it and tells of its end;
`child` is one running process from its spawn to its report, `dialled` one that somebody else starts
at the other end of a connection, `base` what the two have in common; `relay` joins a process to
a connection, for those who are that somebody; `group` ends a process together with
everything it started, `household` what left its group; `keeper` and the program `_keeper` see to it
that nothing outlives a bridge that was killed; `linux` is what only one system offers; `oom` tells
who died for want of memory; `stderr` keeps what a child says to people.
"""
