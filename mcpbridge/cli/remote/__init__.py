"""The commands that reach a server elsewhere: `connect`, `list` and `call`."""
