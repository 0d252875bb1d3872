"""What the official conformance suite asks a server to offer, made with the Python SDK 1.x.

`server_referees.py` speaks stdio; `server_referees.py --http` serves the same over the SDK's own
Streamable HTTP on a free port of 127.0.0.1, which is the first line it prints. Names, texts and
schemas are those that the suite's scenarios describe.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import logging
import re
import socket
import struct
import wave
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp.types as types
from mcp.server.lowlevel import Server
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.models import InitializationOptions
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import McpError
from pydantic import AnyUrl

STEP_S = 0.05
# Longer than a bridge waits before it streams, and the age at which it ends a connection, in all.
RECONNECTION_S = 3.0
RETRY_MS = 100


class Subscribable(Server):
    """Says that resources can be subscribed to and that lists change, as the SDK's never does."""

    def create_initialization_options(self, *args: Any, **kwargs: Any) -> InitializationOptions:
        options = super().create_initialization_options(*args, **kwargs)
        options.capabilities.resources.subscribe = True
        options.capabilities.tools.listChanged = True
        options.capabilities.prompts.listChanged = True
        return options


server = Subscribable("referees", version="1.0")


def _png() -> bytes:
    """One red pixel."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\0\0")
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _wav() -> bytes:
    """A hundredth of a second of silence."""
    made = io.BytesIO()
    with wave.open(made, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(160))
    return made.getvalue()


PNG = base64.b64encode(_png()).decode()
WAV = base64.b64encode(_wav()).decode()


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


def _image() -> types.ImageContent:
    return types.ImageContent(type="image", data=PNG, mimeType="image/png")


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> types.EmbeddedResource:
    held = types.TextResourceContents(uri=AnyUrl(uri), mimeType=mime_type, text=text)
    return types.EmbeddedResource(type="resource", resource=held)


# Tools ------------------------------------------------------------------------------------------


async def simple_text(_: dict[str, Any]) -> list[Any]:
    return [_text("This is a simple text response for testing.")]


async def image_content(_: dict[str, Any]) -> list[Any]:
    return [_image()]


async def audio_content(_: dict[str, Any]) -> list[Any]:
    return [types.AudioContent(type="audio", data=WAV, mimeType="audio/wav")]


async def embedded_resource(_: dict[str, Any]) -> list[Any]:
    return [_embedded("test://embedded-resource", "This is an embedded resource content.")]


async def multiple_content_types(_: dict[str, Any]) -> list[Any]:
    mixed = json.dumps({"test": "data", "value": 123})
    return [
        _text("Multiple content types test:"),
        _image(),
        _embedded("test://mixed-content-resource", mixed, "application/json"),
    ]


async def with_logging(_: dict[str, Any]) -> list[Any]:
    context = server.request_context
    for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.session.send_log_message(
            "info", said, "referees", related_request_id=context.request_id
        )
        await anyio.sleep(STEP_S)
    return [_text("logged three times")]


async def error_handling(_: dict[str, Any]) -> list[Any]:
    raise RuntimeError("This tool intentionally returns an error for testing")


async def with_progress(_: dict[str, Any]) -> list[Any]:
    context = server.request_context
    token = context.meta.progressToken if context.meta else None
    for done in (0, 50, 100):
        if token is not None:
            await context.session.send_progress_notification(
                token, done, 100, related_request_id=str(context.request_id)
            )
        await anyio.sleep(STEP_S)
    return [_text(f"progress was told under {token!r}")]


async def sampling(arguments: dict[str, Any]) -> list[Any]:
    context = server.request_context
    asked = types.SamplingMessage(role="user", content=_text(arguments["prompt"]))
    answer = await context.session.create_message(
        [asked], max_tokens=100, related_request_id=context.request_id
    )
    return [_text(f"LLM response: {answer.content.text}")]


async def _elicit(message: str, properties: dict[str, Any], required: list[str]) -> list[Any]:
    context = server.request_context
    schema = {"type": "object", "properties": properties, "required": required}
    answer = await context.session.elicit(message, schema, context.request_id)
    said = json.dumps(answer.content)
    return [_text(f"Elicitation completed: action={answer.action}, content={said}")]


async def elicitation(arguments: dict[str, Any]) -> list[Any]:
    properties = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    return await _elicit(arguments["message"], properties, ["username", "email"])


async def elicitation_defaults(_: dict[str, Any]) -> list[Any]:
    states = ["active", "inactive", "pending"]
    properties = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": states, "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return await _elicit("Every field has a default", properties, [])


async def elicitation_enums(_: dict[str, Any]) -> list[Any]:
    plain = ["option1", "option2", "option3"]
    titled = [
        {"const": f"value{number}", "title": f"{name} Option"}
        for number, name in enumerate(("First", "Second", "Third"), start=1)
    ]
    legacy_titles = ["Option One", "Option Two", "Option Three"]
    properties = {
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": legacy_titles,
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return await _elicit("Choose of each kind", properties, [])


async def reconnection(_: dict[str, Any]) -> list[Any]:
    """Over its own HTTP it ends the connection itself; on a pipe that is up to the bridge."""
    close = server.request_context.close_sse_stream
    if close is not None:
        await close()
        await anyio.sleep(STEP_S)
    elif server.request_context.request is None:
        await anyio.sleep(RECONNECTION_S)
    return [_text("Reconnection test completed")]


async def json_schema(arguments: dict[str, Any]) -> list[Any]:
    return [_text(json.dumps(arguments))]


# What 2026-07-28 has a server ask for between two rounds, these ask for while they run.


async def _ask(message: str, name: str, kind: str = "string") -> Any:
    context = server.request_context
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    answer = await context.session.elicit(message, schema, context.request_id)
    return (answer.content or {}).get(name)


async def _sample(prompt: str, tokens: int) -> str:
    context = server.request_context
    asked = types.SamplingMessage(role="user", content=_text(prompt))
    answer = await context.session.create_message(
        [asked], max_tokens=tokens, related_request_id=context.request_id
    )
    return str(answer.content.text)


async def ask_name(_: dict[str, Any]) -> list[Any]:
    return [_text(f"Hello, {await _ask('What is your name?', 'name')}!")]


async def ask_model(_: dict[str, Any]) -> list[Any]:
    return [_text(await _sample("What is the capital of France?", 100))]


async def ask_roots(_: dict[str, Any]) -> list[Any]:
    found = await server.request_context.session.list_roots()
    return [_text(", ".join(str(root.uri) for root in found.roots))]


async def ask_confirmation(_: dict[str, Any]) -> list[Any]:
    await _ask("Please confirm", "ok", "boolean")
    return [_text("state-ok")]


async def ask_three(_: dict[str, Any]) -> list[Any]:
    async with anyio.create_task_group() as together:
        together.start_soon(_ask, "What is your name?", "name")
        together.start_soon(_sample, "Generate a greeting", 50)
        together.start_soon(server.request_context.session.list_roots)
    return [_text("all three were answered")]


async def ask_twice(_: dict[str, Any]) -> list[Any]:
    await _ask("Step 1: What is your name?", "name")
    return [_text(f"{await _ask('Step 2: What is your favorite color?', 'color')} it is")]


async def ask_what_is_offered(_: dict[str, Any]) -> list[Any]:
    session = server.request_context.session
    if session.check_client_capability(
        types.ClientCapabilities(elicitation=types.ElicitationCapability())
    ):
        return await ask_name({})
    return [_text(await _sample("Say something", 50))]


async def change_tools(_: dict[str, Any]) -> list[Any]:
    await server.request_context.session.send_tool_list_changed()
    return [_text("the tools changed")]


async def change_prompts(_: dict[str, Any]) -> list[Any]:
    await server.request_context.session.send_prompt_list_changed()
    return [_text("the prompts changed")]


waiting: set[object] = set()


async def wait(_: dict[str, Any]) -> list[Any]:
    """Only a cancellation ends it."""
    call = object()
    waiting.add(call)
    try:
        await anyio.sleep_forever()
    finally:
        waiting.discard(call)
    return []


async def count_waiting(_: dict[str, Any]) -> list[Any]:
    return [_text(str(len(waiting)))]


def _takes(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


TEXT = {"type": "string"}
# Every keyword of 2020-12 that a careless copy of a schema might lose.
JSON_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": TEXT, "city": TEXT},
        }
    },
    "properties": {
        "name": TEXT,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": TEXT,
        "email": TEXT,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}

Tool = Callable[[dict[str, Any]], Awaitable[list[Any]]]
TOOLS: dict[str, tuple[Tool, dict[str, Any]]] = {
    "test_simple_text": (simple_text, _takes()),
    "test_image_content": (image_content, _takes()),
    "test_audio_content": (audio_content, _takes()),
    "test_embedded_resource": (embedded_resource, _takes()),
    "test_multiple_content_types": (multiple_content_types, _takes()),
    "test_tool_with_logging": (with_logging, _takes()),
    "test_error_handling": (error_handling, _takes()),
    "test_tool_with_progress": (with_progress, _takes()),
    "test_sampling": (sampling, _takes(prompt=TEXT)),
    "test_elicitation": (elicitation, _takes(message=TEXT)),
    "test_elicitation_sep1034_defaults": (elicitation_defaults, _takes()),
    "test_elicitation_sep1330_enums": (elicitation_enums, _takes()),
    "test_reconnection": (reconnection, _takes()),
    "json_schema_2020_12_tool": (json_schema, JSON_SCHEMA),
    "wait": (wait, _takes()),
    "waiting": (count_waiting, _takes()),
    "test_logging_tool": (with_logging, _takes()),
    "test_streaming_elicitation": (ask_name, _takes()),
    "test_input_required_result_elicitation": (ask_name, _takes()),
    "test_input_required_result_sampling": (ask_model, _takes()),
    "test_input_required_result_list_roots": (ask_roots, _takes()),
    "test_input_required_result_request_state": (ask_confirmation, _takes()),
    "test_input_required_result_tampered_state": (ask_confirmation, _takes()),
    "test_input_required_result_multiple_inputs": (ask_three, _takes()),
    "test_input_required_result_multi_round": (ask_twice, _takes()),
    "test_input_required_result_capabilities": (ask_what_is_offered, _takes()),
    "test_trigger_tool_change": (change_tools, _takes()),
    "test_trigger_prompt_change": (change_prompts, _takes()),
    "test_header_parameter": (json_schema, _takes(region={**TEXT, "x-mcp-header": "Region"})),
}


@server.list_tools()
async def list_tools() -> list[types.Tool]:
    return [
        types.Tool(name=name, description=f"For the scenarios that call {name}", inputSchema=takes)
        for name, (_, takes) in TOOLS.items()
    ]


@server.call_tool()
async def call_tool(name: str, arguments: dict[str, Any]) -> list[Any]:
    if name not in TOOLS:
        raise ValueError(f"no tool {name!r}")
    return await TOOLS[name][0](arguments)


# Resources --------------------------------------------------------------------------------------

RESOURCES = {
    "test://static-text": ("static-text", "text/plain"),
    "test://static-binary": ("static-binary", "image/png"),
    "test://watched-resource": ("watched-resource", "text/plain"),
}
TEMPLATE = "test://template/{id}/data"


@server.list_resources()
async def list_resources() -> list[types.Resource]:
    return [
        types.Resource(
            uri=AnyUrl(uri), name=name, description=f"The resource {name}", mimeType=mime_type
        )
        for uri, (name, mime_type) in RESOURCES.items()
    ]


@server.list_resource_templates()
async def list_resource_templates() -> list[types.ResourceTemplate]:
    return [
        types.ResourceTemplate(
            uriTemplate=TEMPLATE,
            name="template",
            description="Holds the id of its address",
            mimeType="application/json",
        )
    ]


@server.read_resource()
async def read_resource(uri: AnyUrl) -> list[ReadResourceContents]:
    match str(uri):
        case "test://static-text":
            text = "This is the content of the static text resource."
            return [ReadResourceContents(content=text, mime_type="text/plain")]
        case "test://static-binary":
            return [ReadResourceContents(content=_png(), mime_type="image/png")]
        case "test://watched-resource":
            return [ReadResourceContents(content="watched", mime_type="text/plain")]
        case other:
            found = re.fullmatch(r"test://template/([^/]+)/data", other)
            if found is None:
                missing = types.ErrorData(
                    code=-32002, message="Resource not found", data={"uri": other}
                )
                raise McpError(missing)
            held = {"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"}
            return [ReadResourceContents(json.dumps(held), mime_type="application/json")]


@server.subscribe_resource()
async def subscribe(_: AnyUrl) -> None:
    """Nothing here ever changes."""


@server.unsubscribe_resource()
async def unsubscribe(_: AnyUrl) -> None:
    """Nothing here ever changes."""


# Prompts, completion, logging -------------------------------------------------------------------

PROMPTS: dict[str, tuple[str, ...]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}


@server.list_prompts()
async def list_prompts() -> list[types.Prompt]:
    return [
        types.Prompt(
            name=name,
            description=f"For the scenarios that get {name}",
            arguments=[
                types.PromptArgument(name=each, description=f"Its {each}", required=True)
                for each in arguments
            ],
        )
        for name, arguments in PROMPTS.items()
    ]


def _prompted(name: str, given: dict[str, str]) -> list[Any]:
    match name:
        case "test_simple_prompt":
            return [_text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            words = f"arg1='{given['arg1']}', arg2='{given['arg2']}'"
            return [_text(f"Prompt with arguments: {words}")]
        case "test_prompt_with_embedded_resource":
            content = "Embedded resource content for testing."
            instruction = "Please process the embedded resource above."
            return [_embedded(given["resourceUri"], content), _text(instruction)]
        case "test_prompt_with_image":
            return [_image(), _text("Please analyze the image above.")]
        case _:
            raise ValueError(f"no prompt {name!r}")


@server.get_prompt()
async def get_prompt(name: str, arguments: dict[str, str] | None) -> types.GetPromptResult:
    if name == "test_input_required_result_prompt":
        said = await _ask("What context should the prompt use?", "context")
        contents = [_text(f"Given that {said}")]
    else:
        contents = _prompted(name, arguments or {})
    return types.GetPromptResult(
        messages=[types.PromptMessage(role="user", content=content) for content in contents]
    )


@server.completion()
async def complete(
    _ref: types.PromptReference | types.ResourceTemplateReference,
    argument: types.CompletionArgument,
    _context: types.CompletionContext | None,
) -> types.Completion:
    found = [word for word in ("test", "testing", "tea") if word.startswith(argument.value)]
    return types.Completion(values=found, total=len(found), hasMore=False)


@server.set_logging_level()
async def set_level(_: types.LoggingLevel) -> None:
    """What it logs is of level info, which no scenario silences."""


# Transports -------------------------------------------------------------------------------------


class Events(EventStore):
    """Every event there was, which makes the SDK's own streams resumable."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, types.JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: types.JSONRPCMessage | None) -> str:
        self._kept.append((stream_id, message))
        return str(len(self._kept) - 1)

    async def replay_events_after(
        self, last_event_id: str, send_callback: EventCallback
    ) -> str | None:
        place = int(last_event_id)
        stream = self._kept[place][0]
        for number, (of, message) in enumerate(self._kept[place + 1 :], start=place + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


async def serve_stdio() -> None:
    async with stdio_server() as (received, sent):
        await server.run(received, sent, server.create_initialization_options())


def serve_http() -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Route

    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=["127.0.0.1:*", "localhost:*"],
        allowed_origins=["http://127.0.0.1:*", "http://localhost:*"],
    )
    manager = StreamableHTTPSessionManager(
        server, event_store=Events(), security_settings=security, retry_interval=RETRY_MS
    )

    class Endpoint:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await manager.handle_request(scope, receive, send)

    @contextlib.asynccontextmanager
    async def running(_app: Starlette):
        async with manager.run():
            yield

    app = Starlette(routes=[Route("/mcp", endpoint=Endpoint())], lifespan=running)
    # It logs every stream that a client leaves as an error, which the suites' clients always do.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", action="store_true")
    if parser.parse_args().http:
        serve_http()
    else:
        anyio.run(serve_stdio)
