"""`mcpbridge doctor -- COMMAND`: starts a server on its pipes and examines it."""
