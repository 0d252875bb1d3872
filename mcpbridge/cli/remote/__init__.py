"""The commands that reach a server elsewhere: `connect`, `login`, `list` and `call`."""
