"""A server made with FastMCP: `fastmcp_server.py` on stdio, `fastmcp_server.py PORT` over HTTP."""

from __future__ import annotations

import sys

from fastmcp import FastMCP

server = FastMCP("echo")


@server.tool
def echo(text: str) -> str:
    """Return the text."""
    return text


if __name__ == "__main__":
    if len(sys.argv) > 1:
        words = {"transport": "http", "host": "127.0.0.1", "port": int(sys.argv[1])}
        server.run(**words, show_banner=False)
    else:
        server.run(show_banner=False)
