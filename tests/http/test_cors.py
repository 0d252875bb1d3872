"""Who may read an answer, and what a browser is told before it asks."""

from __future__ import annotations

import pytest
from starlette.types import Receive, Scope, Send

from mcpbridge.http.cors import Cors
from mcpbridge.http.responses import send_json
from mcpbridge.rules.access.hosts import HostRules
from tests.bridge.playbook import bounded
from tests.http.fakes import Wire, scope
from tests.support.proofs import proves

LISTED = "https://app.example.org"
RULES = HostRules(loopback=True, allowed_origins=(LISTED, "null"))
ALL = HostRules(loopback=True, allowed_origins=("*",))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """An application with its own headers."""
    await send_json(send, 404, b"{}", [(b"x-own", b"1")])


async def asked(
    rules: HostRules, method: str, *headers: tuple[str, str], more: tuple[str, ...] = ()
) -> Wire:
    """One request and its answer."""
    wire = Wire()
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    cors = Cors(app, rules, lambda path: ["POST", path.removeprefix("/")], more)
    await cors(scope(method, "/GET", pairs), wire.receive, wire.send)
    return wire


def told(wire: Wire) -> dict[str, str]:
    """What the browser is told."""
    return {n: v for n, v in wire.headers.items() if n.startswith("access-control-") or n == "vary"}


@pytest.mark.parametrize("origin", [LISTED, "null"])
@bounded
async def test_a_listed_origin_reads_the_answer_as_it_is(origin: str) -> None:
    """Whatever the status, with all headers of the application; it names itself alone."""
    wire = await asked(RULES, "POST", ("origin", origin))
    assert (wire.status, wire.headers["x-own"], wire.chunks) == (404, "1", [b"{}"])
    assert told(wire) == {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": "Mcp-Session-Id, Retry-After, WWW-Authenticate",
        "vary": "Origin",
    }


@proves("fault 91")
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost", "*", "", "https://app.example.org\xe4"]
)
@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
@bounded
async def test_nobody_else_is_told_anything(origin: str, method: str) -> None:
    """The request goes on to the application, a preflight like any other."""
    wanted = ("access-control-request-method", "POST")
    wire = await asked(RULES, method, ("origin", origin), wanted)
    assert (wire.status, told(wire)) == (404, {})


@bounded
async def test_who_has_no_origin_passes_untouched() -> None:
    """No browser, or nothing to read."""
    assert told(await asked(RULES, "POST")) == {}
    assert told(await asked(ALL, "OPTIONS", ("access-control-request-method", "POST"))) == {}


@proves("fault 91")
@bounded
async def test_for_all_means_all_and_without_credentials() -> None:
    """The same answer for all needs no Vary; never with credentials."""
    wire = await asked(ALL, "POST", ("origin", "https://any.example"))
    assert told(wire)["access-control-allow-origin"] == "*"
    assert "vary" not in told(wire)
    assert "access-control-allow-credentials" not in told(wire)


@bounded
async def test_a_preflight_is_answered_here() -> None:
    """With the path's methods, the headers of the protocol, and those that a tool asks for."""
    names = "Content-Type, mcp-param-Region, MCP-PARAM-a.b, mcp-param-, mcp-param-a b, x-y, cookie"
    wire = await asked(
        RULES,
        "OPTIONS",
        ("origin", LISTED),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", names),
        more=("X-Api-Key",),
    )
    assert (wire.status, wire.chunks) == (204, [b""])
    assert told(wire)["access-control-allow-methods"] == "POST, GET"
    assert "access-control-allow-private-network" not in told(wire)
    allowed = told(wire)["access-control-allow-headers"].split(", ")
    assert allowed[-3:] == ["X-Api-Key", "mcp-param-region", "mcp-param-a.b"]
    assert {"Authorization", "Mcp-Session-Id", "Last-Event-ID"} <= set(allowed)


@bounded
async def test_a_preflight_cannot_make_an_answer_long() -> None:
    """However many headers it names, and however long."""
    names = ",".join(f"mcp-param-{number}" for number in range(1000)) + ",mcp-param-" + "x" * 9999
    wire = await asked(
        RULES,
        "OPTIONS",
        ("origin", LISTED),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", names),
    )
    assert len(told(wire)["access-control-allow-headers"]) < 2000


@bounded
async def test_options_without_a_question_is_no_preflight() -> None:
    """And one for a Host that is not served here is refused like anything else."""
    assert (await asked(RULES, "OPTIONS", ("origin", LISTED))).status == 404
    wanted = ("access-control-request-method", "POST")
    wire = await asked(RULES, "OPTIONS", ("origin", LISTED), wanted, ("host", "evil.example"))
    assert (wire.status, "access-control-allow-methods" in told(wire)) == (404, False)


@bounded
async def test_what_is_no_http_is_left_alone() -> None:
    """It has no headers to look at."""
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    wire = Wire()
    await Cors(inner, ALL, lambda path: ())({"type": "lifespan"}, wire.receive, wire.send)
    assert (seen, wire.sent) == (["lifespan"], [])
