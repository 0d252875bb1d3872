"""The MCP lifecycle operator's check of a server: a TCP connection, then a handshake.

The operator needs an answer to `initialize` or `server/discover` within 10 s, and leaves without a
DELETE, perhaps in the middle of a call.
"""

from __future__ import annotations

import anyio
import httpx

from mcpbridge.client.http_client import authority, connect
from mcpbridge.doctor.endpoint.checks import Findings
from mcpbridge.doctor.endpoint.mcp_client import (
    Came,
    ClientOptions,
    McpAnswer,
    discover,
    initialize,
    post,
)
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY

WITHIN_S = 10.0
_CONNECT_S = 1.0
_GONE_S = 0.05
_DIALS = 3


async def check(place: httpx.URL) -> Findings:
    """Make the checks in order and return their findings."""
    findings = Findings()
    await _readiness(place, findings)
    if findings.good:
        await _handshake(place, findings)
    if findings.good:
        await _gone_in_the_middle(place, findings)
    return findings


async def _readiness(place: httpx.URL, findings: Findings) -> None:
    for _ in range(_DIALS):
        try:
            with anyio.fail_after(_CONNECT_S):
                await connect(place)
        except OSError as error:
            words = f"no connection to {authority(place)}: {error.strerror or 'no answer'}"
            findings.failed("readiness", words, "the pod does not become ready")
            return
    findings.passed("readiness", f"{authority(place)} takes connections: ready")


async def _handshake(place: httpx.URL, findings: Findings) -> None:
    options = ClientOptions(head_s=WITHIN_S, whole_s=WITHIN_S)
    answer = await post(place, initialize(1, NEWEST_LEGACY.date), options)
    if answer.accepted and "result" in (answer.reply_to(1) or {}):
        findings.passed("handshake", f"initialize is answered in {answer.whole_s:.2f} s")
        return
    findings.note("initialize", f"initialize: {_shown(answer)}")
    modern = await discover(place, options)
    if modern.accepted and "result" in (modern.reply_to(1) or {}):
        findings.passed("handshake", f"server/discover is answered in {modern.whole_s:.2f} s")
        return
    then = "the operator reports that the handshake failed"
    findings.failed("handshake", f"server/discover: {_shown(modern)}", then)


async def _gone_in_the_middle(place: httpx.URL, findings: Findings) -> None:
    """Leave in the middle of a handshake, then try again."""
    hasty = ClientOptions(head_s=_GONE_S, whole_s=_GONE_S)
    for number in range(_DIALS):
        await post(place, initialize(number, NEWEST_LEGACY.date), hasty)
    options = ClientOptions(head_s=WITHIN_S, whole_s=WITHIN_S)
    answers = [await post(place, initialize(1, NEWEST_LEGACY.date), options)]
    if not answers[0].accepted:
        answers.append(await discover(place, options))
    if answers[-1].accepted:
        findings.passed("cancelled", "clients that leave without DELETE do no harm")
        return
    then = "the operator's next handshake fails"
    findings.failed("cancelled", f"after clients that left: {_shown(answers[-1])}", then)


def _shown(answer: McpAnswer) -> str:
    if answer.came is not Came.WHOLE:
        return answer.problem
    return f"answered {answer.status}: {answer.shown}"
