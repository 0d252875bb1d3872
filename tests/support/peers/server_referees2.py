"""What the official conformance suite asks a server of every revision to offer, with the SDK 2.x.

`server_referees2.py` speaks stdio, in the era that the first message chooses;
`server_referees2.py --http` serves the same over the SDK's own Streamable HTTP on a free port of
127.0.0.1, or that of `--port`; its URL is the first line it prints. Names, texts and schemas are
those that the suite's scenarios describe. `--modern` refuses the handshake, as a server without it
does.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import logging
import re
import secrets
import socket
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import mcp_types as types
from mcp import MCPError
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPDeprecationWarning

# Sampling, roots and log levels are deprecated by 2026-07-28; the suites ask for them still.
warnings.filterwarnings("ignore", category=MCPDeprecationWarning)

MODERN = "2026-07-28"
STEP_S = 0.05
MISSING_CAPABILITY = -32021
INVALID_PARAMS = -32602

Json = dict[str, Any]
Context = ServerRequestContext[Any, Any]
Tool = Callable[[Context, types.CallToolRequestParams], Awaitable[Json]]

# One red pixel, and no sound at all.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="

bus = InMemorySubscriptionBus()
_KEY = secrets.token_bytes(32)


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _said(*content: Json) -> Json:
    return {"content": list(content)}


IMAGE: Json = {"type": "image", "data": PNG, "mimeType": "image/png"}


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> Json:
    held = {"uri": uri, "mimeType": mime_type, "text": text}
    return {"type": "resource", "resource": held}


# What is asked of a client, as an input request or as a separate request --------------------------


def _form(message: str, properties: Json, required: list[str] | None = None) -> Json:
    schema = {"type": "object", "properties": properties, "required": required or []}
    return {
        "method": "elicitation/create",
        "params": {"message": message, "requestedSchema": schema},
    }


def _asked_for(name: str, kind: str, message: str) -> Json:
    return _form(message, {name: {"type": kind}}, [name])


def _sampled(text: str, tokens: int) -> Json:
    message = {"role": "user", "content": _text(text)}
    return {
        "method": "sampling/createMessage",
        "params": {"messages": [message], "maxTokens": tokens},
    }


ROOTS: Json = {"method": "roots/list", "params": {}}


def _signed(word: str) -> str:
    return f"{word}.{hmac.new(_KEY, word.encode(), hashlib.sha256).hexdigest()}"


def _state_of(params: Any) -> str:
    """The word this server wrote into the state that comes back; refuses any other."""
    state = params.request_state
    if state is None:
        return ""
    word = state.partition(".")[0]
    if not hmac.compare_digest(_signed(word), state):
        raise MCPError(INVALID_PARAMS, "the state that came back is not this server's")
    return word


def _wants(requests: Mapping[str, Json], state: str | None = None) -> Json:
    wanted: Json = {"resultType": "input_required", "inputRequests": dict(requests)}
    return wanted if state is None else {**wanted, "requestState": _signed(state)}


def _answers(params: Any) -> Json:
    return {
        key: answer.model_dump(by_alias=True, mode="json", exclude_none=True)
        if hasattr(answer, "model_dump")
        else answer
        for key, answer in (params.input_responses or {}).items()
    }


def _content(answer: Json) -> Json:
    return answer.get("content") or {}


# Tools --------------------------------------------------------------------------------------------


def _plain(*content: Json) -> Tool:
    async def tool(_context: Context, _params: types.CallToolRequestParams) -> Json:
        return _said(*content)

    return tool


async def with_logging(context: Context, _: types.CallToolRequestParams) -> Json:
    for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.session.send_log_message(
            "info", said, "referees", related_request_id=context.request_id
        )
        await anyio.sleep(STEP_S)
    return _said(_text("logged three times"))


async def error_handling(_: Context, __: types.CallToolRequestParams) -> Json:
    return {**_said(_text("This tool intentionally returns an error for testing")), "isError": True}


async def with_progress(context: Context, _: types.CallToolRequestParams) -> Json:
    for done in (0, 50, 100):
        await context.session.report_progress(done, 100)
        await anyio.sleep(STEP_S)
    return _said(_text("progress was told"))


async def json_schema(_: Context, params: types.CallToolRequestParams) -> Json:
    return _said(_text(json.dumps(params.arguments)))


async def _one_answer(
    context: Context, params: types.CallToolRequestParams, request: Json, kind: type[Any]
) -> Json | None:
    """The client's answer, however its revision is asked; None while it has still to be asked."""
    if context.protocol_version == MODERN:
        return _answers(params).get("it")
    made = {
        "elicitation/create": types.ElicitRequest,
        "sampling/createMessage": types.CreateMessageRequest,
    }[request["method"]](**request)
    got = await context.session.send_request(made, kind)
    return got.model_dump(by_alias=True, mode="json", exclude_none=True)


async def sampling(context: Context, params: types.CallToolRequestParams) -> Json:
    request = _sampled((params.arguments or {})["prompt"], 100)
    answer = await _one_answer(context, params, request, types.CreateMessageResult)
    if answer is None:
        return _wants({"it": request})
    return _said(_text(f"LLM response: {answer['content']['text']}"))


def _elicits(request_of: Callable[[Json], Json]) -> Tool:
    async def tool(context: Context, params: types.CallToolRequestParams) -> Json:
        request = request_of(params.arguments or {})
        answer = await _one_answer(context, params, request, types.ElicitResult)
        if answer is None:
            return _wants({"it": request})
        said = json.dumps(answer.get("content"))
        return _said(_text(f"Elicitation completed: action={answer['action']}, content={said}"))

    return tool


def _contact(arguments: Json) -> Json:
    properties = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    return _form(arguments["message"], properties, ["username", "email"])


def _defaults(_: Json) -> Json:
    states = ["active", "inactive", "pending"]
    properties = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": states, "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return _form("Every field has a default", properties)


def _enums(_: Json) -> Json:
    plain = ["option1", "option2", "option3"]
    titled = [
        {"const": f"value{number}", "title": f"{name} Option"}
        for number, name in enumerate(("First", "Second", "Third"), start=1)
    ]
    properties = {
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return _form("Choose of each kind", properties)


async def ask_name(_: Context, params: types.CallToolRequestParams) -> Json:
    answer = _answers(params).get("user_name")
    if not isinstance(answer, dict) or "name" not in _content(answer):
        return _wants({"user_name": _asked_for("name", "string", "What is your name?")})
    return _said(_text(f"Hello, {answer['content']['name']}!"))


async def ask_model(_: Context, params: types.CallToolRequestParams) -> Json:
    answer = _answers(params).get("capital_question")
    if answer is None:
        return _wants({"capital_question": _sampled("What is the capital of France?", 100)})
    return _said(_text(answer["content"]["text"]))


async def ask_roots(context: Context, params: types.CallToolRequestParams) -> Json:
    if context.protocol_version != MODERN:
        found = await context.session.list_roots()
        return _said(_text(", ".join(str(root.uri) for root in found.roots)))
    answer = _answers(params).get("client_roots")
    if answer is None:
        return _wants({"client_roots": ROOTS})
    return _said(_text(", ".join(root["uri"] for root in answer["roots"])))


async def ask_with_state(_: Context, params: types.CallToolRequestParams) -> Json:
    if _state_of(params) != "confirm" or "confirm" not in _answers(params):
        return _wants({"confirm": _asked_for("ok", "boolean", "Please confirm")}, "confirm")
    return _said(_text("state-ok"))


async def ask_three(_: Context, params: types.CallToolRequestParams) -> Json:
    wanted = {
        "user_name": _asked_for("name", "string", "What is your name?"),
        "greeting": _sampled("Generate a greeting", 50),
        "client_roots": ROOTS,
    }
    answers = _answers(params)
    missing = {key: request for key, request in wanted.items() if key not in answers}
    if _state_of(params) != "three" or missing:
        return _wants(missing or wanted, "three")
    return _said(_text(f"{answers['greeting']['content']['text']}"))


async def ask_twice(_: Context, params: types.CallToolRequestParams) -> Json:
    state, answers = _state_of(params), _answers(params)
    if state == "one" and "step1" in answers:
        step = _asked_for("color", "string", "Step 2: What is your favorite color?")
        return _wants({"step2": step}, "two")
    if state == "two" and "step2" in answers:
        return _said(_text(f"so {_content(answers['step2']).get('color')} it is"))
    step = _asked_for("name", "string", "Step 1: What is your name?")
    return _wants({"step1": step}, "one")


async def ask_what_is_offered(context: Context, params: types.CallToolRequestParams) -> Json:
    if params.input_responses:
        return _said(_text(", ".join(sorted(params.input_responses))))
    offered = context.session.client_capabilities
    wanted: dict[str, Json] = {}
    if offered is not None and offered.sampling is not None:
        wanted["sampled"] = _sampled("Say something", 50)
    if offered is not None and offered.elicitation is not None:
        wanted["elicited"] = _asked_for("name", "string", "What is your name?")
    return _wants(wanted) if wanted else _said(_text("nothing can be asked"))


async def missing_capability(context: Context, _: types.CallToolRequestParams) -> Json:
    offered = context.session.client_capabilities
    if offered is None or offered.sampling is None:
        required = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_CAPABILITY, "needs sampling, which was not declared", required)
    return _said(_text("sampling is declared"))


async def change_tools(context: Context, _: types.CallToolRequestParams) -> Json:
    if context.protocol_version == MODERN:
        await bus.publish(ToolsListChanged())
    else:
        await context.session.send_tool_list_changed()
    return _said(_text("the tools changed"))


async def change_prompts(_: Context, __: types.CallToolRequestParams) -> Json:
    await bus.publish(PromptsListChanged())
    return _said(_text("the prompts changed"))


async def change_resource(_: Context, __: types.CallToolRequestParams) -> Json:
    await bus.publish(ResourceUpdated(uri="test://watched-resource"))
    return _said(_text("the resource changed"))


waiting: set[object] = set()


async def wait(_: Context, __: types.CallToolRequestParams) -> Json:
    """Only a cancellation ends it."""
    call = object()
    waiting.add(call)
    try:
        await anyio.sleep_forever()
    finally:
        waiting.discard(call)
    return _said()


async def count_waiting(_: Context, __: types.CallToolRequestParams) -> Json:
    return _said(_text(str(len(waiting))))


TEXT = {"type": "string"}
# Every keyword of 2020-12 that a careless copy of a schema might lose.
JSON_SCHEMA: Json = {
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


def _takes(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


MIXED = json.dumps({"test": "data", "value": 123})
TOOLS: dict[str, tuple[Tool, Json]] = {
    "test_simple_text": (
        _plain(_text("This is a simple text response for testing.")),
        _takes(),
    ),
    "test_image_content": (_plain(IMAGE), _takes()),
    "test_audio_content": (
        _plain({"type": "audio", "data": WAV, "mimeType": "audio/wav"}),
        _takes(),
    ),
    "test_embedded_resource": (
        _plain(_embedded("test://embedded-resource", "This is an embedded resource content.")),
        _takes(),
    ),
    "test_multiple_content_types": (
        _plain(
            _text("Multiple content types test:"),
            IMAGE,
            _embedded("test://mixed-content-resource", MIXED, "application/json"),
        ),
        _takes(),
    ),
    "test_tool_with_logging": (with_logging, _takes()),
    "test_logging_tool": (with_logging, _takes()),
    "test_error_handling": (error_handling, _takes()),
    "test_tool_with_progress": (with_progress, _takes()),
    "test_sampling": (sampling, _takes(prompt=TEXT)),
    "test_elicitation": (_elicits(_contact), _takes(message=TEXT)),
    "test_elicitation_sep1034_defaults": (_elicits(_defaults), _takes()),
    "test_elicitation_sep1330_enums": (_elicits(_enums), _takes()),
    "test_streaming_elicitation": (ask_name, _takes()),
    "test_input_required_result_elicitation": (ask_name, _takes()),
    "test_input_required_result_sampling": (ask_model, _takes()),
    "test_input_required_result_list_roots": (ask_roots, _takes()),
    "test_input_required_result_request_state": (ask_with_state, _takes()),
    "test_input_required_result_tampered_state": (ask_with_state, _takes()),
    "test_input_required_result_multiple_inputs": (ask_three, _takes()),
    "test_input_required_result_multi_round": (ask_twice, _takes()),
    "test_input_required_result_capabilities": (ask_what_is_offered, _takes()),
    "test_missing_capability": (missing_capability, _takes()),
    "test_trigger_tool_change": (change_tools, _takes()),
    "test_trigger_prompt_change": (change_prompts, _takes()),
    "test_trigger_resource_change": (change_resource, _takes()),
    "test_header_parameter": (json_schema, _takes(region={**TEXT, "x-mcp-header": "Region"})),
    "json_schema_2020_12_tool": (json_schema, JSON_SCHEMA),
    "wait": (wait, _takes()),
    "waiting": (count_waiting, _takes()),
}


async def list_tools(_: Context, __: Any) -> types.ListToolsResult:
    return types.ListToolsResult(
        tools=[
            types.Tool(name=name, description=f"For scenarios that call {name}", input_schema=takes)
            for name, (_, takes) in TOOLS.items()
        ]
    )


async def call_tool(context: Context, params: types.CallToolRequestParams) -> Any:
    if params.name not in TOOLS:
        raise MCPError(INVALID_PARAMS, f"no tool {params.name!r}")
    return {"resultType": "complete", **await TOOLS[params.name][0](context, params)}


# Resources ----------------------------------------------------------------------------------------

RESOURCES = {
    "test://static-text": ("static-text", "text/plain"),
    "test://static-binary": ("static-binary", "image/png"),
    "test://watched-resource": ("watched-resource", "text/plain"),
}
TEMPLATE = "test://template/{id}/data"
HELD: dict[str, Json] = {
    "test://static-text": {"text": "This is the content of the static text resource."},
    "test://static-binary": {"blob": PNG},
    "test://watched-resource": {"text": "watched"},
}


async def list_resources(_: Context, __: Any) -> types.ListResourcesResult:
    return types.ListResourcesResult(
        resources=[
            types.Resource(
                uri=uri, name=name, description=f"The resource {name}", mime_type=mime_type
            )
            for uri, (name, mime_type) in RESOURCES.items()
        ]
    )


async def list_templates(_: Context, __: Any) -> types.ListResourceTemplatesResult:
    template = types.ResourceTemplate(
        uri_template=TEMPLATE,
        name="template",
        description="Holds the id of its address",
        mime_type="application/json",
    )
    return types.ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(_: Context, params: types.ReadResourceRequestParams) -> Any:
    uri = str(params.uri)
    if uri in RESOURCES:
        held = {"mimeType": RESOURCES[uri][1], **HELD[uri]}
    elif found := re.fullmatch(r"test://template/([^/]+)/data", uri):
        data = {"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"}
        held = {"mimeType": "application/json", "text": json.dumps(data)}
    else:
        raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})
    return types.ReadResourceResult.model_validate({"contents": [{"uri": uri, **held}]})


async def nothing(_: Context, __: Any) -> types.EmptyResult:
    """Nothing to do: what is subscribed never changes by itself, and info is always logged."""
    return types.EmptyResult()


# Prompts, completion ------------------------------------------------------------------------------

PROMPTS: dict[str, tuple[str, ...]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}


async def list_prompts(_: Context, __: Any) -> types.ListPromptsResult:
    return types.ListPromptsResult(
        prompts=[
            types.Prompt(
                name=name,
                description=f"For scenarios that get {name}",
                arguments=[
                    types.PromptArgument(name=each, description=f"Its {each}", required=True)
                    for each in arguments
                ],
            )
            for name, arguments in PROMPTS.items()
        ]
    )


async def get_prompt(_: Context, params: types.GetPromptRequestParams) -> Json:
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            contents = [_text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            words = f"arg1='{given['arg1']}', arg2='{given['arg2']}'"
            contents = [_text(f"Prompt with arguments: {words}")]
        case "test_prompt_with_embedded_resource":
            resource = _embedded(given["resourceUri"], "Embedded resource content for testing.")
            contents = [resource, _text("Please process the embedded resource above.")]
        case "test_prompt_with_image":
            contents = [IMAGE, _text("Please analyze the image above.")]
        case "test_input_required_result_prompt":
            answer = _answers(params).get("user_context")
            if answer is None:
                question = "What context should the prompt use?"
                return _wants({"user_context": _asked_for("context", "string", question)})
            contents = [_text(f"Given that {_content(answer).get('context')}")]
        case _:
            raise MCPError(INVALID_PARAMS, f"no prompt {params.name!r}")
    messages = [{"role": "user", "content": content} for content in contents]
    return {"resultType": "complete", "messages": messages}


async def complete(_: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
    found = [word for word in ("test", "testing", "tea") if word.startswith(params.argument.value)]
    completion = types.Completion(values=found, total=len(found), has_more=False)
    return types.CompleteResult(completion=completion)


HINT = CacheHint(ttl_ms=1000, scope="private")
server: Server[Any] = Server(
    "referees",
    version="2.0",
    instructions="For the referees.",
    cache_hints={
        "tools/list": HINT,
        "prompts/list": HINT,
        "resources/list": HINT,
        "resources/templates/list": HINT,
        "resources/read": HINT,
    },
    get_tool_input_schema=lambda name: TOOLS[name][1] if name in TOOLS else None,
    on_list_tools=list_tools,
    on_call_tool=call_tool,
    on_list_resources=list_resources,
    on_list_resource_templates=list_templates,
    on_read_resource=read_resource,
    on_subscribe_resource=nothing,
    on_unsubscribe_resource=nothing,
    on_subscriptions_listen=ListenHandler(bus),
    on_list_prompts=list_prompts,
    on_get_prompt=get_prompt,
    on_completion=complete,
    on_set_logging_level=nothing,
)


async def _only_modern(context: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
    if context.protocol_version != MODERN:
        raise MCPError(-32601, f"this server speaks {MODERN} only")
    return await call_next(context)


async def serve_stdio() -> None:
    async with stdio_server() as (received, sent):
        changes = NotificationOptions(tools_changed=True, prompts_changed=True)
        await server.run(received, sent, server.create_initialization_options(changes))


def serve_http(port: int) -> None:
    import uvicorn

    # It logs every stream that a client leaves as an error, which the suites' clients always do.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    listener = socket.create_server(("127.0.0.1", port))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(
        server.streamable_http_app(), log_level="warning", timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--modern", action="store_true")
    chosen = parser.parse_args()
    if chosen.modern:
        server.middleware.append(_only_modern)
    if chosen.http:
        serve_http(chosen.port)
    else:
        anyio.run(serve_stdio)
