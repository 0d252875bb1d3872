"""The JSON Schema of the file of servers: `python -m scripts.servers_schema FILE` writes it.

The keys of `mcpbridge` are made from the settings; the others are those that the loader reads.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcpbridge.config.servers_file import MAX_NAME_CHARACTERS, entry_options
from mcpbridge.settings import Setting, Unit

Schema = dict[str, Any]

_TEXT: Schema = {"type": ["string", "number"]}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_URLS = ("url", "serverUrl", "httpUrl")
_DURATION = "Seconds, or a text such as 500ms, 30s, 5m or 1h."
_SIZE = "Bytes, or a text such as 64KiB or 4MiB."
_OWN: Mapping[str, Schema] = {
    "default": {"type": "boolean", "description": "Whether /mcp serves this server."},
    "start": {
        "enum": ["eager", "lazy"],
        "description": "Whether the first call starts the server, and not mcpbridge itself.",
    },
    "idle-stop": {
        **_TEXT,
        "description": f"Time without a call after which the server is stopped. {_DURATION}",
    },
    "roots": {
        **_TEXTS,
        "description": "Folders or URIs with which mcpbridge answers the server's roots/list.",
    },
}
"""The keys of `mcpbridge` that are not options of the command line."""


def schema() -> Schema:
    """Return the schema of a file."""
    tables = ("mcpServers", "servers", "context_servers")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "MCP servers, as mcpbridge --config reads them",
        "description": "Made by `make docs`; do not edit.",
        "type": "object",
        "properties": {
            **{table: {"$ref": "#/$defs/servers"} for table in tables},
            "inputs": {"type": "array", "items": {"$ref": "#/$defs/input"}},
        },
        "anyOf": [{"required": [table]} for table in tables],
        "$defs": {
            "servers": {
                "type": "object",
                "propertyNames": {"pattern": f"^[^/]{{1,{MAX_NAME_CHARACTERS}}}$"},
                "additionalProperties": {"$ref": "#/$defs/server"},
            },
            "server": _server(),
            "mcpbridge": {
                "type": "object",
                "properties": {**_OWN, **_options()},
                "additionalProperties": False,
            },
            "input": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "description": "The ID of ${input:ID}."},
                    "description": {"type": "string", "description": "What a person is asked for."},
                    "default": {"type": "string"},
                },
                "required": ["id"],
            },
        },
    }


def page() -> str:
    """Return the schema as a text."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _server() -> Schema:
    """Return the schema of one entry; keys of other programs are admitted."""
    names = ("command", *_URLS)
    return {
        "type": "object",
        "properties": {
            "command": {**_TEXT, "description": "The program to start, without a shell."},
            "args": {**_TEXTS, "description": "Its arguments."},
            "env": {
                "type": "object",
                "additionalProperties": {"type": ["string", "number", "null"]},
                "description": "Variables for it; null removes one.",
            },
            "envFile": {**_TEXT, "description": "A file of variables; env wins."},
            "cwd": {**_TEXT, "description": "The folder to start in; else that of this file."},
            "type": {"enum": ["stdio", "http", "streamable-http", "streamableHttp", "sse"]},
            **{url: {**_TEXT, "description": "The URL of a server elsewhere."} for url in _URLS},
            "headers": {
                "type": "object",
                "additionalProperties": _TEXT,
                "description": "What each request to a server elsewhere carries.",
            },
            "disabled": {"type": "boolean", "description": "Whether the entry is left out."},
            "dev": {
                "type": "object",
                "properties": {"watch": {"anyOf": [_TEXT, _TEXTS]}},
                "description": "watch: the files whose changes reload it under mcpbridge dev.",
            },
            "mcpbridge": {"$ref": "#/$defs/mcpbridge"},
        },
        "if": {"properties": {"disabled": {"const": True}}, "required": ["disabled"]},
        "else": {"oneOf": [{"required": [name]} for name in names]},
    }


def _options() -> dict[str, Schema]:
    """Return the schema of each option that an entry may have."""
    return {key: _option(each.setting) for key, each in entry_options().items()}


def _option(facts: Setting) -> Schema:
    value = _value(facts)
    described = {"description": f"{facts.help} {_unit(facts.unit)}".strip()}
    if facts.repeatable:
        return {"anyOf": [value, {"type": "array", "items": value}], **described}
    return {**value, **described}


def _unit(unit: Unit) -> str:
    return {Unit.SECONDS: _DURATION, Unit.BYTES: _SIZE}.get(unit, "")


def _value(facts: Setting) -> Schema:
    if facts.unit is Unit.SWITCH:
        return {"type": "boolean"}
    if facts.choices:
        return {"enum": list(facts.choices)}
    if facts.unit is Unit.INTEGER:
        return {"type": ["integer", "string"], **_bounds(facts)}
    return _TEXT


def _bounds(facts: Setting) -> Schema:
    bounds = {"minimum": facts.minimum, "maximum": facts.maximum}
    return {name: value for name, value in bounds.items() if value is not None}


def main() -> None:
    """Write the schema to the file named on the command line."""
    Path(sys.argv[1]).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
