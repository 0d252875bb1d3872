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


def test_every_action_is_pinned_by_digest_and_names_its_release() -> None:
    """A tag can be moved by the owner of the action; a digest cannot. The scanner is an image."""
    lines = [line for path in WORKFLOWS for line in path.read_text("utf-8").splitlines()]
    used = [line for line in lines if "uses:" in line]
    assert len(used) > 10
    pinned = re.compile(r"\s+(- )?uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in used if not pinned.fullmatch(line)] == []
    (scanner,) = [line for line in lines if "sbom:" in line]
    assert re.search(r"generator=\S+:\d+\.\d+\.\d+@sha256:[0-9a-f]{64}$", scanner)


def test_the_tag_of_a_release_is_compared_with_the_version() -> None:
    """By a line that finds the version where it stands."""
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    pattern = re.search(r"sed -n 's/\^(.*?)\$/", text)
    assert pattern is not None
    source = (ROOT / "mcpbridge" / "__init__.py").read_text("utf-8")
    line = pattern[1].replace(r"\(.*\)", "(.*)")
    assert re.findall(f"^{line}$", source, re.MULTILINE) == [__version__]
