"""Decisions about children: restarts, health, isolation, and limits on descriptors and memory."""
