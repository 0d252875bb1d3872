"""Streams of messages with one peer.

`channel` defines what a channel is; `pipes` connects to a child's stdin and stdout; `sockets` makes
a channel of a connection; `memory` is a connected pair for tests and for children that live in this
process; `threaded_files` uses pipes that no event loop can watch; `off_loop` reads long texts in a
worker thread.
"""
