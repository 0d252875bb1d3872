"""A stdio server made with the FastMCP package.

`server_fastmcp.py` speaks stdio; `server_fastmcp.py --http PORT` serves the same over the
package's own Streamable HTTP. It has the tools, resources and prompt of `server_mcp1.py` under the
same names, as that package writes them.
"""

from __future__ import annotations

import argparse
import os

import anyio
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError

server = FastMCP("peer-fastmcp", version="1.0", instructions="server of the FastMCP package")


@server.tool
def echo(text: str) -> str:
    return text


@server.tool
def add(a: float, b: float) -> dict[str, float]:
    return {"sum": a + b}


@server.tool
async def countdown(seconds: float, steps: int, ctx: Context) -> str:
    for step in range(steps):
        await ctx.report_progress(step, steps, f"{steps - step} to go")
        await anyio.sleep(seconds / steps)
    return "liftoff"


@server.tool
async def slow(seconds: float) -> str:
    await anyio.sleep(seconds)
    return "rested"


@server.tool
def fail(message: str) -> str:
    raise ToolError(message)


@server.tool
async def log(message: str, ctx: Context) -> str:
    await ctx.warning(message, logger_name="peer")
    return "logged"


@server.tool
def pid() -> str:
    return str(os.getpid())


@server.tool
async def ask(question: str, ctx: Context) -> str:
    answer = await ctx.elicit(question, response_type=str)
    return f"{answer.action}: {getattr(answer, 'data', None)}"


@server.tool
async def sample(prompt: str, ctx: Context) -> str:
    said = await ctx.sample(prompt, max_tokens=10)
    return said.text or ""


@server.tool
async def roots(ctx: Context) -> str:
    return " ".join(str(root.uri) for root in await ctx.list_roots())


@server.resource("peer://greeting", mime_type="text/plain")
def greeting() -> str:
    return "good day"


@server.resource("peer://bytes", mime_type="image/png")
def every_byte() -> bytes:
    return bytes(range(256))


@server.resource("peer://item/{name}", mime_type="text/plain")
def item(name: str) -> str:
    return f"item {name}"


@server.prompt
def summarize(topic: str) -> str:
    return f"Summarize {topic}."


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int, metavar="PORT")
    port = parser.parse_args().http
    if port is None:
        server.run(transport="stdio", show_banner=False)
    else:
        server.run(transport="http", host="127.0.0.1", port=port, path="/mcp", show_banner=False)
