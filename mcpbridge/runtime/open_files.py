"""Raises the limit on open files of this process."""

from __future__ import annotations

_ENOUGH_FILES = 1 << 16
"""Not the hard limit: server processes inherit the limit, and some close every descriptor up to it
when they start."""
_WITHOUT_LIMIT = 4096
"""Used on Windows, which has no such limit."""


def raise_open_files() -> int:
    """Raise the limit on open files up to 65536, if the system allows it, and return the limit."""
    try:
        import resource
    except ImportError:
        return _WITHOUT_LIMIT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _ENOUGH_FILES
    wanted = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
    if wanted <= soft:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        # A kernel may have another limit below the hard one, as macOS does.
        return soft
    return wanted
