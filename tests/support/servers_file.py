"""Files that list servers, for tests that serve them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.support.bridge_process import DEMO

Entry = dict[str, Any]


def entry(command: Sequence[str] = DEMO, **more: Any) -> Entry:
    """An entry with this command; `mcpbridge` and the like are `more`."""
    return {"command": command[0], "args": list(command[1:]), **more}


def own(**settings: Any) -> Entry:
    """The settings of mcpbridge in an entry; underscores stand for hyphens."""
    return {"mcpbridge": {name.replace("_", "-"): value for name, value in settings.items()}}


def write_servers(path: Path, servers: Mapping[str, Entry]) -> Path:
    """Write a file with these servers as editors do: beside it, then by a rename."""
    return save(path, json.dumps({"mcpServers": servers}, indent=2))


def save(path: Path, text: str) -> Path:
    """Write a text as `write_servers` does."""
    beside = path.with_name(path.name + "~")
    beside.write_text(text, "utf-8")
    os.replace(beside, path)
    return path


async def statuses(client: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    """What `/servers` says, by name."""
    response = await client.get("/servers")
    assert response.status_code == 200, response.text
    return {each["name"]: each for each in response.json()["servers"]}
