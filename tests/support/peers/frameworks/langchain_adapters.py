"""LangChain's MCP adapters: `langchain_adapters.py URL http|sse`."""

import asyncio

import report
from langchain_mcp_adapters.client import MultiServerMCPClient


async def main() -> None:
    transport = {"http": "streamable_http", "sse": "sse"}[report.TRANSPORT]
    client = MultiServerMCPClient({"it": {"transport": transport, "url": report.URL}})
    tools = {tool.name: tool for tool in await client.get_tools()}
    answer = await tools[report.TOOL].ainvoke(report.ARGUMENTS)
    report.write(list(tools), answer if isinstance(answer, str) else answer[0]["text"])


asyncio.run(main())
