"""The bundled example in a process as large as those of Python's frameworks for servers are."""

import runpy

KEPT = b"x" * (64 << 20)

runpy.run_module("mcpbridge.demo", run_name="__main__")
