"""A client made with FastMCP 4: `client_fastmcp4.py URL PLAN` prints what it sees as a JSON line.

The plan has `calls` and `prompts`, each a list of names and arguments, and `reads`, a list of URIs.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from fastmcp import Client
from pydantic import BaseModel


def shown(result: BaseModel) -> Any:
    """A result as it came, but for what the SDK adds to it."""
    return result.model_dump(mode="json", by_alias=True, exclude_unset=True)


async def main() -> None:
    """Visit everything that the plan names."""
    plan = json.loads(sys.argv[2])
    async with Client(sys.argv[1]) as client:
        seen = {
            "tools": shown(await client.list_tools_mcp()),
            "resources": shown(await client.list_resources_mcp()),
            "prompts": shown(await client.list_prompts_mcp()),
            "calls": [shown(await client.call_tool_mcp(*each)) for each in plan["calls"]],
            "prompted": [shown(await client.get_prompt_mcp(*each)) for each in plan["prompts"]],
            "read": [shown(await client.read_resource_mcp(each)) for each in plan["reads"]],
        }
    print(json.dumps(seen))


asyncio.run(main())
