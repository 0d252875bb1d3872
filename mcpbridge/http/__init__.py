"""The face towards clients.

`endpoint` takes every request to its place; `guard` looks at Host, Origin and size before anything
else; `incoming` and `bodies` read a request; `stateful` serves the handshake revisions over
Streamable HTTP, `legacy_sse` over the two paths of 2024-11-05; `responses` writes JSON answers,
event streams and errors; `keepalive` shows signs of life on open streams; `admin` answers health
probes.
"""
