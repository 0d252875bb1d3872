"""What the bridge costs, measured; nothing here is imported by mcpbridge.

Reading order:

* `goals`: the program of `make bench`; every row of the table of goals, and whether it is met.
* `calls`, `bare`, `streams`, `lives`, `latency`, `crowd`, `turns`, `folder`, `images`: its parts.
* `bench`: what the parts need: programs, servers, loads.
* `peers`: the program of `make bench-peers`; other bridges under the same loads.
* `gate`: the program of `make bench-gate`; instructions per call against `instructions.json`.
* `patient`: the bridge that it counts, with longer time limits.
* `throughput`: rounds of one load, chosen by options, on the bridge and on a limit.
* `rounds`: loads on several targets in turns, and what each cost.
* `figures`: JSON lines and tables.
* `target`: a server under load as a process: started, found, greeted, stopped.
* `bare_asgi`: the limit, the same HTTP server under an application that decides nothing.
* `bare_protocol`, `bare_pipes`: the limits below it, of the client's side and of the child's.
* `prototype`: pipes and HTTP with nothing between them.
* `asgi`, `announced`: what these servers share.
* `load`: the load to put on a target and what came of it; runs one of the two generators.
* `load.c`, `load_fallback`: the generators, in C and in Python; they check every answer.
* `echo_child.c`, `echo_child`: the stdio server behind the bridge, in C and in Python.
* `scan.h`: the JSON reading the two C programs share.
* `compiled`: C programs made at run time.
* `measure`: processor time and memory of a process.
"""
