"""The workflows of the repository: what actionlint says, and whether they run the jobs of CI."""

from __future__ import annotations

import re

import pytest

from mcpbridge import __version__
from tests.deploy.tools import ROOT, documents, run

pytestmark = pytest.mark.slow

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_actionlint_finds_nothing() -> None:
    """Expressions, contexts, permissions, and the shell lines that it reads."""
    done = run("actionlint", "-no-color", *map(str, WORKFLOWS))
    assert (done.returncode, done.stdout) == (0, "")
    assert len(WORKFLOWS) == 2


def test_every_job_of_ci_has_a_machine() -> None:
    """The jobs of `.ci/run`, in its order."""
    jobs = re.search(r"jobs=\((check [^)]*)\)", (ROOT / ".ci" / "run").read_text("utf-8"))
    (workflow,) = documents(ROOT / ".github" / "workflows" / "ci.yml")
    assert jobs is not None
    assert workflow["jobs"]["job"]["strategy"]["matrix"]["job"] == jobs[1].split()


def test_an_action_is_pinned_by_digest_or_says_why_not() -> None:
    """A tag can be moved by the owner of the action; a digest cannot."""
    for path in WORKFLOWS:
        lines = path.read_text("utf-8").splitlines()
        for number, line in enumerate(lines):
            found = re.search(r"uses: (\S+)@(\S+)(?: # (v[\d.]+))?$", line)
            if found is None:
                continue
            pinned = re.fullmatch(r"[0-9a-f]{40}", found[2]) and found[3]
            said = any("By tag:" in before for before in lines[max(0, number - 4) : number])
            assert pinned or said or found[1].startswith("docker/"), f"{path.name}: {line}"


def test_the_tag_of_a_release_is_compared_with_the_version() -> None:
    """By a line that finds the version where it stands."""
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    pattern = re.search(r"sed -n 's/\^(.*?)\$/", text)
    assert pattern is not None
    source = (ROOT / "mcpbridge" / "__init__.py").read_text("utf-8")
    line = pattern[1].replace(r"\(.*\)", "(.*)")
    assert re.findall(f"^{line}$", source, re.MULTILINE) == [__version__]
