"""Bytes and messages, pure: no clock, no I/O, no logging.

`members` finds the members of a JSON object without decoding their values; `messages` decodes
and encodes JSON-RPC messages with opaque payloads; `lines` cuts a byte stream into lines and
bounds them, `gathered` keeps what is not whole yet; `salvage` reads the id out of a line that is no
message; `headers` reads Accept, Content-Type and session ids; `address` reads where a socket is.
"""
