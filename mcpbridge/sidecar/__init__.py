"""`mcpbridge sidecar`: an HTTP proxy in front of an MCP server that speaks HTTP itself.

`program` runs it, `proxy` passes requests on to `upstream`, `inspect` reads what passes, and
`metrics` counts it.
"""
