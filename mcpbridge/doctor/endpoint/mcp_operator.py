"""The MCP Operator's detection and validation of a server that it has just deployed.

It uses 2024-11-05, sends no `MCP-Protocol-Version`, opens no listening stream and deletes no
session. First it detects the protocol: a POST to the MCP path, and if that is answered 400, 404 or
405, the event stream at `/sse`. Then it validates with another session. It waits 2 s for the head
of an answer and 5 s for the whole; an unusable answer costs an attempt and 30 s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import anyio
import httpx

from mcpbridge.client.http_client import at, authority, connect, path_of
from mcpbridge.doctor.endpoint.checks import Findings, Stopped, counted
from mcpbridge.doctor.endpoint.mcp_client import (
    Came,
    ClientOptions,
    McpAnswer,
    asked,
    initialize,
    post,
    request,
    told,
)
from mcpbridge.doctor.endpoint.sse_client import SseClient
from mcpbridge.rules.mcp.revisions import NEWEST_LEGACY, SERVED
from mcpbridge.wire.headers import EVENT_STREAM

OPTIONS = ClientOptions(head_s=2.0, whole_s=5.0, line_bytes=64 << 10, literal=True)
ATTEMPTS = 2

_CONNECT_S = 1.0
_HEALTH = ClientOptions(head_s=1.0, whole_s=1.0)
_ASKED = SERVED[0].date
_TAKEN = tuple(revision.date for revision in SERVED if revision is not NEWEST_LEGACY)
_LATCHING = (400, 404, 405)
_AGAIN = "the operator counts a failed attempt and tries again after 30 s"
_INVALID = "the operator marks the server as invalid"
_LISTS = {
    "tools": ("tools/list", "tools"),
    "resources": ("resources/list", "resources"),
    "prompts": ("prompts/list", "prompts"),
}


class McpOperator:
    """One attempt of the operator at one endpoint."""

    def __init__(self, place: httpx.URL, protocol: str) -> None:
        self._place = place
        self._protocol = protocol
        self.findings = Findings()

    async def run(self) -> None:
        """Make the checks in order.

        Raises:
            Stopped: A check failed that the others need; it is in `findings`.
        """
        await self._port()
        if self._protocol == "sse" or await self._is_not_streamable():
            await self._sse()
        else:
            await self._validate()
        await self._health()

    async def _port(self) -> None:
        try:
            with anyio.fail_after(_CONNECT_S):
                await connect(self._place)
        except OSError as error:
            words = f"no connection to {authority(self._place)}: {error.strerror or 'no answer'}"
            raise self.findings.stop("port", words, _AGAIN, transient=True) from error
        self.findings.passed("port", f"{authority(self._place)} takes connections")

    async def _is_not_streamable(self) -> bool:
        """Return whether the status of the MCP path means that it is not Streamable HTTP."""
        answer = await post(self._place, initialize(1, _ASKED), OPTIONS)
        if answer.came is Came.WHOLE and answer.status in _LATCHING:
            words = f"POST {path_of(self._place)} is answered {answer.status}"
            then = "the operator takes it for a server without Streamable HTTP, and stays with that"
            if self._protocol == "streamable-http":
                raise self.findings.stop("streamable", words, then)
            self.findings.note("streamable", words, f"{then}; it looks for /sse")
            return True
        self._usable("streamable", answer)
        self.findings.passed(
            "streamable",
            f"POST {path_of(self._place)} is Streamable HTTP (head in {answer.head_s:.2f} s)",
        )
        return False

    async def _validate(self) -> None:
        """Validate over Streamable HTTP, with a session that is never deleted."""
        answer = await post(self._place, initialize(1, _ASKED), OPTIONS)
        self._usable("initialize", answer)
        result = self._result("initialize", 1, answer.text, answer.messages)
        capabilities = self._introduced(result, f" (in {answer.whole_s:.2f} s)")
        session = answer.headers.get("mcp-session-id")
        headers = {"mcp-session-id": session} if session else {}
        answer = await post(self._place, told("notifications/initialized"), OPTIONS, headers)
        self._usable("initialized", answer)
        self.findings.passed("initialized", f"the notification is answered {answer.status}")
        for number, name in enumerate(_named(capabilities), 2):
            method, member = _LISTS[name]
            answer = await post(self._place, request(number, method), OPTIONS, headers)
            self._usable(method, answer)
            result = self._result(method, number, answer.text, answer.messages)
            self._counted(method, member, result, len(answer.text))

    async def _sse(self) -> None:
        place = (
            self._place if self._protocol == "sse" and self._is_sse() else at(self._place, "/sse")
        )
        sse_client = SseClient(place, OPTIONS.line_bytes)
        try:
            async with sse_client.open() as kind:
                if kind != EVENT_STREAM:
                    then = f"the operator wants {EVENT_STREAM} to the letter; {_INVALID}"
                    words = f"the content type of {path_of(place)} is {kind!r}"
                    raise self.findings.stop("sse_type", words, then)
                where = sse_client.endpoint.partition("?")[0]  # behind it stands the session's id
                self.findings.passed("sse", f"GET {path_of(place)} is an event stream")
                self.findings.passed("sse_endpoint", f"its endpoint event names {where}")
                await self._validate_over(sse_client)
        except OSError as error:
            raise self.findings.stop("sse", f"GET {path_of(place)}: {error}", _INVALID) from error

    async def _validate_over(self, sse_client: SseClient) -> None:
        messages = await sse_client.call(initialize(1, _ASKED))
        capabilities = self._introduced(self._result("initialize", 1, "", messages), "")
        await sse_client.tell(told("notifications/initialized"))
        self.findings.passed("initialized", "the notification is taken")
        for number, name in enumerate(_named(capabilities), 2):
            method, member = _LISTS[name]
            messages = await sse_client.call(request(number, method))
            self._counted(
                method, member, self._result(method, number, "", messages), sse_client.size
            )

    def _is_sse(self) -> bool:
        return path_of(self._place).endswith("/sse")

    def _usable(self, name: str, answer: McpAnswer) -> None:
        """Raise unless an answer is complete and its status is 200 to 299."""
        if answer.came is Came.NO_CONNECTION or answer.came in (Came.NO_HEAD, Came.NO_END):
            raise self.findings.stop(name, f"{name}: {answer.problem}", _AGAIN, transient=True)
        if answer.came is not Came.WHOLE:
            raise self.findings.stop(name, f"{name}: {answer.problem}", _INVALID)
        if not answer.accepted:
            self._rejected(name, answer)

    def _rejected(self, name: str, answer: McpAnswer) -> NoReturn:
        words = f"{name} is answered {answer.status}: {answer.shown}"
        if any(number in f"{answer.status} {answer.text}" for number in ("401", "403")):
            then = "the operator reads 401 or 403 in it, and takes the server for one with a login"
            raise self.findings.stop(name, words, then)
        raise self.findings.stop(name, words, _AGAIN, transient=answer.status >= 500)

    def _result(self, name: str, number: int, text: str, messages: tuple[Any, ...]) -> Any:
        """Return the result if the answer is one JSON-RPC message with our id; otherwise raise."""
        if len(messages) != 1 or not isinstance(messages[0], dict):
            words = f"{name}: the answer, data lines joined, is not a JSON object: {text[:100]!r}"
            raise self.findings.stop(name, words, f"the operator cannot read it; {_INVALID}")
        message = messages[0]
        answered = message.get("id")
        if isinstance(answered, bool) or answered != number or not isinstance(answered, int):
            words = f"{name}: the id {number} came back as {answered!r}"
            raise self.findings.stop(name, words, f"the operator cannot read it; {_INVALID}")
        if "error" in message:
            words = f"{name} is answered with an error: {message['error']}"
            then = _INVALID
            if any(mark in str(message["error"]) for mark in ("401", "403")):
                then = (
                    "the operator reads 401 or 403 in it, and takes the server for one with a login"
                )
            raise self.findings.stop(name, words, then)
        return message.get("result")

    def _introduced(self, result: Any, took: str) -> dict[str, Any]:
        """Check the result of `initialize` and return its capabilities."""
        facts = result if isinstance(result, dict) else {}
        date = facts.get("protocolVersion")
        if date not in _TAKEN:
            words = f"initialize at {_ASKED} is answered at {date!r}"
            then = f"the operator knows {', '.join(_TAKEN)} only; {_INVALID}"
            raise self.findings.stop("revision", words, then)
        info = facts.get("serverInfo")
        name = info.get("name") if isinstance(info, dict) else None
        if not isinstance(name, str) or not name:
            words = "serverInfo.name is missing in the answer to initialize"
            raise self.findings.stop("server_info", words, f"the operator wants it; {_INVALID}")
        self.findings.passed("initialize", f"initialize is answered at {date} by {name}{took}")
        capabilities = facts.get("capabilities")
        return capabilities if isinstance(capabilities, dict) else {}

    def _counted(self, method: str, member: str, result: Any, size: int) -> None:
        entries = result.get(member) if isinstance(result, dict) else None
        if not isinstance(entries, list):
            raise self.findings.stop(method, f"{method}: no list of {member}", _INVALID)
        self.findings.passed(method, f"{method}: {counted(len(entries), member)} in {size} bytes")

    async def _health(self) -> None:
        answer = await asked(at(self._place, "/health"), "GET", {}, _HEALTH)
        if answer.accepted:
            self.findings.passed("health", "/health is 200: alive and ready")
            return
        then = "with spec.healthCheck enabled the kubelet restarts the container"
        words = f"/health: {answer.problem or answer.status}"
        self.findings.failed("health", words, then)


def _named(capabilities: dict[str, Any]) -> list[str]:
    return [name for name in _LISTS if isinstance(capabilities.get(name), dict)]


async def try_until_good(
    place: httpx.URL, protocol: str, retry_wait_s: float, tell: Callable[[str], None]
) -> tuple[Findings, int]:
    """Make attempts as the operator does; return the last findings and the number of attempts.

    A transient failure is followed by another attempt while one is left.
    """
    for attempt in range(1, ATTEMPTS + 1):
        operator = McpOperator(place, protocol)
        transient = False
        try:
            await operator.run()
        except Stopped as stopped:
            transient = stopped.transient
        if not transient or attempt == ATTEMPTS:
            break
        tell(f"{operator.findings.checks[-1].words}; waiting {retry_wait_s:g} s")
        await anyio.sleep(retry_wait_s)
    return operator.findings, attempt
