"""`mcpbridge dev`: a server that is served while its program is changed."""
