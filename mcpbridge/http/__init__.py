"""The face towards clients.

`endpoint` takes every request to its place; `guard` looks at Host, Origin and size before anything
else, and before it `cors` sees to what pages may read; `incoming` and `bodies` read a request;
`streamable` tells the eras apart on the MCP path: `stateful` serves the handshake revisions,
`stateless` the revision 2026-07-28; `legacy_sse` serves the two paths of 2024-11-05; `responses`
writes JSON answers, event streams and errors; `keepalive` shows signs of life on open streams;
`admin` answers health probes and scrapes, with `probes`, `metered` counts; `relay` is the reverse
proxy of `mcpbridge sidecar`; `door` asks who calls and how much that one may: by `auth`, what tells
clients apart, of which `bearer` knows the operator's tokens and `oauth` those of an authorization
server; `headerenv` takes from headers what is for a client's own processes; `protocol` is uvicorn's
own with what is slow cut off; `tls` has the certificate that is shown.
"""
