"""mcpbridge: serves a stdio MCP server over HTTP to many clients.

Read it from the bottom: `wire` (bytes and messages), `rules` (every decision, pure),
`channels` and `process` (pipes and children), `bridge` (sessions, calls, children),
`http` (towards clients), `config`, the programs `app`, `doctor`, `shim` and `sidecar`, `cli`.
`mcpbridge.demo` is a small MCP server to try it with.
"""

__version__ = "0.1.0"
DISTRIBUTION = "mcpbridge"
"""The name by which pip installs it: `name` in pyproject.toml."""
