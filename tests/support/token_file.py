"""Bridges that ask who calls, and clients that say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from tests.support.bridge_process import RunningBridge, rpc

ALICE, BOB, CAROL = "alice-token-0123456789", "bob-token-0123456789ab", "carol-token-0123456789"


def token_file(folder: Path, *lines: str) -> Path:
    """A file with these lines; Alice's and Bob's tokens by default."""
    file = folder / "tokens"
    file.write_text("\n".join(lines or (f"alice: {ALICE}", f"bob: {BOB}")) + "\n")
    return file


def bearing(running: RunningBridge, token: str, **headers: str) -> httpx.AsyncClient:
    """A client with a token."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return running.client(headers={"authorization": f"Bearer {token}", **more})


def environ(request_id: Any = 1, *names: str, **arguments: Any) -> dict[str, Any]:
    """A call of the one tool of `tests/children/environ.py`."""
    params = {"name": "environ", "arguments": {"names": names, **arguments}}
    return rpc(request_id, "tools/call", params)


def told(response: httpx.Response) -> Any:
    """What it answered: `pid`, and the variables that were asked for."""
    assert response.status_code == 200, response.text
    return json.loads(response.json()["result"]["content"][0]["text"])
