"""The HTTP server: listeners, connections, their limits, TLS and the fast path."""
