"""Keys that change while the program runs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mcpbridge.bridge.keyring import KeyFile, Keyring
from mcpbridge.rules.access.state_keys import FOR_ID, state_keys

OLD, NEW = "o" * 32, "n" * 32


def test_a_changed_file_changes_the_keys_of_every_use(tmp_path: Path) -> None:
    """Also of the servers of a process with several."""
    file = tmp_path / "keys"
    file.write_text(OLD)
    key_file = KeyFile(str(file), state_keys(OLD))
    keyring = Keyring(key_file.current)
    of_all, of_one = keyring.keys_for(FOR_ID), keyring.of_server("a").keys_for(FOR_ID)
    assert of_all() == state_keys(OLD).derived(FOR_ID)
    file.write_text(f"{NEW} {OLD}")
    key_file.reload()
    assert of_all() == state_keys(f"{NEW} {OLD}").derived(FOR_ID)
    assert of_one() == state_keys(f"{NEW} {OLD}").of_server("a").derived(FOR_ID)


@pytest.mark.parametrize("content", ["", "short", None])
def test_an_unusable_file_changes_nothing(
    tmp_path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be half written; the log says why, once, and shows no key."""
    file = tmp_path / "keys"
    file.write_text(OLD)
    key_file = KeyFile(str(file), state_keys(OLD))
    key_file.reload()
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with caplog.at_level(logging.INFO, "mcpbridge.bridge"):
        key_file.reload()
        key_file.reload()
    assert key_file.current() == state_keys(OLD)
    assert [record.message for record in caplog.records] == ["keys.file_read_failed"]
