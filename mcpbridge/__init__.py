"""mcpbridge: serves a stdio MCP server over HTTP to many clients.

Read it from the bottom: `wire` (bytes and messages), `rules` (every decision, pure),
`channels` and `process` (pipes and children), `bridge` (sessions, exchanges, placement),
`http` (the face towards clients), `config`, `app` (the life of the program), `cli`.
`mcpbridge.demo` is a small MCP server to try it with.
"""

__version__ = "0.1.0"
