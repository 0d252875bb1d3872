"""JSON objects changed at their top level; the values that stay are their sender's bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from mcpbridge.wire.members import spans


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


def without(data: bytes, unwanted: Callable[[str], bool]) -> bytes:
    """The object without the members whose names are unwanted; untouched where none is."""
    members = opened(data)
    kept = {name: value for name, value in members.items() if not unwanted(name)}
    return data if len(kept) == len(members) else packed(kept)
