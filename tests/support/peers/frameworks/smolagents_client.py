"""smolagents: `smolagents_client.py URL http|sse`."""

import report
from smolagents import MCPClient

transport = {"http": "streamable-http", "sse": "sse"}[report.TRANSPORT]
with MCPClient({"url": report.URL, "transport": transport}, structured_output=False) as found:
    tools = {tool.name: tool for tool in found}
    answer = tools[report.TOOL](**report.ARGUMENTS)
report.write(list(tools), answer)
