"""AutoGen: `autogen.py URL http|sse`."""

import asyncio

import report
from autogen_core import CancellationToken
from autogen_ext.tools.mcp import SseServerParams, StreamableHttpServerParams, mcp_server_tools


async def main() -> None:
    kind = {"http": StreamableHttpServerParams, "sse": SseServerParams}[report.TRANSPORT]
    tools = {tool.name: tool for tool in await mcp_server_tools(kind(url=report.URL))}
    tool = tools[report.TOOL]
    answer = await tool.run_json(report.ARGUMENTS, CancellationToken())
    report.write(list(tools), answer[0].text)


asyncio.run(main())
