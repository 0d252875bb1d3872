"""`mcpbridge doctor`: looks at a server, or at an endpoint, and says what it sees.

For a command: `report` is what can be found out; `talk` is one process of the server and what is
said with it; `course` is the order in which processes are started and asked; `silence` tells a
server that is slow from one that keeps its answers back; `hints` knows the everyday causes and
`flags` what to set; `diagnosis` puts a report together; `words` says it to people.

For a URL: `web` is a small HTTP client that keeps time; `checks` is a list of statements and what
follows where one fails; `asking` is JSON-RPC over it; `mcp_operator` and `lifecycle_operator` ask
as those two do, `endpoint` as a client of any revision does.
"""
