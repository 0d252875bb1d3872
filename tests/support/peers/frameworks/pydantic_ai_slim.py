"""Pydantic AI: `pydantic_ai_slim.py URL http|sse`; it tells the transport by the path."""

import asyncio

import report
from pydantic_ai.mcp import MCPToolset


async def main() -> None:
    async with MCPToolset(report.URL) as toolset:
        tools = [tool.name for tool in await toolset.list_tools()]
        answer = await toolset.direct_call_tool(report.TOOL, report.ARGUMENTS)
    report.write(tools, answer)


asyncio.run(main())
