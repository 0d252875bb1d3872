"""Everything a client of the Python SDK 1.x may do, over both transports of the legacy era."""

from __future__ import annotations

import pytest

from tests.support.bridge_process import bridge
from tests.support.feature_report import judge
from tests.support.proofs import proves
from tests.support.sdk_clients import python_clients, reported
from tests.support.sdk_servers import mcp1_server

pytestmark = [pytest.mark.sdk, pytest.mark.slow]

PATHS = {"http": "/mcp", "sse": "/sse"}


@proves("C10", "C14", "C15", "C17", "C73")
@pytest.mark.parametrize("declared", [True, False], ids=["asked", "shared"])
@pytest.mark.parametrize("transport", list(PATHS))
async def test_two_sessions_at_once_do_all_there_is(transport: str, declared: bool) -> None:
    """Verbs, questions, pushes to the right session, a cancellation the child sees, 2 MB each way.

    The 2 MB come as an answer alone, as one after progress, and in a question and what is said to
    it.
    """
    options = ("--transport", transport, *(("--declare",) if declared else ()))
    async with bridge("--", *mcp1_server().argv) as between:
        url = f"{between.url}{PATHS[transport]}"
        report = await reported(python_clients()["mcp1"], "features", *options, target=(url,))
    judge(report, declared)
