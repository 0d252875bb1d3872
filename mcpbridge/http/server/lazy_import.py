"""Imports uvicorn and Starlette without the modules that a server here does not need.

All that both import at once would take 2 MiB more. The programs import both by this module before
anything else does; in another program, as with `asgi.bridge_app`, they stay whole.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader, spec_from_file_location
from types import ModuleType
from typing import Any

_LATE = frozenset(
    (
        "html",  # Starlette's page for errors in debug mode; with a table of 2231 entities
        "http.cookies",  # no route sets a cookie, or reads one
        "logging.config",  # uvicorn configures no logs here; with `pickle` and `socketserver`
        "calendar",  # dates in mail that is read
        "locale",  # `subprocess` in text mode
        "bz2",  # `shutil` looks only whether they are there
        "lzma",
    )
)
"""Modules that are loaded when something is asked of them."""
LEFT_OUT = (
    # Its command line, and the further processes that this may start: with `multiprocessing` and,
    # if it is installed, `watchfiles`.
    "uvicorn.main",
    "uvicorn.supervisors",
    # A kind of its configuration of logs.
    "configparser",
    # Forms, which no route takes; with `tempfile`.
    "starlette.formparsers",
)
"""Modules whose names are taken from them at once, so that they cannot be loaded late."""


class _LateFinder:
    """A finder of the modules that are loaded late."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to load a module; None if it is not one of them."""
        spec = PathFinder.find_spec(name, path, target) if name in _LATE else None
        if spec is None or spec.loader is None:
            return None
        folders = spec.submodule_search_locations
        late = LazyLoader(spec.loader)
        return spec_from_file_location(
            name, spec.origin, loader=late, submodule_search_locations=folders
        )


class _Placeholder(ModuleType):
    """A module that has a class of every name, since later versions may import other ones."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import asks for some, to see whether this is a package
            raise AttributeError(name)
        return type(name, (), {})


def import_libraries() -> None:
    """Import uvicorn and Starlette, if that is not done yet.

    Afterwards what was left out can be imported.
    """
    if "uvicorn" in sys.modules or "starlette" in sys.modules:
        return
    finder = _LateFinder()
    sys.meta_path.insert(0, finder)
    missing = [name for name in LEFT_OUT if name not in sys.modules]
    sys.modules.update((name, _Placeholder(name)) for name in missing)
    try:
        # Whatever imports them later finds them.
        import shutil  # noqa: F401

        import starlette.applications  # noqa: F401
        import uvicorn.server  # noqa: F401
    finally:
        for name in missing:
            del sys.modules[name]
        sys.meta_path.remove(finder)
