"""An MCP server that works on one call at a time, and takes a while for each.

Usage: `serial.py SECONDS`. `x/work` has its params as its result.
"""

import sys
import time
from typing import Any

from _mcp import answer, serve  # type: ignore[import-not-found]


def work(request_id: Any, params: Any) -> None:
    """Answer after a while in which nothing else is read."""
    time.sleep(float(sys.argv[1]))  # the duration of a call is what this program is for
    answer(request_id, params)


if __name__ == "__main__":
    serve({"x/work": work})
