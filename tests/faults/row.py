"""What the catalogue says of one fault."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One fault, what mcpbridge does about it, and why no test makes it happen, if none does."""

    number: int
    """What tests call it in their marker: `@proves("fault 17")`."""
    fault: str
    done: str
    reason: str = ""
    """Why it cannot happen here, or is decided otherwise or later; empty where tests prove it."""
