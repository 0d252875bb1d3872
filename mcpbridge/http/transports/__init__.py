"""The transports of MCP over HTTP: Streamable HTTP of both eras, and HTTP+SSE."""
