"""The watch over a file: every way to save it is noticed, once it is written to its end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from mcpbridge.fleet.reload import LOOK_EVERY_S, FileWatch, stamp_of
from tests.bridge.playbook import bounded


def in_place(path: Path) -> None:
    """As `nano` saves."""
    path.write_text("changed")


def by_rename(path: Path) -> None:
    """As vim saves: another file takes the name."""
    beside = path.with_suffix(".new")
    beside.write_text("same")
    os.replace(beside, path)


def behind_a_link(path: Path) -> None:
    """As Kubernetes changes a ConfigMap: a link on the way leads to another folder."""
    other = path.parent.parent / "other"
    other.mkdir()
    (other / path.name).write_text("same")
    link = path.parent.parent / "link.new"
    link.symlink_to(other)
    os.replace(link, path.parent.parent / "link")


@pytest.mark.parametrize("save", [in_place, by_rename, behind_a_link])
@bounded
async def test_a_save_is_noticed(tmp_path: Path, save: Callable[[Path], None]) -> None:
    """However the editor, or Kubernetes, writes the file."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    path = tmp_path / "link" / "mcp.json"
    path.write_text("same")
    watch = FileWatch(path)
    changes = watch.changes()
    save(path)
    await anext(changes)
    assert path.read_text() in ("changed", "same")


@bounded
async def test_a_file_that_is_gone_is_no_change_until_it_is_back(tmp_path: Path) -> None:
    """Some editors remove the file before they write it again."""
    path = tmp_path / "mcp.json"
    path.write_text("one")
    changes = FileWatch(path).changes()
    path.unlink()
    path.write_text("two, and longer")
    await anext(changes)


@bounded
async def test_it_reports_when_asked(tmp_path: Path) -> None:
    """SIGHUP reads the file again, changed or not."""
    path = tmp_path / "mcp.json"
    path.write_text("same")
    watch = FileWatch(path)
    changes = watch.changes()
    for _ in range(2):
        watch.ask()
        await anext(changes)


@bounded
async def test_other_files_are_watched_from_the_moment_they_were_read(tmp_path: Path) -> None:
    """A change between the reading and the watch counts; a file that was not there may come."""
    path, read, missing = (tmp_path / name for name in ("mcp.json", "read.env", "missing.env"))
    for each in (path, read):
        each.write_text("same")
    watch = FileWatch(path)
    stamp = stamp_of(read)
    read.write_text("changed")
    watch.others({read: stamp, missing: None})
    changes = watch.changes()
    await anext(changes)
    missing.write_text("here")
    await anext(changes)
    # One that is gone holds up no other.
    read.unlink()
    path.write_text("changed")
    await anext(changes)


@bounded
async def test_a_file_that_is_named_no_more_is_not_watched(tmp_path: Path) -> None:
    """What no entry refers to concerns no server."""
    path, other = tmp_path / "mcp.json", tmp_path / "other.env"
    for each in (path, other):
        each.write_text("same")
    watch = FileWatch(path)
    watch.others({other: None})
    changes = watch.changes()
    await anext(changes)
    watch.others({})
    other.write_text("changed once more")
    watch.ask()
    await anext(changes)
    with anyio.move_on_after(3 * LOOK_EVERY_S) as limit:  # nothing tells that nothing comes
        await anext(changes)
    assert limit.cancelled_caught
