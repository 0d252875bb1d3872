"""What holds for every test: no test may leave an unhandled error behind."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings

# No deadlines: a test may run beside others on a busy machine.
settings.register_profile("fast", max_examples=40, deadline=None)
settings.register_profile("deep", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "fast")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules with most slow tests first.

    They wait more than they compute: begun last, they would leave the processors idle at the end.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


UNHANDLED = ("asyncio", "uvicorn.error")
"""The loggers that report failed tasks and callbacks, and applications that raised, as errors."""


class _Complaints(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record, with its traceback if it has one."""
        self.heard.append(logging.Formatter().format(record))


@pytest.fixture(autouse=True)
def nothing_is_left_unhandled() -> Iterator[None]:
    """An exception of a task that was not retrieved, a failed callback or application: each fails.

    Of the program as a process `tests.support.bridge_process` asserts the same.
    """
    complaints = _Complaints()
    for name in UNHANDLED:
        logging.getLogger(name).addHandler(complaints)
    try:
        yield
    finally:
        for name in UNHANDLED:
            logging.getLogger(name).removeHandler(complaints)
    assert complaints.heard == []


@pytest.fixture(autouse=True)
def no_signal_stays_held() -> Iterator[None]:
    """Fail a test that leaves signals blocked: processes of later tests would inherit the mask.

    SIGTERM and SIGINT would not end them then.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    after = signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert after == before
