"""mcpbridge as the client of a remote MCP server: `connect`, `list`, `call`, and `url` entries.

In reading order: `session` (one session with the server, over either transport), `client_calls`
(what is in flight), `client_state` and `remote_client` (one client's sessions, begun again when the
remote lost them), `stdio` (the client's side), `translation` (between the eras), `program`
(`connect`), `one_request` (`list` and `call`), `child` (a remote server behind a bridge).
"""
