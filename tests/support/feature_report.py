"""What the scenario `features` of an SDK client must have seen, in whatever language."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from tests.support.sdk_servers import MORE_TOOLS, TOOLS, failed, gist, said

BIG = 2_000_000
"""What the programs send, in bytes, behind their marker."""
_DECLINED = "no client can answer this: the server is shared, or the client does not offer it"


def judge(report: Mapping[str, Any], declared: bool) -> None:
    """Both sessions of a run saw all there is, and nothing of each other.

    Args:
        report: What the client printed.
        declared: It offers elicitation, sampling and roots, so that each session had its
            own child; otherwise both shared one.
    """
    assert list(report) == ["left", "right"]
    for marker, seen in report.items():
        expected = _seen_by_all(marker) | (_asked(marker) if declared else _declined())
        # Of two calls in flight on a shared child it is unknown which one a log message is for.
        logs = seen["logs"]
        assert logs == [f"{marker} info"] or (logs == [] and not declared)
        assert {label: _gist(seen.get(label)) for label in expected} == expected


def _gist(seen: object) -> object:
    """As `gist`, of a failed call only its last words: one SDK tells the code before them."""
    came_down = gist(seen)
    match came_down:
        case ("failed", str(text)) if text.endswith(_DECLINED):
            return failed(_DECLINED)
    return came_down


def _seen_by_all(marker: str) -> dict[str, object]:
    first = f"peer://item/{marker}-first"
    return {
        "ping": {},
        "ping_client": said("pong"),
        "tools": [*TOOLS, *MORE_TOOLS],
        "greeting": ("read", "peer://greeting", "good day"),
        "prompt": ("prompted", "user", "Summarize tea."),
        "completion": ("completed", "bees", "beans"),
        "countdown": said("liftoff"),
        "progress": [[0, 4], [1, 4], [2, 4], [3, 4]],
        "level error": {},
        "log error": said("logged"),
        "level info": {},
        "log info": said("logged"),
        "subscribe": {},
        "change": said("changed"),
        "changed": ("read", first, "new"),
        "unsubscribe": {},
        "updates": [first, f"peer://item/{marker}-second"],
        "ended": said("cancelled"),
        "big echo": _digest(marker + "y" * BIG),
        "big event": _digest("x" * BIG),
        "big progress": [0],
        "last": said(f"{marker} is done"),
    }


def _asked(marker: str) -> dict[str, object]:
    return {
        "ask": said(f"accept: said to: {marker}"),
        "sample": said(f"sampled from: {marker}"),
        "roots": said("file:///peer/place"),
        "big sample": _digest(f"sampled from: {marker}" + "y" * BIG),
    }


def _declined() -> dict[str, object]:
    return dict.fromkeys(("ask", "sample", "roots"), failed(_DECLINED))


def _digest(text: str) -> list[object]:
    return [len(text), hashlib.sha256(text.encode()).hexdigest()]
