"""`mcpbridge shim`: stdio of a process that runs elsewhere, over a socket."""
