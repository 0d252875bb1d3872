"""Checks an MCP endpoint with the requests of clients of every revision.

It deletes each session that it opens.
"""

from __future__ import annotations

from typing import Any

import httpx

from mcpbridge.client.http_client import at, authority, path_of
from mcpbridge.doctor.endpoint.checks import Findings, counted
from mcpbridge.doctor.endpoint.mcp_client import (
    Came,
    ClientOptions,
    McpAnswer,
    asked,
    discover,
    initialize,
    post,
    request,
    told,
)
from mcpbridge.doctor.endpoint.sse_client import SseClient
from mcpbridge.rules.mcp.revisions import MODERN, NEWEST_LEGACY, SERVED

_OPTIONS = ClientOptions(head_s=15.0, whole_s=30.0)
_PROBES = ("/livez", "/readyz", "/startupz", "/health")


async def check(place: httpx.URL) -> Findings:
    """Check every transport and revision; at least one must be served."""
    findings = Findings()
    served = await _handshakes(place, findings)
    if not served and findings.checks[-1].name == "port":
        return findings
    served += await _modern(place, findings)
    served += await _sse(place, findings)
    await _probes(place, findings)
    if not served:
        findings.failed("served", "no revision of MCP is served here", "no client can use it")
    return findings


async def _handshakes(place: httpx.URL, findings: Findings) -> list[str]:
    """Try each revision with a handshake over Streamable HTTP; return the served ones."""
    served: list[str] = []
    problem = ""
    for revision in SERVED:
        answer = await post(place, initialize(1, revision.date), _OPTIONS)
        if answer.came in (Came.NO_CONNECTION, Came.NO_HEAD):
            findings.failed("port", f"{authority(place)}: {answer.problem}", "no client can use it")
            return []
        result = (answer.reply_to(1) or {}).get("result") if answer.accepted else None
        if not isinstance(result, dict):
            problem = answer.problem or f"{answer.status} {answer.shown}"
            continue
        if result.get("protocolVersion") == revision.date:
            served.append(revision.date)
        await _use(place, findings, answer, result, last=revision is NEWEST_LEGACY)
    if served:
        findings.passed("streamable", f"Streamable HTTP serves {', '.join(served)}")
    else:
        findings.note("streamable", f"no handshake over Streamable HTTP: {problem}")
    return served


async def _use(
    place: httpx.URL, findings: Findings, opened: McpAnswer, result: dict[str, Any], *, last: bool
) -> None:
    """Use the last session a little; delete each session."""
    session = opened.headers.get("mcp-session-id")
    headers = {"mcp-session-id": session} if session else {}
    if last:
        headers["mcp-protocol-version"] = str(result.get("protocolVersion"))
        info = result.get("serverInfo")
        name = info.get("name") if isinstance(info, dict) else None
        findings.passed("initialize", f"is {name} (answered in {opened.whole_s:.2f} s)")
        await post(place, told("notifications/initialized"), _OPTIONS, headers)
        answer = await post(place, request(2, "tools/list"), _OPTIONS, headers)
        listed = (answer.reply_to(2) or {}).get("result")
        if isinstance(listed, dict) and isinstance(listed.get("tools"), list):
            words = (
                f"tools/list: {counted(len(listed['tools']), 'tools')} in {len(answer.text)} bytes"
            )
            findings.passed("tools", words)
        else:
            findings.note("tools", f"tools/list: {answer.problem or answer.shown}")
    if session:
        await asked(place, "DELETE", headers, _OPTIONS)


async def _modern(place: httpx.URL, findings: Findings) -> list[str]:
    answer = await discover(place, _OPTIONS)
    result = (answer.reply_to(1) or {}).get("result") if answer.accepted else None
    versions = result.get("supportedVersions") if isinstance(result, dict) else None
    known = [r.date for r in MODERN if isinstance(versions, list) and r.date in versions]
    if known:
        findings.passed("modern", f"server/discover is answered: {', '.join(known)}")
    else:
        shown = answer.problem or f"{answer.status} {answer.shown}"
        findings.note("modern", f"server/discover is not answered: {shown}")
    return known


async def _sse(place: httpx.URL, findings: Findings) -> list[str]:
    sse_client = SseClient(place if path_of(place).endswith("/sse") else at(place, "/sse"), None)
    try:
        async with sse_client.open() as kind:
            if not sse_client.endpoint:
                raise OSError(f"the content type is {kind!r}")
            messages = await sse_client.call(initialize(1, SERVED[0].date))
            good = bool(messages) and isinstance(messages[0], dict) and "result" in messages[0]
    except OSError as error:
        findings.note("sse", f"HTTP+SSE is not served at /sse: {error}")
        return []
    if not good:
        findings.note("sse", "HTTP+SSE at /sse refuses initialize")
        return []
    findings.passed("sse", "HTTP+SSE is served at /sse")
    return [SERVED[0].date]


async def _probes(place: httpx.URL, findings: Findings) -> None:
    found = []
    for path in _PROBES:
        answer = await asked(at(place, path), "GET", {}, _OPTIONS)
        if answer.came is Came.WHOLE and answer.status in (200, 503):
            found.append(f"{path} {answer.status}")
    if found:
        findings.passed("probes", f"health: {', '.join(found)}")
    else:
        findings.note("probes", "no health path of mcpbridge is served")
