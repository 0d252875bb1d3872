"""The trace of refused requests: a counter by reason, and one log record at a time for each kind.

A client that is refused is often run by someone else than the bridge, and shows little of the
answer; so the operator's log says what was refused and which setting admits it. Each kind is logged
at most once in `LOG_EVERY_S`, since a client may be refused thousands of times in a second; the
next record of a kind has the number of those that were left out.

What a client sent is cut and escaped. Tokens and the path of MCP, which may be secret, are not
logged; of a session id the beginning is; an unknown path is only if a message was sent there, by a
client that seeks MCP.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping

import msgspec

from mcpbridge.http.request import RequestHead
from mcpbridge.rules.access.hosts import host_name, host_pattern, origin_pattern, shown
from mcpbridge.rules.mcp.admission import Reason, Refusal
from mcpbridge.telemetry.metrics import Meters

log = logging.getLogger("mcpbridge.http")

LOG_EVERY_S = 10.0
FAMILY = "requests_refused"
"""The counter's name in `telemetry.prometheus.TALLIES`."""

_SENT: Mapping[str, bytes] = {
    Reason.HOST: b"host",
    Reason.ORIGIN: b"origin",
    Reason.ACCEPT: b"accept",
    Reason.CONTENT_TYPE: b"content-type",
    Reason.CONTENT_ENCODING: b"content-encoding",
    Reason.BODY_SIZE: b"content-length",
    Reason.REVISION: b"mcp-protocol-version",
    Reason.SESSION: b"mcp-session-id",
    Reason.HEADER_MISMATCH: b"mcp-method",
}
"""The header whose value was refused, by reason."""
_BY_STATUS: Mapping[int, str] = {
    401: Reason.CREDENTIALS,
    403: Reason.SCOPE,
    404: Reason.PATH,
    405: Reason.METHOD,
    406: Reason.ACCEPT,
    408: Reason.TOO_SLOW,
    413: Reason.BODY_SIZE,
    431: Reason.HEAD_SIZE,
}
"""The reason of a refusal that names none itself."""
_SESSION_SHOWN = 8
_PLAIN_PATH = r"/[A-Za-z0-9._~/-]{1,99}"


class _Error(msgspec.Struct):
    message: str


_error_decoder = msgspec.json.Decoder(_Error)


Refused = Callable[[Refusal, RequestHead | None, str | None], None]
"""Takes a refusal, the head of its request if one was read, and else the client's address."""


class Refusals:
    """The log and the counter of refused requests; one for all listeners of a bridge."""

    def __init__(
        self,
        meters: Meters,
        clock: Callable[[], float] = time.monotonic,
        refused: Refused | None = None,
    ) -> None:
        """Begin with nothing refused.

        Args:
            meters: Count what is refused.
            clock: Returns monotonic seconds.
            refused: Takes each refusal that is noted, whether it is logged or left out.
        """
        self._refused = refused
        self._meters = meters
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._left_out: dict[str, int] = {}
        """Number of refusals since the last record, by reason."""

    def note(
        self, refusal: Refusal, head: RequestHead | None = None, client: str | None = None
    ) -> None:
        """Count a refusal, and log it unless one of its kind was logged a short time ago.

        Args:
            refusal: The refusal.
            head: The head of the request; None if none could be read.
            client: The client's address, if there is no head.
        """
        # Counted and passed on always; only the log is limited, by kind, so that a flood of one
        # kind hides no other.
        reason = self.count(refusal)
        if self._refused is not None:
            self._refused(refusal, head, client)
        now = self._clock()
        if now - self._logged_at.get(reason, float("-inf")) < LOG_EVERY_S:
            self._left_out[reason] = self._left_out.get(reason, 0) + 1
            return
        self._logged_at[reason] = now
        admits = _setting_for(reason, head)
        facts: dict[str, object] = {
            "reason": reason,
            "status": refusal.status,
            "problem": problem_of(refusal),
            "client": (head.peer or None) if head is not None else client,
            "left_out": self._left_out.pop(reason, 0),
            **_sent(reason, head),
        }
        if admits is None:
            log.info("request.refused", extra=facts)
        else:
            facts["try"] = admits
            log.warning("request.refused", extra=facts)

    def count(self, refusal: Refusal) -> str:
        """Count a refusal that is logged elsewhere; return its reason."""
        reason = refusal.reason or _BY_STATUS.get(refusal.status, Reason.OTHER)
        self._meters.tally(FAMILY, reason)
        return reason


def problem_of(refusal: Refusal) -> str:
    """Return the text of a refusal for a log: printable, of bounded length."""
    return shown(_error_decoder.decode(refusal.error).message)


def _sent(reason: str, head: RequestHead | None) -> dict[str, str]:
    """Return what was refused as a field of the record; empty if it may not or cannot be shown."""
    if head is None:
        return {}
    if reason == Reason.PATH and head.method == "POST":
        return {"method": "POST", "path": shown(head.path)}
    if reason in (Reason.PATH, Reason.METHOD):
        return {"method": shown(head.method)}
    name = _SENT.get(reason)
    value = head.get(name) if name is not None else None
    if name is None:
        return {}
    if reason == Reason.SESSION:
        # The whole id would let a reader of the log use the session.
        value = value[:_SESSION_SHOWN] if value is not None else None
    return {name.decode().replace("-", "_"): "" if value is None else shown(value)}


def _setting_for(reason: str, head: RequestHead | None) -> str | None:
    """Return the flag that admits what was refused; None if no flag does, or it cannot be written.

    What a client sent becomes part of it only in a form that a shell reads as one plain word.
    """
    if head is None:
        return None
    try:
        match reason:
            case Reason.HOST:
                name = host_name(head.get(b"host") or "")
                return _flag("--allowed-host", host_pattern(name)) if name is not None else None
            case Reason.ORIGIN:
                return _flag("--allow-origin", origin_pattern(head.get(b"origin") or ""))
            case Reason.BODY_SIZE:
                length = head.get(b"content-length") or ""
                return _flag("--max-request-bytes", length) if length.isdecimal() else None
            case Reason.PATH if head.method == "POST" and re.fullmatch(_PLAIN_PATH, head.path):
                return _flag("--path", head.path)
    except ValueError:
        pass  # no such flag can name it
    return None


_WORD = r"[A-Za-z0-9._~:/%\[\]-]{1,320}"


def _flag(name: str, value: str) -> str | None:
    return f"{name} {value}" if re.fullmatch(_WORD, value) else None
