"""Strands Agents: `strands_agents.py URL http|sse`."""

import report
from mcp.client.sse import sse_client
from strands.tools.mcp import MCPClient

if report.TRANSPORT == "sse":
    client = MCPClient(lambda: sse_client(report.URL))
else:
    from mcp.client import streamable_http

    connect = getattr(streamable_http, "streamable_http_client", None)
    client = MCPClient(lambda: (connect or streamable_http.streamablehttp_client)(report.URL))

with client:
    tools = [tool.tool_name for tool in client.list_tools_sync()]
    answer = client.call_tool_sync("call-1", report.TOOL, report.ARGUMENTS)
report.write(tools, answer["content"][0]["text"])
