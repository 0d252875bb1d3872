"""Routes of single pages: probes, metrics and documents.

Starlette would answer a path with a slash too many by a redirect to `http://`, since behind a proxy
that ends TLS it knows no better; and a probe that follows no redirects would fail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from starlette.routing import BaseRoute, Route, Router


class PageRoute(Route):
    """One page, with or without a slash at the end of its path."""

    def __init__(self, path: str, endpoint: Any, **more: Any) -> None:
        """Make a route.

        Args:
            path: The path, as text and not as a pattern.
            endpoint: What answers; see Starlette's `Route`.
            more: Further arguments of Starlette's `Route`.
        """
        super().__init__(path, endpoint, **more)
        self.path_regex = re.compile(f"{re.escape(path)}/?\\Z")


def router_of(routes: Sequence[BaseRoute]) -> Router:
    """Return a router that never redirects."""
    return Router(routes, redirect_slashes=False)
