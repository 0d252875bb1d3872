"""The command line: one module for each program, and the only prints.

`main` is the entry point: it reads the first word. `serve` is the bridge itself and runs if no
other program is named; `health` asks a running bridge for its health; `shim` is the other end of a
bridge's connection; `sidecar` counts the requests to a server; `doctor` examines a server or
endpoint; `copy_self` copies the program. Each has a function `program` that makes its click
command.
"""
