"""What an SBOM has to name: the releases that constraints.txt locks for an installation."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def listed(spdx: str) -> dict[str, str]:
    """Return the releases of Python packages in an SPDX document, by canonical name."""
    return {
        canonicalize_name(each["name"]): each["versionInfo"]
        for each in json.loads(spdx)["packages"]
        if any(
            ref["referenceLocator"].startswith("pkg:pypi/") for ref in each.get("externalRefs", ())
        )
    }


def locked() -> dict[str, str]:
    """Return the releases of constraints.txt, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


def installed_with(extras: Iterable[str]) -> set[str]:
    """Return the canonical names of all that mcpbridge and these extras of it pull on Linux.

    Read from the metadata of this environment, which holds all of them.
    """
    wanted, found = [("mcpbridge", frozenset(extras))], set[str]()
    while wanted:
        name, asked = wanted.pop()
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            environments = [{"extra": extra} for extra in (asked or {""})] + [{"extra": ""}]
            if needed.marker is None or any(map(needed.marker.evaluate, environments)):
                wanted.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return found
