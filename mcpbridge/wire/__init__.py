"""Bytes and JSON-RPC messages, without any I/O.

`lines` splits what comes from a pipe, `messages` decodes and encodes, `json_object` finds and
changes members of an object without decoding the rest, `buffer` gathers pieces, `headers` reads
HTTP header values, `reply_id` finds the id in an answer that is not JSON, `socket_address` reads
`HOST:PORT` and `unix:PATH`.
"""
