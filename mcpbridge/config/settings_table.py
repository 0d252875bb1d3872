"""Makes the tables of docs/settings.md from `model`.

`python -m mcpbridge.config.settings_table docs/settings.md` writes them there.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from mcpbridge.config.load import environment_names
from mcpbridge.config.model import Option, options
from mcpbridge.config.values import shown
from mcpbridge.settings import Unit

BEGIN = "<!-- settings: made by `make docs`, do not edit -->"
END = "<!-- end of settings -->"


def settings_tables() -> str:
    """Return every setting as Markdown, a table for each group in the order of `--help`."""
    order = list(dict.fromkeys(option.setting.group for option in options()))
    ordered = sorted(options(), key=lambda option: order.index(option.setting.group))
    parts = []
    for group, members in groupby(ordered, key=lambda option: option.setting.group):
        rows = "".join(_row(option) for option in members)
        parts.append(f"**{group}**\n\n| option | default | |\n|---|---|---|\n{rows}")
    return "\n".join(parts)


def with_settings(text: str) -> str:
    """Return a document with current tables between its two marks.

    Raises:
        ValueError: The marks are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{settings_tables()}\n{END}{after}"


def _row(option: Option) -> str:
    facts = option.setting
    values = "" if facts.unit is Unit.SWITCH else facts.metavar or facts.unit.value
    values = "\\|".join(facts.choices) or values.replace("|", "\\|")
    name = f"`{facts.flag} {values}`" if values else f"`{facts.flag}`"
    default = shown(option.default, facts.unit)
    also = [f"`{variable}`" for variable in environment_names(facts)[1:]]
    text = facts.help + (f" Also {', '.join(also)}." if also else "")
    return f"| {name} | {f'`{default}`' if default else ''} | {text} |\n"


def main() -> None:
    """Update the file named on the command line."""
    path = Path(sys.argv[1])
    path.write_text(with_settings(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
