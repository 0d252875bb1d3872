"""OpenAI Agents: `openai_agents.py URL http|sse`."""

import asyncio

import report
from agents.mcp import MCPServerSse, MCPServerStreamableHttp


async def main() -> None:
    kind = {"http": MCPServerStreamableHttp, "sse": MCPServerSse}[report.TRANSPORT]
    async with kind(params={"url": report.URL}, client_session_timeout_seconds=60) as server:
        tools = [tool.name for tool in await server.list_tools()]
        answer = await server.call_tool(report.TOOL, report.ARGUMENTS)
    report.write(tools, answer.content[0].text)


asyncio.run(main())
