"""Decides which of the server's tools clients may use: `--allow-tool`, `--deny-tool`.

To every client a denied tool is one that the server does not have: no list contains it, and a call
of it is answered like a call of an unknown tool. What counts is the call: if its name cannot be
read beyond doubt (missing, not a string, a lone surrogate, given twice, in capitals beside the
right spelling), the server might read it differently from the bridge, so with a policy it is
refused. So is a method that some server might take for `tools/call` or `tools/list`: in capitals,
with spaces, or with another character between its words.

Source: MCP 2025-11-25 and 2026-07-28, Tools, Error Handling: an unknown tool is a protocol error,
-32602 in the specification's own example.
"""

from __future__ import annotations

import fnmatch

from mcpbridge.errors import ToolDenied, WireError
from mcpbridge.settings import SettingsSection, setting
from mcpbridge.wire.json_object import element_spans, member, replaced, spans, unambiguous
from mcpbridge.wire.messages import text_of

TOOLS_CALL = "tools/call"
TOOLS_LIST = "tools/list"
_PLAIN = {"toolscall": TOOLS_CALL, "toolslist": TOOLS_LIST}
_SHOWN = 128
"""Characters of a name that the error repeats to the caller."""


def tool_glob(text: str) -> str:
    """Return a pattern for tool names: `*`, `?`, `[a-z]` and `[!a-z]`; case counts.

    Raises:
        ValueError: The text is empty; the message completes a sentence that begins with the value.
    """
    if not text:
        raise ValueError("matches no name; write a name, or a pattern such as read_*")
    return text


class ToolPolicy(SettingsSection, frozen=True):
    """The patterns; a tool passes if it matches one of `allowed`, if any, and none of `denied`."""

    allowed: tuple[str, ...] = setting(
        (),
        "--allow-tool",
        "Serve only tools whose names match; `*`, `?` and `[…]` as in file names, case counts; may"
        " be repeated. All others are unknown to clients.",
        group="Tools",
        metavar="GLOB",
        repeatable=True,
        quoted=True,
        parse=tool_glob,
    )
    denied: tuple[str, ...] = setting(
        (),
        "--deny-tool",
        "Serve no tool whose name matches, even if --allow-tool names it; may be repeated.",
        group="Tools",
        metavar="GLOB",
        repeatable=True,
        quoted=True,
        parse=tool_glob,
    )

    @property
    def says_something(self) -> bool:
        """Whether there is a pattern; without one all tools pass."""
        return bool(self.allowed or self.denied)

    def permits(self, name: str) -> bool:
        """Return whether clients may see and call the tool with exactly this name."""
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self.denied):
            return False
        return not self.allowed or any(fnmatch.fnmatchcase(name, each) for each in self.allowed)

    def check_method(self, method: str) -> None:
        """Check that no server could mistake a method for one that the policy inspects.

        Raises:
            WireError: The method is not `tools/call` or `tools/list` but could be read as one of
                them.
        """
        plain = method if method.isascii() else _compatible(method)
        letters = filter(str.isalnum, plain.casefold())
        meant = _PLAIN.get("".join(letters), method)
        if meant != method:
            raise WireError(f"the method could be read as {meant} (--allow-tool, --deny-tool)")

    def check_call(self, params: bytes | None) -> None:
        """Check a `tools/call` with these parameters.

        Raises:
            ToolDenied: Clients may not use the tool.
            WireError: The name of the tool cannot be read beyond doubt.
        """
        found = spans(params or b"{}")
        span = unambiguous(found, "name")
        name = text_of(params[slice(*span)]) if params is not None and span is not None else None
        if name is None:
            raise WireError("params.name (a string) is missing")
        if not self.permits(name):
            raise ToolDenied(name[:_SHOWN])

    def listed(self, result: bytes) -> bytes:
        """Return a `tools/list` result without the denied tools.

        The other tools, and every other member such as the cursor, stay the server's own bytes; a
        page may become empty. A tool whose name cannot be read could not be called and is removed.

        Raises:
            WireError: The result is malformed, so that a client could find tools in it that we do
                not.
        """
        span = unambiguous(spans(result), "tools")
        if span is None:
            return result
        tools = result[slice(*span)]
        if tools == b"null":
            return result
        found = element_spans(tools)
        kept = [tools[start:end] for start, end in found if self._shows(tools[start:end])]
        if len(kept) == len(found):
            return result
        return replaced(result, [(span, b"[%b]" % b",".join(kept))])

    def _shows(self, tool: bytes) -> bool:
        try:
            name = text_of(member(tool, "name"))
        except WireError:
            return False
        return name is not None and self.permits(name)


def _compatible(name: str) -> str:
    """Return a name in the form in which letters that look alike are the same (NFKC)."""
    import unicodedata  # only here: a table of 0.1 MiB that few names need

    return unicodedata.normalize("NFKC", name)
