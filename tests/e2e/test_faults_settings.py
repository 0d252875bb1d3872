"""Settings that cannot be meant: nothing is started with a guess in their place."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.bridge_process import started
from tests.support.proofs import proves

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

SECRET = "hunter2-hunter2"


@proves("fault 120")
async def test_nothing_is_started_with_a_setting_that_cannot_be_meant(tmp_path: Path) -> None:
    """Neither a port nor the server: one line names the setting, and no secret is in it."""
    touched = tmp_path / "touched"
    (tmp_path / "env").write_text("no assignment\n")

    async def refused(words: tuple[str, ...], env: dict[str, str], named: str) -> None:
        command = ("--port", "0", *words, "--", "touch", str(touched))
        async with started(*command, env=env) as running:
            assert await running.ended() == 2
        # What it wrote has been read by now.
        assert (len(running.log), running.noise) == (1, [])
        (line,) = running.start_errors
        assert named in line
        assert SECRET not in line

    await asyncio.gather(
        refused((), {"MCPBRIDGE_STATE_KEY": SECRET}, "MCPBRIDGE_STATE_KEY"),
        refused((), {"MCPBRIDGE_MAX_SESSION": "5"}, "did you mean MCPBRIDGE_MAX_SESSIONS?"),
        refused((), {"MCPBRIDGE_ISOLATION": "perhaps"}, "MCPBRIDGE_ISOLATION"),
        refused(("--env-file", str(tmp_path / "none")), {}, "--env-file"),
        refused(("--env-file", str(tmp_path / "env")), {}, "--env-file"),
        refused(("--cwd", str(tmp_path / "none")), {}, "--cwd"),
    )
    assert not touched.exists()
