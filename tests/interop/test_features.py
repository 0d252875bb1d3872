"""Everything a legacy client of the TypeScript SDK 1.x may do, over both of its transports."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.interop.test_interop import typescript_client, typescript_server
from tests.support.bridge_process import bridge
from tests.support.feature_report import judge
from tests.support.proofs import proves
from tests.support.sdk_clients import reported
from tests.support.sdk_servers import Server, mcp1_server

pytestmark = [pytest.mark.interop, pytest.mark.slow]

PATHS = {"http": "/mcp", "sse": "/sse"}


# Each language asks questions in its own way; what a shared child is told is the bridge's doing.
CASES = [(typescript_server, True), (typescript_server, False), (mcp1_server, True)]
NAMES = ["typescript-asked", "typescript-shared", "mcp1-asked"]


@proves("C10", "C14", "C15", "C17", "C73")
@pytest.mark.parametrize("transport", list(PATHS))
@pytest.mark.parametrize(("server", "declared"), CASES, ids=NAMES)
async def test_two_sessions_at_once_do_all_there_is(
    server: Callable[[], Server], declared: bool, transport: str
) -> None:
    """Verbs, questions, pushes to the right session, a cancellation the child sees, 2 MB each way.

    The 2 MB come as an answer alone, as one after progress, and in a question and what is said to
    it.
    """
    options = ("--transport", transport, *(("--declare",) if declared else ()))
    async with bridge("--", *server().argv) as between:
        url = f"{between.url}{PATHS[transport]}"
        report = await reported(typescript_client(), "features", *options, target=(url,))
    judge(report, declared)
