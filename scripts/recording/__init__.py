"""The terminal recording in README."""
