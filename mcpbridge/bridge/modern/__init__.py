"""Requests of revision 2026-07-28: passed through to a modern child, emulated on a legacy one."""
