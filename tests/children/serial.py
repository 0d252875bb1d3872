"""An MCP server that works on one call at a time, and takes a while for each.

Usage: `serial.py SECONDS`. `x/work` has its params as its result; the tool `fetch` has a text of
that many bytes.
"""

import sys
import time
from typing import Any

from _mcp import answer, serve  # type: ignore[import-not-found]

SCHEMA = {"type": "object", "properties": {"bytes": {"type": "integer"}}}


def work(request_id: Any, params: Any) -> None:
    """Answer after a while in which nothing else is read."""
    time.sleep(float(sys.argv[1]))  # the duration of a call is what this program is for
    answer(request_id, params)


def fetch(request_id: Any, params: Any) -> None:
    """Answer a call of the tool after a while."""
    text = "x" * int(params["arguments"]["bytes"])
    work(request_id, {"content": [{"type": "text", "text": text}]})


def tools(request_id: Any, params: Any) -> None:
    """The only tool."""
    answer(request_id, {"tools": [{"name": "fetch", "inputSchema": SCHEMA}]})


if __name__ == "__main__":
    serve({"x/work": work, "tools/call": fetch, "tools/list": tools})
