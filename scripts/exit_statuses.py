"""The page of exit statuses: `python -m scripts.exit_statuses docs/exit-statuses.md` writes it.

Numbers and meanings are the constants of `mcpbridge.runtime.exit_status` and the strings below
them.
"""

from __future__ import annotations

import ast
import sys
from itertools import pairwise
from pathlib import Path

from mcpbridge.runtime import exit_status

_HEAD = """\
# Exit statuses

Made by `make docs`; do not edit.

| status | meaning |
|---|---|
"""
_TAIL = """\
| 130 | Ended by a third signal. |
| other | Your server kept failing: its own status, or 128 + n after signal n. |
"""


def meanings(source: str) -> dict[int, str]:
    """Return what each exit status means.

    Args:
        source: The text of a module with constants `EXIT_…`, each with a string below it.

    Raises:
        ValueError: A constant has no string.
    """
    found = {}
    for statement, below in pairwise(ast.parse(source).body):
        match statement, below:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int(number))),
                _,
            ) if name.startswith("EXIT_"):
                if not (isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)):
                    raise ValueError(f"{name} has no meaning below it")
                found[number] = str(below.value.value)
    return found


def page() -> str:
    """Return the page as Markdown."""
    source = Path(exit_status.__file__).read_text("utf-8")
    rows = "".join(f"| {number} | {text} |\n" for number, text in meanings(source).items())
    return f"{_HEAD}{rows}{_TAIL}"


def main() -> None:
    """Write the page to the file named on the command line."""
    Path(sys.argv[1]).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
