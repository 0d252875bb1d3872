"""Imports uvicorn without its supervisors, which start further processes for its command line.

`import uvicorn` imports all of that command line, so `multiprocessing` and, if it is installed,
`watchfiles`: 3 % of the instructions of a start, and 1.9 MiB. The programs here use the server
alone. They import uvicorn by this module before anything else does; in another program, as with
`asgi.bridge_app`, uvicorn stays whole.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_SUPERVISORS = "uvicorn.supervisors"


class _Placeholder(ModuleType):
    """A module that has a class of every name, since later versions may import other ones."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import asks for some, to see whether this is a package
            raise AttributeError(name)
        return type(name, (), {})


def import_uvicorn() -> None:
    """Import uvicorn, if it is not imported yet; afterwards its supervisors can be imported."""
    if "uvicorn" in sys.modules:
        return
    sys.modules[_SUPERVISORS] = _Placeholder(_SUPERVISORS)
    try:
        import uvicorn  # noqa: F401 - what imports it later finds it
    finally:
        del sys.modules[_SUPERVISORS]
