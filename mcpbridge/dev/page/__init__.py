"""The page of `mcpbridge dev`: what passes to and from servers, live, for the developer alone."""
