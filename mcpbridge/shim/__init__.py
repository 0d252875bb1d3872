"""`mcpbridge shim`: the stdio of a process over a socket, for a bridge elsewhere."""
