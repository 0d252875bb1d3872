"""Streams of messages with one peer.

`base` says what a channel is; `pipes` is the one to a child's stdin and stdout; `sockets` makes
one of a connection; `memory` is a connected pair for tests and for children that live in this
process.
"""
