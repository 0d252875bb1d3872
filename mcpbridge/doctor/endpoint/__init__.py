"""`mcpbridge doctor URL`: examines a running endpoint as its clients see it."""
