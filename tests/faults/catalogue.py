"""The catalogue of faults, and the page of it for people: `make faults` prints it.

`python -m tests.faults.catalogue FILE` writes the page to a file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.faults import of_children, of_clients, of_hosts
from tests.faults.row import Row
from tests.faults.service_levels import LEVELS, NOT_PROMISED
from tests.support.proofs import faults

SECTIONS: Mapping[str, tuple[Row, ...]] = {
    "The server process": of_children.ROWS,
    "Clients and HTTP": of_clients.ROWS,
    "The process and its machine": of_hosts.ROWS,
}
ROWS = tuple(row for rows in SECTIONS.values() for row in rows)
AGAINST_THE_PROGRAM = ("e2e/", "suites/")
"""Where tests run the whole program, with real processes and sockets."""

_HEAD = """\
# What may go wrong, and what mcpbridge does

Made by `make docs`; do not edit. Each row names the tests that make its fault happen, all of them
against the running program with real processes and sockets, or says why none does. Tests are named
by their module in `tests/e2e`; in it, they are marked `@proves("fault 5")` if they prove row 5.

Calls that mcpbridge itself has to answer get the code -32603 with `data.mcpbridge`: the `reason`,
whether the call was `executed` (no, maybe, yes), and whether to try again (`retryable`).

## What you can rely on

| | proved by |
|---|---|
"""


def proved() -> dict[int, list[str]]:
    """The tests against the running program that name each row."""
    return {
        row: [test for test in tests if test.startswith(AGAINST_THE_PROGRAM)]
        for row, tests in faults().items()
    }


def unsettled(
    rows: Sequence[Row], found: Mapping[int, Sequence[str]], anywhere: Mapping[int, Sequence[str]]
) -> list[str]:
    """What is wrong with a catalogue, a line for each row.

    Args:
        rows: The catalogue.
        found: The tests against the running program that name each row.
        anywhere: All tests that do.
    """
    known = {row.number for row in rows}
    wrong = [
        f"{number}: no such row, in {tests}"
        for number, tests in anywhere.items()
        if number not in known
    ]
    for row in rows:
        if row.reason and anywhere.get(row.number):
            wrong.append(f"{row.number}: a reason beside {anywhere[row.number]}")
        elif not row.reason and not found.get(row.number):
            wrong.append(f"{row.number}: neither a test against the program nor a reason")
    return wrong


def page() -> str:
    """The whole page as Markdown."""
    found = proved()
    limits = "".join(f"- {each}\n" for each in NOT_PROMISED)
    parts = [
        _HEAD + "".join(f"| {level} | {by} |\n" for level, by in LEVELS),
        f"## What is not promised\n\n{limits}",
    ]
    for title, rows in SECTIONS.items():
        lines = "".join(_line(row, found.get(row.number, [])) for row in rows)
        head = "| | fault | what happens | tests, or why there are none |\n|---|---|---|---|\n"
        parts.append(f"## {title}\n\n{head}{lines}")
    return "\n".join(parts)


def _line(row: Row, tests: Sequence[str]) -> str:
    # Names of modules: those of tests would make the table too long to read.
    modules = dict.fromkeys(test.partition("::")[0] for test in tests)
    by = ", ".join(f"`{_short(module)}`" for module in modules) or row.reason
    return f"| {row.number} | {row.fault} | {row.done} | {by} |\n"


def _short(module: str) -> str:
    return module.removesuffix(".py").removeprefix("e2e/")


def main() -> None:
    """Print the page, or write it to the file named on the command line."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page(), "utf-8")
    else:
        sys.stdout.write(page())


if __name__ == "__main__":
    main()
