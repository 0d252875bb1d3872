"""Sessions of the legacy revisions: start, calls, streams, server requests and children."""
