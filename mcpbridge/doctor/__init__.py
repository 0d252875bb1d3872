"""`mcpbridge doctor`: examines a server or an endpoint and says what to change.

- `server/`: starts a command and examines it on its pipes.
- `endpoint/`: asks a running endpoint as its clients and operators do.
"""
