"""What tests prove is named by their marker, in a form that is read, and nowhere else."""

from __future__ import annotations

import pytest

from tests.support import proofs


def _named(decorators: str) -> list[str]:
    (test,) = proofs.functions_in(f"{decorators}\ndef test_a(): pass")
    return proofs.named(test)


def test_only_the_markers_of_tests_are_read() -> None:
    """Functions and methods, ranges resolved; neither helpers nor texts nor comments."""
    source = '''
@proves("C01")
def helper(): ...
@proves("C03", "C100", "O3", "fault 3")
@pytest.mark.slow
@pytest.mark.proves("faults 4-6")
def test_a():
    """C02"""  # @proves("C04")
    assert "C05"
class TestB:
    async def test_c(self): ...
'''
    found = [(test.name, proofs.named(test)) for test in proofs.functions_in(source)]
    names = ["C03", "C100", "O3", "fault 3", "fault 4", "fault 5", "fault 6"]
    assert found == [("test_a", names), ("test_c", [])]


@pytest.mark.parametrize(
    "marker",
    [
        "proves",
        "proves()",
        "proves(NAME)",
        "proves(fault=3)",
        "proves(3)",
        'proves("3")',
        'proves("fault 3, 4")',
        'proves("faults 3")',
        'proves("faults 4-3")',
        'proves("X3")',
        'proves("C03 C04")',
    ],
)
def test_a_marker_that_nothing_reads_is_refused(marker: str) -> None:
    """Else a number mistyped would prove nothing, unnoticed."""
    with pytest.raises(proofs.NotAProofError):
        _named(f"@{marker}")


def test_docstrings_name_no_proofs() -> None:
    """Nothing reads them there; they belong in the marker."""
    told = {path: proofs.told_in_docstrings(text) for path, text in proofs.sources()}
    assert {path: tests for path, tests in told.items() if tests} == {}


@pytest.mark.parametrize("text", ["This (C48).", "That (fault 5).", "These (faults 5, 6).", "(O3)"])
def test_proofs_in_docstrings_are_seen(text: str) -> None:
    """The test above does not pass because nothing is found."""
    assert proofs.told_in_docstrings(f"def test_a():\n    '{text}'\n") == ["test_a"]
