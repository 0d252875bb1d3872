"""A stdio server made with the low-level part of the Python SDK 1.x.

`server_mcp1.py` speaks stdio; `server_mcp1.py --http PORT` serves the same over the SDK's own
Streamable HTTP, which tells a client's fault from a bridge's. Its tools: echo, add, countdown
(progress), slow (silence), fail, log, pid; and the three that put a question to the client: ask,
sample, roots.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import Any

import anyio
import mcp.types as types
from mcp.server.lowlevel import Server
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from pydantic import AnyUrl

server = Server("peer-mcp1", version="1.0", instructions="low-level server of the SDK 1.x")

NUMBER = {"type": "number"}
TEXT = {"type": "string"}


def _takes(**properties: dict[str, str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


TOOLS = {
    "echo": _takes(text=TEXT),
    "add": _takes(a=NUMBER, b=NUMBER),
    "countdown": _takes(seconds=NUMBER, steps=NUMBER),
    "slow": _takes(seconds=NUMBER),
    "fail": _takes(message=TEXT),
    "log": _takes(message=TEXT),
    "pid": _takes(),
    "ask": _takes(question=TEXT),
    "sample": _takes(prompt=TEXT),
    "roots": _takes(),
}
OUTPUTS = {"add": _takes(sum=NUMBER)}


@server.list_tools()
async def list_tools() -> list[types.Tool]:
    return [
        types.Tool(name=name, inputSchema=takes, outputSchema=OUTPUTS.get(name))
        for name, takes in TOOLS.items()
    ]


def _text(text: str) -> list[types.TextContent]:
    return [types.TextContent(type="text", text=text)]


@server.call_tool()
async def call_tool(name: str, arguments: dict[str, Any]) -> Any:
    if name not in TOOLS:
        raise ValueError(f"no tool {name!r}")
    return await globals()[f"_{name}"](**arguments)


async def _echo(text: str) -> Any:
    return _text(text)


async def _add(a: float, b: float) -> Any:
    return _text(str(a + b)), {"sum": a + b}


async def _countdown(seconds: float, steps: float) -> Any:
    context = server.request_context
    token = context.meta.progressToken if context.meta else None
    for step in range(int(steps)):
        if token is not None:
            await context.session.send_progress_notification(
                token, step, steps, f"{steps - step} to go", str(context.request_id)
            )
        await anyio.sleep(seconds / steps)
    return _text("liftoff")


async def _slow(seconds: float) -> Any:
    await anyio.sleep(seconds)
    return _text("rested")


async def _fail(message: str) -> Any:
    raise ValueError(message)


async def _log(message: str) -> Any:
    await server.request_context.session.send_log_message("warning", message, logger="peer")
    return _text("logged")


async def _pid() -> Any:
    return _text(str(os.getpid()))


async def _ask(question: str) -> Any:
    context = server.request_context
    answer = await context.session.elicit(question, _takes(answer=TEXT), context.request_id)
    return _text(f"{answer.action}: {(answer.content or {}).get('answer')}")


async def _sample(prompt: str) -> Any:
    context = server.request_context
    said = await context.session.create_message(
        [types.SamplingMessage(role="user", content=_text(prompt)[0])],
        max_tokens=10,
        related_request_id=context.request_id,
    )
    return _text(said.content.text)


async def _roots() -> Any:
    listed = await server.request_context.session.list_roots()
    return _text(" ".join(str(root.uri) for root in listed.roots))


PAGES = {
    None: ("peer://greeting", "second page"),
    "second page": ("peer://bytes", None),
}


@server.list_resources()
async def list_resources(request: types.ListResourcesRequest) -> types.ListResourcesResult:
    """One resource on a page, so that cursors travel."""
    uri, following = PAGES[request.params.cursor if request.params else None]
    resource = types.Resource(uri=AnyUrl(uri), name=uri.rpartition("/")[2])
    return types.ListResourcesResult(resources=[resource], nextCursor=following)


@server.list_resource_templates()
async def list_resource_templates() -> list[types.ResourceTemplate]:
    return [types.ResourceTemplate(uriTemplate="peer://item/{name}", name="item")]


@server.read_resource()
async def read_resource(uri: AnyUrl) -> list[ReadResourceContents]:
    match str(uri):
        case "peer://greeting":
            return [ReadResourceContents(content="good day", mime_type="text/plain")]
        case "peer://bytes":
            return [ReadResourceContents(content=bytes(range(256)), mime_type="image/png")]
        case item if item.startswith("peer://item/"):
            return [ReadResourceContents(content=f"item {item[12:]}", mime_type="text/plain")]
        case other:
            raise ValueError(f"no resource {other}")


@server.list_prompts()
async def list_prompts() -> list[types.Prompt]:
    topic = types.PromptArgument(name="topic", required=True)
    return [types.Prompt(name="summarize", arguments=[topic])]


@server.get_prompt()
async def get_prompt(name: str, arguments: dict[str, str] | None) -> types.GetPromptResult:
    if name != "summarize":
        raise ValueError(f"no prompt {name!r}")
    words = types.TextContent(type="text", text=f"Summarize {(arguments or {})['topic']}.")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=words)])


@server.completion()
async def complete(
    _ref: types.PromptReference | types.ResourceTemplateReference,
    argument: types.CompletionArgument,
    _context: types.CompletionContext | None,
) -> types.Completion:
    found = [topic for topic in ("bees", "beans", "tea") if topic.startswith(argument.value)]
    return types.Completion(values=found, total=len(found), hasMore=False)


async def serve_stdio() -> None:
    async with stdio_server() as (received, sent):
        await server.run(received, sent, server.create_initialization_options())


def serve_http(port: int) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount

    manager = StreamableHTTPSessionManager(server)

    @contextlib.asynccontextmanager
    async def running(_app: Starlette):
        async with manager.run():
            yield

    app = Starlette(routes=[Mount("/", app=manager.handle_request)], lifespan=running)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", type=int, metavar="PORT")
    port = parser.parse_args().http
    if port is None:
        anyio.run(serve_stdio)
    else:
        serve_http(port)
