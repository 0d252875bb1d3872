"""The parts of the page that need no server."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest
from anyio import to_thread

from mcpbridge.dev.page import page
from mcpbridge.dev.page.document import policy_of
from mcpbridge.dev.page.page import RingSink
from mcpbridge.tape.frame import Direction, Frame
from mcpbridge.tape.ring import Ring

PAGE = Path(page.__file__).with_name("page.html").read_bytes()


def frame(seq: int) -> Frame:
    """A frame."""
    return Frame("s", "demo", seq, 0, Direction.STDERR, text="x")


async def test_a_frame_of_another_thread_is_read_in_the_loop() -> None:
    """A reader that waits for it wakes up."""
    ring = Ring()
    sink = RingSink(ring)
    sink.put(frame(1), None)
    reader = ring.reader(1)
    await to_thread.run_sync(sink.put, frame(2), None)
    assert [each.seq for each in (await reader.read()).frames] == [2]


def test_the_policy_admits_the_script_and_style_of_the_page_alone() -> None:
    """By their hashes; another text has others."""
    policy = policy_of(PAGE)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    for tag in (b"script", b"style"):
        (text,) = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), PAGE, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        assert f"{tag.decode()}-src 'sha256-{digest}'" in policy
    assert policy_of(PAGE.replace(b"use strict", b"use Strict")) != policy


@pytest.mark.parametrize(
    "word",
    ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "src="],
)
def test_the_page_sets_text_and_nothing_else(word: str) -> None:
    """What a server says is never parsed as HTML or script; nothing is loaded."""
    assert word.encode() not in PAGE
