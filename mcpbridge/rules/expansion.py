"""Expands references such as `${env:TOKEN}` in the files that list MCP servers.

The forms are those of VS Code and Claude Code. `$NAME` without braces is left as it is, and a value
that was filled in is not expanded again.

Source: VS Code, "Variables reference"; Claude Code, "Environment variable expansion in .mcp.json".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

_REFERENCE = r"\$\{([^}]*)(\}?)"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*\Z"
_FORMS = "${NAME}, ${NAME:-default}, ${env:NAME}, ${input:ID}, ${workspaceFolder} or ${userHome}"


class ExpansionError(ValueError):
    """A reference that has no value."""

    def __init__(self, reference: str, problem: str, remedy: str) -> None:
        super().__init__(reference, problem, remedy)
        self.reference = reference
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.reference}: {self.problem}; {self.remedy}"


class References(msgspec.Struct, frozen=True):
    """The values that references stand for."""

    environment: Mapping[str, str]
    workspace_folder: str
    user_home: str
    input_value: Callable[[str], str | None]
    """Returns the value of an input by its id, or None if there is none."""


def expand(text: str, references: References) -> str:
    """Return a text with each reference replaced by its value.

    Raises:
        ExpansionError: A reference has no value, or its form is unknown.
    """
    return re.sub(_REFERENCE, lambda found: _value(found, references), text)


def _value(found: re.Match[str], references: References) -> str:
    reference, content = found[0], found[1]
    if not found[2]:
        raise ExpansionError(reference, "the closing brace is missing", f"write {_FORMS}")
    if "${" in content:
        raise ExpansionError(reference, "references cannot be nested", f"write {_FORMS}")
    fixed = {"workspaceFolder": references.workspace_folder, "userHome": references.user_home}
    if content in fixed:
        return fixed[content]
    kind, colon, rest = content.partition(":")
    if colon and kind == "input":
        return _input(reference, rest, references)
    name, given, default = (rest if colon and kind == "env" else content).partition(":-")
    if re.match(_NAME, name) is None:
        raise ExpansionError(reference, "unknown kind of reference", f"write {_FORMS}")
    value = references.environment.get(name)
    # As in a shell, `:-` replaces an empty value too.
    if given and not value:
        return default
    if value is None:
        remedy = f"set it, or write ${{{name}:-default}}"
        raise ExpansionError(reference, f"the variable {name} is not set", remedy)
    return value


def _input(reference: str, key: str, references: References) -> str:
    value = references.input_value(key)
    if value is None:
        remedy = f"set {input_variable(key)}, or start mcpbridge on a terminal, where it asks"
        raise ExpansionError(reference, f"the input {key} has no value", remedy)
    return value


def input_variable(key: str) -> str:
    """Return the environment variable that gives an input its value, `MCPBRIDGE_INPUT_…`."""
    return "MCPBRIDGE_INPUT_" + re.sub(r"[^A-Za-z0-9]", "_", key).upper()
