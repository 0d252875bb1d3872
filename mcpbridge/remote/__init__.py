"""Outgoing HTTP, imported only by what needs it: `upstream` is a server that requests go on to."""
