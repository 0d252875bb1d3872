"""The face towards clients.

`endpoint` takes every request to its place; `guard` looks at Host, Origin and size before anything
else; `stateful` serves the handshake revisions; `responses` writes JSON answers, event streams and
errors; `keepalive` shows signs of life on open streams; `admin` answers health probes.
"""
