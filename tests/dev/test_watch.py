"""Which files of a server are watched, and what is seen of changes in real folders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from mcpbridge.dev import watch
from mcpbridge.dev.watch import FileWatcher, watched_as_asked, watched_by_default
from mcpbridge.errors import ConfigError
from tests.support.developing import save

PYTHON = ("python", "server.py")


def touched(*paths: Path) -> None:
    """Make empty files, and their folders."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("command", "folder", "counts", "passes"),
    [
        ("python src/server.py", "src", "a/b.py", "a/b.js"),
        ("python3.12 -u src/server.py --flag", "src", "server.py", "server.pyc"),
        ("uv run src/server.py", "src", "x.py", "x.txt"),
        ("python -m package.server", ".", "package/server.py", "package/data.json"),
        ("node src/index.mjs", "src", "lib/x.ts", "x.json"),
        ("npx tsx src/main.ts", "src", "main.ts", "main.py"),
        ("./run.sh", ".", "run.sh", "other.txt"),
    ],
)
def test_the_files_of_the_language_beside_the_script_are_watched(
    tmp_path: Path, command: str, folder: str, counts: str, passes: str
) -> None:
    """Or in the folder in which a module is started."""
    touched(*(tmp_path / "src" / name for name in ("server.py", "index.mjs", "main.ts")))
    touched(tmp_path / "run.sh")
    found = watched_by_default(command.split(), tmp_path)
    assert found is not None
    assert found.folder == (tmp_path / folder).resolve()
    assert found.matches(found.folder / counts)
    assert not found.matches(found.folder / passes)
    assert not found.matches(tmp_path.parent / counts)


@pytest.mark.parametrize("name", sorted(watch.IGNORED))
def test_what_tools_write_is_no_change(tmp_path: Path, name: str) -> None:
    """Nor a change in a package that is not the server's own."""
    touched(tmp_path / "server.py")
    found = watched_by_default(PYTHON, tmp_path)
    assert found is not None
    assert not found.matches(tmp_path / name / "x.py")
    assert not found.matches(tmp_path / "a" / name / "x.py")


@pytest.mark.parametrize(
    "command", ["npx -y @scope/server", "uvx some-server", "docker run -i image"]
)
def test_of_a_package_nothing_is_known(tmp_path: Path, command: str) -> None:
    """The folder in which it is started may be any."""
    assert watched_by_default(command.split(), tmp_path) is None


def test_of_a_program_of_no_known_language_every_file_may_count(tmp_path: Path) -> None:
    """Unless only what is certain is asked for, as among several servers in one folder."""
    found = watched_by_default(["weather"], tmp_path)
    assert found is not None
    assert found.matches(tmp_path / "any.txt")
    assert watched_by_default(["weather"], tmp_path, any_language=False) is None
    touched(tmp_path / "run")
    assert watched_by_default(["./run"], tmp_path, any_language=False) is not None


def test_the_home_folder_is_not_watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor is the root: the system limits how many folders can be watched."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert watched_by_default(["python", "-m", "server"], tmp_path) is None
    assert watched_by_default(["python", "-m", "server"], Path("/")) is None


def test_of_a_script_in_the_home_folder_the_files_beside_it_are_watched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A first server is often written there; what is below is not the server's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    touched(tmp_path / "server.py", tmp_path / "below" / "other.py")
    found = watched_by_default(PYTHON, tmp_path)
    assert found is not None
    assert (found.folder, found.deep) == (tmp_path, False)
    assert found.means == f"*.py in {tmp_path}, but not in folders below"
    assert found.matches(tmp_path / "helper.py")
    assert not found.matches(tmp_path / "below" / "other.py")
    assert not found.matches(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("asked", "counts", "passes"),
    [
        ("src", ["src/a.py", "src/deep/a.py"], ["a.py", "src/a.txt", "other/a.py"]),
        ("src/only.py", ["src/only.py"], ["src/a.py", "src/deep/only.py"]),
        ("src/*.py", ["src/a.py"], ["src/deep/a.py", "src/a.pyc", "a.py"]),
        ("src/**/*.py", ["src/a.py", "src/deep/er/a.py"], ["a.py", "src/deep/a.txt"]),
        ("**", ["a.txt", "src/deep/a.bin"], ["node_modules/a.txt"]),
        ("src/**", ["src/a.txt", "src/deep/a"], ["a.txt"]),
        ("s*/d[a-f]?p/[!b].x+", ["src/deep/a.x+"], ["src/deep/b.x+", "src/deep/a.xx"]),
        ("../*.toml", [], ["src/a.py"]),
    ],
)
def test_a_folder_a_file_or_a_pattern_may_be_named(
    tmp_path: Path, asked: str, counts: list[str], passes: list[str]
) -> None:
    """A pattern has the signs of shells."""
    folder = tmp_path / "project"
    touched(folder / "src" / "only.py", folder / "src" / "deep" / "x")
    (found,) = watched_as_asked([asked], PYTHON, folder)
    assert [name for name in counts if not found.matches(folder / name)] == []
    assert [name for name in passes if found.matches(folder / name)] == []
    assert found.means


def test_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    """It would never change."""
    for wrong in ("none", "none/*.py", "none/**"):
        with pytest.raises(ConfigError, match="no such file or folder"):
            watched_as_asked([wrong], PYTHON, tmp_path)


@asynccontextmanager
async def watching(folder: Path, *asked: str) -> AsyncIterator[Callable[..., object]]:
    """Watch a folder; what is yielded waits for the names of the next changes."""
    seen: asyncio.Queue[list[str]] = asyncio.Queue()
    begun = anyio.Event()
    watcher = FileWatcher(watched_as_asked(asked or ["."], PYTHON, folder))
    async with asyncio.timeout(30), anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run, begun.set, seen.put_nowait)
        await begun.wait()
        yield seen.get
        tasks.cancel_scope.cancel()
    assert seen.empty()


@pytest.mark.slow
async def test_every_way_of_saving_is_seen_once(tmp_path: Path) -> None:
    """In place, by rename, a new file, one that is removed; a burst is one change."""
    touched(tmp_path / "a.py", tmp_path / "b.py", tmp_path / "node_modules" / "x" / "y.py")
    async with watching(tmp_path) as seen:
        (tmp_path / "a.py").write_text("1", "utf-8")
        assert await seen() == ["a.py"]  # type: ignore[misc]
        save(tmp_path / "a.py", "2")
        assert await seen() == ["a.py"]  # type: ignore[misc]
        save(tmp_path / "a.txt", "3")
        touched(tmp_path / "node_modules" / "x" / "z.py")
        (tmp_path / "b.py").unlink()
        (tmp_path / "c.py").write_text("4", "utf-8")
        assert await seen() == ["b.py", "c.py"]  # type: ignore[misc]


@pytest.mark.slow
async def test_a_new_folder_is_watched_with_what_is_in_it(tmp_path: Path) -> None:
    """Also with what was put into it before it was watched."""
    touched(tmp_path / "a.py")
    async with watching(tmp_path) as seen:
        touched(tmp_path / "new" / "deep" / "b.py")
        assert await seen() == ["new/deep/b.py"]  # type: ignore[misc]
        save(tmp_path / "new" / "deep" / "b.py", "1")
        assert await seen() == ["new/deep/b.py"]  # type: ignore[misc]


async def test_too_many_folders_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the system refuses; the error says what to do."""
    monkeypatch.setattr(watch, "MAX_FOLDERS", 3)
    touched(*(tmp_path / str(number) / "a.py" for number in range(4)))
    watcher = FileWatcher(watched_as_asked(["."], PYTHON, tmp_path))
    with pytest.raises(ConfigError, match=r"more than 3 folders.*name fewer"):
        await watcher.run(lambda: None, lambda names: None)


def test_the_recording_itself_does_not_count(tmp_path: Path) -> None:
    """It changes with each call; a reload for each would never end."""
    recording, other = tmp_path / "tape.jsonl", tmp_path / "other.jsonl"
    watched = watched_as_asked(["*.jsonl"], ["python", "server.py"], tmp_path)
    assert FileWatcher(watched, [recording]).names([recording, other]) == ["other.jsonl"]
