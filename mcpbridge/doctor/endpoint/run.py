"""`mcpbridge doctor URL`: checks the endpoint at a URL and reports the result."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from mcpbridge.client.http_client import at, http_url, path_of
from mcpbridge.doctor.endpoint import any_client, lifecycle_operator, mcp_operator
from mcpbridge.doctor.endpoint.checks import EndpointReport, Findings
from mcpbridge.errors import ConfigError

_USUAL_PATH = "/mcp"


def examine(
    url: str, operator: str | None, protocol: str, retry_wait_s: float, tell: Callable[[str], None]
) -> EndpointReport:
    """Check a running endpoint; start nothing and call no tool.

    Args:
        url: The endpoint; without a path `/mcp` is used.
        operator: `mcp-operator`, `lifecycle-operator`, or None for any client.
        protocol: For `mcp-operator`: `auto`, `streamable-http` or `sse`.
        retry_wait_s: Seconds that `mcp-operator` waits before its next attempt.
        tell: Receives messages about the progress.

    Raises:
        ConfigError: The URL is invalid.
    """
    try:
        place = http_url(url)
    except ValueError as error:
        raise ConfigError("URL", "", str(error), "write http://HOST:PORT/PATH") from None
    if path_of(place) == "/":
        place = at(place, _USUAL_PATH)

    async def visit() -> tuple[Findings, int]:
        tell(f"asking {place!s}")
        match operator:
            case "mcp-operator":
                return await mcp_operator.try_until_good(place, protocol, retry_wait_s, tell)
            case "lifecycle-operator":
                return await lifecycle_operator.check(place), 1
            case _:
                return await any_client.check(place), 1

    findings, attempts = anyio.run(visit)
    return EndpointReport(
        url=str(place),
        operator=operator,
        good=findings.good,
        attempts=attempts,
        checks=tuple(findings.checks),
    )
