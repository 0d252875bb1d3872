"""The bridge, reporting each request that takes the ordinary path instead of the fast one.

Run as `python ordinary_path.py ...`; it writes a record `{"event": "test.ordinary", "method": M}`
to stderr for each such request.
"""

import json
import sys
from typing import Any

from mcpbridge.cli import main as cli
from mcpbridge.http.app import HttpApp

serve = HttpApp.__call__


async def told(self: Any, scope: Any, receive: Any, send: Any) -> None:
    """As before."""
    record = {"event": "test.ordinary", "method": scope.get("method")}
    print(json.dumps(record), file=sys.stderr, flush=True)
    await serve(self, scope, receive, send)


HttpApp.__call__ = told  # type: ignore[method-assign]
# What runs it puts the words of the usual command line behind it: an interpreter, -m, the package.
cli.main(sys.argv[4:])
