"""`mcpbridge doctor`: examines a server or an endpoint and says what to change.

- `server/`: starts a command and examines it on its pipes.
- `endpoint/`: sends a running endpoint the requests of its clients and operators.
"""
