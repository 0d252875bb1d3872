"""One session with a remote server.

In reading order: `faults` (the errors that a client gets), `remote_http` (requests with the
operator's headers), `request_headers`, the two transports `streamable_session` and `sse_session`.
"""
