"""Requests of revision 2026-07-28: passed on to a modern child, or emulated on a legacy one."""
