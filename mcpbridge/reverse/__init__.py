"""`mcpbridge connect`, `list` and `call`: mcpbridge as the client of a remote MCP server.

In reading order: `faults` (the errors that a client gets), `remote_http` (requests with the
operator's headers), `request_headers`, the two transports `streamable_session` and `sse_session`,
`remote_client` (one client's sessions, begun again when the remote lost them), `stdio` (the
client's side), `program` (`connect`), `one_request` (`list` and `call`).
"""
