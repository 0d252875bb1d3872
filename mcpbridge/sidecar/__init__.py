"""`mcpbridge sidecar`: an HTTP proxy in front of an MCP server that speaks HTTP itself."""
