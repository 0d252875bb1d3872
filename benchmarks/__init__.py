"""What the bridge costs, measured; nothing here is imported by mcpbridge.

Reading order:

* `throughput`: the program; rounds of one load on the bridge and on a limit, and their figures.
* `target`: a server under load as a process: started, found, greeted, stopped.
* `bare_asgi`: the limit, the same HTTP server under an application that decides nothing.
* `load`: the load to put on a target and what came of it; runs one of the two generators.
* `load.c`, `load_fallback`: the generators, in C and in Python; they check every answer.
* `echo_child.c`, `echo_child`: the stdio server behind the bridge, in C and in Python.
* `scan.h`: the JSON reading the two C programs share.
* `compiled`: C programs made at run time.
* `measure`: processor time and memory of a process.
"""
