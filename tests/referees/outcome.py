"""What a suite says of a server, and what of it a second server has lost.

The first server is the reference: whatever it passes, the second must pass too. A check has an
id and comes any number of times in one scenario; `INFO` and `SKIPPED` say that it did not apply.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PASSED = "SUCCESS"
COMPLAINTS = frozenset({"FAILURE", "WARNING"})
INAPPLICABLE = frozenset({"INFO", "SKIPPED"})

_RESULT_FOLDER = re.compile(r"server-(?P<scenario>.+?)-\d{4}-\d\d-\d\dT[\d-]+Z")


@dataclass(frozen=True)
class Check:
    """One verdict of a suite."""

    id: str
    status: str
    """`SUCCESS`, `FAILURE`, `WARNING`, `INFO` or `SKIPPED`."""
    message: str = ""
    """What is wrong, in the suite's words."""


@dataclass(frozen=True)
class Loss:
    """A check that the reference does better."""

    check_id: str
    reference: str
    """Statuses there, or `absent`."""
    ours: str
    """Statuses here, or `absent`."""
    message: str
    """The suite's complaint about ours."""


def scenario_of(folder: str) -> str | None:
    """The scenario whose results a folder of this name holds; None for any other folder."""
    found = _RESULT_FOLDER.fullmatch(folder)
    return found["scenario"] if found else None


def read_checks(found: Iterable[Mapping[str, Any]]) -> list[Check]:
    """The verdicts in a decoded `checks.json`."""
    return [Check(each["id"], each["status"], each.get("errorMessage") or "") for each in found]


def score(checks: Iterable[Check]) -> tuple[int, int]:
    """How many checks passed, of how many that applied."""
    applied = [each for each in checks if each.status not in INAPPLICABLE]
    return sum(each.status == PASSED for each in applied), len(applied)


def lost(reference: Sequence[Check], ours: Sequence[Check]) -> list[Loss]:
    """The checks that pass less often here than there, or are complained of more often.

    The second half catches a scenario that breaks off here: what it never came to is missing, and
    what stands in its place has an id that the reference knows nothing of.
    """
    passed_there, passed_here = _passed(reference), _passed(ours)
    wrong_there, wrong_here = _wrong(reference), _wrong(ours)
    found = {
        check_id for check_id in passed_there if passed_here[check_id] < passed_there[check_id]
    }
    found |= {check_id for check_id in wrong_here if wrong_here[check_id] > wrong_there[check_id]}
    return [
        Loss(
            check_id,
            _statuses(reference, check_id),
            _statuses(ours, check_id),
            "; ".join(each.message for each in ours if each.id == check_id and each.message),
        )
        for check_id in sorted(found)
    ]


def undecided(reference: Sequence[Check], ours: Sequence[Check]) -> set[str]:
    """Checks that the reference passes and that ours is said not to be concerned by.

    A check that is absent here is not among them: it may be absent because something broke.
    """
    statuses = {
        loss.check_id: {c.status for c in ours if c.id == loss.check_id}
        for loss in lost(reference, ours)
    }
    return {check_id for check_id, here in statuses.items() if here and here <= INAPPLICABLE}


@dataclass(frozen=True)
class Verdict:
    """One scenario of one suite, asked of the reference and of the bridge."""

    reference: Sequence[Check]
    ours: Sequence[Check]
    """As the bridge is by default."""
    streamed: Sequence[Check] | None = None
    """As it is where every answer is a stream; None if nothing was left undecided."""

    @property
    def losses(self) -> list[Loss]:
        """Empty where the bridge does no worse in either form."""
        losses = lost(self.reference, self.ours)
        if self.streamed is not None:
            excused = undecided(self.reference, self.ours)
            losses = [loss for loss in losses if loss.check_id not in excused]
            losses += lost(self.reference, self.streamed)
        return losses

    @property
    def decided(self) -> list[Check]:
        """The bridge's checks, those that were undecided in the form that decides them."""
        if self.streamed is None:
            return list(self.ours)
        excused = undecided(self.reference, self.ours)
        kept = [each for each in self.ours if each.id not in excused]
        return kept + [each for each in self.streamed if each.id in excused]


def table(verdicts: Mapping[str, Mapping[str, Verdict]]) -> str:
    """Passed/applied of every scenario: a row each, two columns a suite, sums last.

    Args:
        verdicts: Suite to scenario to verdict; scenarios in the order of their rows.
    """
    names = list(dict.fromkeys(name for found in verdicts.values() for name in found))
    width = max(map(len, [*names, "scenario"]))
    rows = ["  ".join([" " * width, *(f"{suite:^15}" for suite in verdicts)])]
    rows.append(
        "  ".join([f"{'scenario':{width}}", *(f"{'SDK':^7} {'bridge':^7}",) * len(verdicts)])
    )
    for name in names:
        cells = [_cell([found[name]] if name in found else []) for found in verdicts.values()]
        rows.append("  ".join([f"{name:{width}}", *cells]))
    sums = [_cell(list(found.values())) for found in verdicts.values()]
    rows.append("  ".join([f"{'all':{width}}", *sums]))
    return "\n".join(row.rstrip() for row in rows)


def _cell(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return f"{'':15}"
    there = score(check for verdict in verdicts for check in verdict.reference)
    here = score(check for verdict in verdicts for check in verdict.decided)
    mark = "*" if any(verdict.streamed is not None for verdict in verdicts) else " "
    return f"{_fraction(there):>7} {_fraction(here):>6}{mark}"


def _fraction(passed_of: tuple[int, int]) -> str:
    passed, of = passed_of
    # No checks at all prove nothing, though a suite calls them passed.
    return f"{passed}/{of}" if of else "-"


def _passed(checks: Iterable[Check]) -> Counter[str]:
    return Counter(each.id for each in checks if each.status == PASSED)


def _wrong(checks: Iterable[Check]) -> Counter[str]:
    return Counter(each.id for each in checks if each.status in COMPLAINTS)


def _statuses(checks: Iterable[Check], check_id: str) -> str:
    return ",".join(each.status for each in checks if each.id == check_id) or "absent"
