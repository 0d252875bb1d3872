"""The files of commands on Windows, and the arguments that `cmd.exe` would change."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcpbridge.errors import CommandNotExecutable
from mcpbridge.process.spec import ChildSpec, startable
from mcpbridge.process.windows.command import check_words

SPOILED = ["a&b", "a|b", "<in", ">out", "pkg@^1.2", "%PATH%", 'say "x"', "two\nlines"]


@pytest.mark.parametrize("word", SPOILED)
def test_an_argument_that_cmd_exe_would_change_is_refused(word: str) -> None:
    """The error names the argument and the character; another program gets it."""
    with pytest.raises(CommandNotExecutable) as refused:
        check_words(r"C:\node\npx.CMD", ["-y", word])
    assert repr(word) in str(refused.value)
    check_words(r"C:\node\node.exe", ["-y", word])


def test_usual_arguments_of_batch_files_pass() -> None:
    """A package of a scope, a path with spaces, and options."""
    check_words("npx.cmd", ["-y", "@scope/server@1.2.3", r"C:\My Files", "--port=1", "it's", "(a)"])


def test_the_system_is_given_the_file_that_was_found(tmp_path: Path) -> None:
    """On Windows, in the PATH of the child; a command that is nowhere stays as it is."""
    file = tmp_path / "npx.cmd"
    file.write_text("@echo off")
    file.chmod(0o755)
    spec = ChildSpec(("npx.cmd", "-y", "x"), {"PATH": str(tmp_path)})
    assert startable(spec, on_windows=True) == (str(file), "-y", "x")
    assert startable(spec) == spec.argv
    nowhere = ChildSpec(("nowhere", "x"), {"PATH": str(tmp_path)})
    assert startable(nowhere, on_windows=True) == nowhere.argv
    spoiled = ChildSpec(("npx.cmd", "a&b"), {"PATH": str(tmp_path)})
    with pytest.raises(CommandNotExecutable):
        startable(spoiled, on_windows=True)
