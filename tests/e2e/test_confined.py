"""What a server may do on its machine: `--child-user` and what goes with it."""

from __future__ import annotations

import os
import sys

import pytest

from tests.support.bridge_process import RunningBridge, bridge, started

TELLS = (
    "/bin/sh",
    "-c",
    "{ grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapEff):' /proc/self/status; env; echo told; } >&2;"
    " exec cat > /dev/null",
)
"""No interpreter of ours: another user need not be able to read that."""


async def told(running: RunningBridge) -> dict[str, str]:
    """What the server says of itself: the lines of its status and its variables."""
    await running.logged("child.stderr", lambda record: record["line"] == "told")
    lines = [str(record["line"]) for record in running.events("child.stderr")]
    status = [line.replace("\t", " ").split(": ", 1) for line in lines if ":\t" in line]
    variables = [line.split("=", 1) for line in lines if "=" in line and ":\t" not in line]
    return {pair[0]: pair[1] for pair in (*status, *variables) if len(pair) == 2}


@pytest.mark.slow
async def test_a_server_is_another_user_or_the_bridge_does_not_start() -> None:
    """Root drops what it has, nothing that is executed brings it back; no other user may try."""
    # What it starts is not an MCP server, and ends by itself at its first start.
    given = ("--child-user", "65532:65531", "--child-env-allow", "SHO*", "--give-up-after", "0")
    words = (*given, "--", *TELLS)
    env = {"SHOWN": "1", "HIDDEN_KEY": "s", "HOME": "/root", "USER": "root"}
    if os.geteuid() != 0:
        async with started("--port", "0", *words, env=env) as running:
            assert await running.ended() == 2
        assert "only root" in running.events("serve.failed")[0]["problem"]
        return
    async with bridge(*words, env=env, ready=False) as running:
        found = await told(running)
        assert running.events("child.as_root") == []
    assert found["Uid"].split() == ["65532"] * 4
    assert found["Gid"].split() == ["65531"] * 4
    assert found["Groups"].split() == ["65531"]
    assert int(found["CapEff"], 16) == 0
    assert (found["HOME"], found["SHOWN"]) == ("/", "1")
    assert not {"USER", "HIDDEN_KEY"} & set(found)
    if sys.platform == "linux":
        assert found["NoNewPrivs"] == "1"


@pytest.mark.slow
async def test_privileges_can_be_forbidden_alone_and_root_is_told_of() -> None:
    """The server stays who the bridge is; that it is root is said once."""
    words = ("--no-new-privileges", "--give-up-after", "0", "--", *TELLS)
    async with bridge(*words, ready=False) as running:
        found = await told(running)
        assert found["NoNewPrivs"] == "1"
        assert found["Uid"].split()[0] == str(os.geteuid())
        told_of = running.events("child.as_root")
        assert len(told_of) == (os.geteuid() == 0)
