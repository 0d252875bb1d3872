"""JSON objects changed at their top level; the values that stay are their sender's bytes."""

from __future__ import annotations

from collections.abc import Container, Mapping

import msgspec

from mcpbridge.wire.members import spans

_BLANKS = b" \t\r\n"


def opened(data: bytes) -> dict[str, bytes]:
    """The members of an object, each value as its sender wrote it; raises what `spans` raises."""
    return {name: data[start:end] for name, (start, end) in spans(data).items()}


def packed(members: Mapping[str, bytes]) -> bytes:
    """An object of these members, in their order."""
    pairs = (b"%b:%b" % (msgspec.json.encode(name), value) for name, value in members.items())
    return b"{%b}" % b",".join(pairs)


def with_members(data: bytes, added: Mapping[str, bytes]) -> bytes:
    """The object with these members set."""
    return packed({**opened(data), **added})


def without(data: bytes, names: Container[str]) -> bytes:
    """The object without the members of these names; untouched where it has none of them."""
    kept: list[bytes] = []
    members = spans(data)
    before = data.index(b"{") + 1
    for name, (_, end) in members.items():
        if name not in names:
            # Its comma too, its key and its value.
            kept.append(data[before:end])
        before = end
    if len(kept) == len(members):
        return data
    text = b"".join(kept).lstrip(_BLANKS)
    return b"{%b}" % text.removeprefix(b",")
