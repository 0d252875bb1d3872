"""Recommends flags of mcpbridge for a server, from the results of an examination; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from mcpbridge.doctor.server.report import Flag, Listing
from mcpbridge.process.spec import shown

_USUAL_START_S = 60.0
_NEAR = 0.5
"""Share of a bound above which a higher bound is recommended."""
_MIB = 1 << 20
_WINDOW = re.compile(
    r"^(?:browser|browserbase|chrome|chromium|devtools|firefox|playwright|puppeteer|selenium"
    r"|stagehand|webdriver)[_./-]"
    r"|(?:^|[_./-])(?:navigate|screenshot)(?:[_./-]|$)"
    r"|^(?:close|launch|new|open|start)_(?:browser|page|tab)$",
    re.IGNORECASE,
)
"""Tool names that work on a window which only one client can have: those of Playwright, Puppeteer,
Chrome DevTools, Browserbase, Selenium and similar servers."""


def flags(
    *,
    legacy: bool,
    modern: bool,
    handshake_s: float,
    longest_bytes: int,
    max_message_bytes: int,
    tools: Listing | None,
) -> tuple[Flag, ...]:
    """Return the flags to set, without those whose default is right.

    Args:
        legacy: It speaks the legacy revisions.
        modern: It speaks 2026-07-28.
        handshake_s: Seconds from its start to its first answer.
        longest_bytes: Size of its longest message so far, even if too long to be read.
        max_message_bytes: The current bound.
        tools: Its tools.
    """
    era = "dual" if legacy and modern else "modern" if modern else "legacy"
    found = [Flag(("--child-era", era), "saves a probe at each start")]
    if handshake_s > _USUAL_START_S * _NEAR:
        wanted = math.ceil(handshake_s * 3 / 30) * 30
        reason = f"it took {handshake_s:.0f} s to answer, and may take longer under load"
        found.append(Flag(("--start-timeout", f"{wanted}s"), reason))
    if longest_bytes > max_message_bytes * _NEAR:
        wanted = 2 ** math.ceil(math.log2(longest_bytes * 2 / _MIB))
        reason = f"a message of {longest_bytes} bytes came"
        found.append(Flag(("--max-message-bytes", f"{wanted}MiB"), reason))
    names = tools.names if tools is not None else ()
    alone = next((name for name in names if _WINDOW.search(name)), None)
    if alone is not None:
        reason = f"its tools, {alone} among them, work on something that only one client can have"
        found.append(Flag(("--isolation", "session"), reason))
        if handshake_s > 1.0:
            found.append(Flag(("--spares", "1"), f"each session would wait {handshake_s:.1f} s"))
    return tuple(found)


def command_line(
    argv: Sequence[str], given: Mapping[str, Sequence[str]], found: Sequence[Flag]
) -> str:
    """Return the command line that serves this server, with possible secrets masked.

    Args:
        argv: The server's command.
        given: The flags about the server that the doctor was given, with their texts.
        found: The result of `flags`.
    """
    own = [word for flag, texts in given.items() for text in texts for word in (flag, text)]
    own += [word for flag in found for word in flag.words]
    return " ".join(["mcpbridge", *([shown(own)] if own else []), "--", shown(argv)])
