"""Outgoing HTTP, imported only by what needs it.

`upstream` is a server that requests go on to; `jwks` fetches and keeps the keys of an authorization
server, `keys` tells which of them made a signature (extra `mcpbridge[oauth]`).
"""
