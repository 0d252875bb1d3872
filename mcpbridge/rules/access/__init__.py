"""Decisions about access: hosts, principals, tokens, rates and tools."""
