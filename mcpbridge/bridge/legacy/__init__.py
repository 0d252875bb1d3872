"""Sessions of the legacy revisions: their start, their calls, their streams and their children."""
