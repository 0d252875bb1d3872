"""Decisions about MCP: revisions, methods, correlation, and translation between the eras."""
