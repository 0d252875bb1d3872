"""The flags that fit a server follow from what the doctor has found."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from mcpbridge.doctor.server.recommended_flags import command_line, flags
from mcpbridge.doctor.server.report import Listing

QUICK: dict[str, Any] = {
    "legacy": True,
    "modern": False,
    "handshake_s": 0.2,
    "longest_bytes": 1000,
    "max_message_bytes": 16 << 20,
    "tools": None,
}
WINDOW = Listing(1, 10, 1, ("browser_click",))


def words(**changes: Any) -> list[tuple[str, ...]]:
    """The flags for a server that differs from a quick one like this."""
    found = flags(**{**QUICK, **changes})
    assert all(flag.reason for flag in found)
    return [flag.words for flag in found]


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, []),
        ({"handshake_s": 29.0}, []),
        ({"handshake_s": 45.0}, [("--start-timeout", "150s")]),
        ({"longest_bytes": 9 << 20}, [("--max-message-bytes", "32MiB")]),
        ({"longest_bytes": 20 << 20}, [("--max-message-bytes", "64MiB")]),
        ({"tools": WINDOW}, [("--isolation", "session")]),
        ({"tools": WINDOW, "handshake_s": 3.0}, [("--isolation", "session"), ("--spares", "1")]),
    ],
)
def test_what_the_default_does_not_fit_is_set(
    changes: dict[str, Any], more: list[tuple[str, ...]]
) -> None:
    """And nothing else; the era is always known afterwards."""
    assert words(**changes) == [("--child-era", "legacy"), *more]


@pytest.mark.parametrize(
    ("name", "alone"),
    [
        ("browser_click", True),
        ("puppeteer_navigate", True),
        ("playwright_click", True),
        ("navigate_page", True),
        ("take_screenshot", True),
        ("new_page", True),
        ("chrome_navigate", True),
        ("stagehand_act", True),
        ("start_browser", True),
        ("browserbase_session_create", True),
        ("navigate", True),
        ("create_page", False),
        ("search", False),
        ("file_browser", False),
        ("list_pages", False),
        ("open_session", False),
    ],
)
def test_every_server_of_a_window_is_known_by_its_tools(name: str, alone: bool) -> None:
    """Whichever browser, driver or vendor it is of."""
    found = words(tools=Listing(2, 10, 1, ("other", name)))
    assert (("--isolation", "session") in found) == alone


def test_the_era_is_what_was_seen() -> None:
    """One of the three."""
    assert words(modern=True)[0] == ("--child-era", "dual")
    assert words(modern=True, legacy=False)[0] == ("--child-era", "modern")


def test_the_line_can_be_pasted() -> None:
    """Quoted where a shell would split it, without what looks like a secret."""
    given = {"--env": ["A=b c", "API_KEY=x"], "--cwd": ["/my folder"]}
    line = command_line(("python", "my server.py"), given, flags(**QUICK))
    assert shlex.split(line) == [
        "mcpbridge",
        *("--env", "A=b c", "--env", "API_KEY=***", "--cwd", "/my folder"),
        *("--child-era", "legacy", "--", "python", "my server.py"),
    ]
    assert command_line(("x",), {}, ()) == "mcpbridge -- x"
