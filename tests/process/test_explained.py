"""Why a process could not be started, in words that an operator can act on."""

from __future__ import annotations

import errno
import os

import pytest

from mcpbridge.process.spawn import explained
from tests.support.proofs import proves


@proves("fault 16", "fault 104", "fault 112")
@pytest.mark.parametrize(
    ("number", "limit"),
    [(errno.EAGAIN, "ulimit -u"), (errno.EMFILE, "ulimit -n"), (errno.ENFILE, "fs.file-max")],
)
def test_a_limit_of_the_system_is_named(number: int, limit: str) -> None:
    """The kernel's own words, and what to raise."""
    text = explained(OSError(number, os.strerror(number)))
    assert text.startswith(os.strerror(number))
    assert limit in text


def test_any_other_reason_stands_alone() -> None:
    """Nothing is guessed."""
    assert explained(OSError(errno.E2BIG, "Argument list too long")) == "Argument list too long"
    assert explained(OSError("odd")) == "odd"
