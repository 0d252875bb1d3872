"""Decisions about children: restarts, health, isolation, limits of descriptors."""
