"""Telling what happens: `logs` writes records to stderr, `meters` counts."""
