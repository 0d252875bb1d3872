"""Looking after processes without holding the event loop: `/proc` is read in threads."""

from __future__ import annotations

import functools
import os
import signal
import threading
from pathlib import Path

import anyio
import pytest

from mcpbridge.channels.pipes import PipeChannel, PipeLimits
from mcpbridge.process import linux
from mcpbridge.process.process_tree import ProcessTree
from mcpbridge.process.reaper import Reaper
from mcpbridge.process.subprocess_child import SubprocessChild
from mcpbridge.rules.faults import Exit
from tests.process.lives import WITHIN_S, ended, gone, spec
from tests.support.proofs import proves


@proves("fault 15")
@pytest.mark.slow
@pytest.mark.parametrize("manner", ["obeys", "ignores"])
async def test_the_loop_reads_no_table_of_processes(
    manner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file for each process of the machine, or of thousands that a server left, takes long."""
    on_the_loop: set[str] = set()
    elsewhere: set[str] = set()
    loop_thread, read = threading.get_ident(), linux._read

    def watched(path: str) -> bytes | None:
        (on_the_loop if threading.get_ident() == loop_thread else elsewhere).add(path)
        return read(path)

    tree = ProcessTree(Reaper(None, "a-test"))
    monkeypatch.setattr(linux, "_read", watched)
    ends = functools.partial(PipeChannel, limits=PipeLimits())
    child = SubprocessChild(spec("escaping", str(tmp_path), manner), ends, tree)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tree.run)
        await tasks.start(child.run)
        with anyio.fail_after(WITHIN_S):
            while not (told := tmp_path / str(child.pid)).exists():  # noqa: ASYNC110 - no event
                await anyio.sleep(0.01)  # the server names its strays in a file
        strays = [int(pid) for pid in told.read_text().split()]
        child.stop(0.5)
        assert (await ended(child)).how == Exit(code=0)
        tasks.cancel_scope.cancel()
    # Its own score, when it raises the child's: one file.
    assert on_the_loop <= {"/proc/self/oom_score_adj"}
    assert {f"/proc/{pid}/stat" for pid in strays} & elsewhere
    # The test does not adopt orphans, so that one is left to it.
    (left,) = (pid for pid in strays if (stat := linux.stat_of(pid)) and stat.lives)
    os.kill(left, signal.SIGKILL)
    await gone(left)
