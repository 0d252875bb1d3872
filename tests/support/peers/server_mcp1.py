"""A stdio server made with the low-level part of the Python SDK 1.x.

`server_mcp1.py` speaks stdio; `server_mcp1.py --http PORT` serves the same over the SDK's own
Streamable HTTP, which tells a client's fault from a bridge's. Its tools: echo, add, countdown
(progress), slow (silence), fail, log, pid; the three that put a question to the client: ask,
sample, roots; wait (until it is cancelled), ended (how it was), ping_client, big (an answer after
progress) and change (of an item that may be subscribed to).
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
    "wait": _takes(label=TEXT),
    "ended": _takes(label=TEXT),
    "ping_client": _takes(),
    "big": _takes(size=NUMBER),
    "change": _takes(name=TEXT, text=TEXT),
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
    if LEVELS.index("warning") >= LEVELS.index(level["least"]):
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


async def _tell_progress() -> None:
    context = server.request_context
    if context.meta and context.meta.progressToken is not None:
        await context.session.send_progress_notification(
            context.meta.progressToken, 0, 1, related_request_id=str(context.request_id)
        )


# One process serves one session or several that share it, and labels and names are theirs alone.
cancelled: dict[str, anyio.Event] = {}
items: dict[str, str] = {}
subscribed: set[str] = set()
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
level = {"least": "debug"}
ENDED_WITHIN_S = 10


async def _wait(label: str) -> Any:
    ended = cancelled.setdefault(label, anyio.Event())
    await _tell_progress()
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        ended.set()
        raise


async def _ended(label: str) -> Any:
    with anyio.move_on_after(ENDED_WITHIN_S):
        await cancelled[label].wait()
        return _text("cancelled")
    return _text("still waiting")


async def _ping_client() -> Any:
    await server.request_context.session.send_ping()
    return _text("pong")


async def _big(size: float) -> Any:
    await _tell_progress()
    return _text("x" * int(size))


async def _change(name: str, text: str) -> Any:
    uri = f"peer://item/{name}"
    items[name] = text
    if uri in subscribed:
        await server.request_context.session.send_resource_updated(AnyUrl(uri))
    return _text("changed")


@server.subscribe_resource()
async def subscribe(uri: AnyUrl) -> None:
    subscribed.add(str(uri))


@server.unsubscribe_resource()
async def unsubscribe(uri: AnyUrl) -> None:
    subscribed.discard(str(uri))


@server.set_logging_level()
async def set_level(least: types.LoggingLevel) -> None:
    level["least"] = least


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
            held = items.get(item[12:], f"item {item[12:]}")
            return [ReadResourceContents(content=held, mime_type="text/plain")]
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
    options = server.create_initialization_options()
    # The SDK denies subscriptions whether or not a function serves them.
    assert options.capabilities.resources is not None
    options.capabilities.resources.subscribe = True
    async with stdio_server() as (received, sent):
        await server.run(received, sent, options)


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
