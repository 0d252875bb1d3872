"""Finds the id in a malformed answer of a child, so that its caller is answered at once.

Only an answer is attributed, and only if its id is certain; a malformed request or notification
of the child has an id of another kind or none.
"""

from __future__ import annotations

import json
import re

from mcpbridge.wire.lines import OverlongLine

_LENIENT_MAX_BYTES = 1 << 20
_HEAD = re.compile(
    rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*"?([0-9]{1,15})"?\s*,'
    rb'\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"(?:result|error)"\s*:'
)
_ANSWER_HEAD = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"(?:result|error)"\s*:')
_TAIL = re.compile(
    rb'[}\]"0-9el]\s*,\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*"?([0-9]{1,15})"?\s*'
    rb'(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z'
)
_NUMBER = re.compile(r"[0-9]{1,15}\Z")


def answer_id(line: bytes | OverlongLine) -> int | None:
    """Return the id that a malformed line answers, or None if it is not certain.

    Tried in turn: the members before the payload; for a line that is merely not strict JSON (NaN,
    invalid UTF-8) a lenient parser; for a line over the limit the members after the payload.
    """
    if isinstance(line, OverlongLine):
        return _by_head(line.head) if _HEAD.match(line.head) else _by_tail(line)
    found = _by_head(line)
    if found is None and len(line) <= _LENIENT_MAX_BYTES:
        found = _by_lenient_parser(line)
    return found


def _by_head(head: bytes) -> int | None:
    match = _HEAD.match(head)
    return int(match[1]) if match else None


def _by_tail(line: OverlongLine) -> int | None:
    if not _ANSWER_HEAD.match(line.head):
        return None
    match = _TAIL.search(line.tail)
    return int(match[1]) if match else None


def _by_lenient_parser(line: bytes) -> int | None:
    try:
        # Objects as pairs: if there are two ids, neither is certain.
        members = json.loads(line.decode("utf-8", "replace"), object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, tuple) or any(name == "method" for name, _ in members):
        return None
    ids = [value for name, value in members if name == "id"]
    if len(ids) != 1 or isinstance(ids[0], bool) or not isinstance(ids[0], (int, str)):
        return None
    match = _NUMBER.match(str(ids[0]))
    return int(match[0]) if match else None
