"""HTTP as a client of MCP servers: `http_client` sends requests and reads event streams."""
