"""The command line: one module for each program, and the only prints.

`main` is the entry: it looks at the first word. `serve` is the bridge itself and what runs when no
other program is named; `health` asks a running one how it is; `shim` is the other end of
a bridge's connection; `sidecar` counts what passes it. Each has a function `program` that
makes its click command.
"""
