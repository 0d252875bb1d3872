"""The workflows of the repository: what actionlint says, and whether they run the jobs of CI."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from mcpbridge import __version__
from tests.deploy.tools import RELEASE, ROOT, Document, documents, pushed_images, run, stages
from tests.support.repository import repository_files

pytestmark = pytest.mark.slow

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

RUNNERS = {
    "Operating System :: POSIX :: Linux": ("ubuntu-", "make test"),
    "Operating System :: MacOS": ("macos-", "python tests/support/smoke.py"),
}
"""The system of a classifier as GitHub names it, and what has to pass there."""
NAMING_RELEASES = {
    "docker": ("*Dockerfile",),
    "pip": ("requirements*.txt", "pyproject.toml"),
    "npm": ("package-lock.json",),
}
"""Files in which Dependabot looks for releases, by ecosystem."""
NOT_UPDATED = {
    "docker": {"/deploy/operator"},  # our own image: `make release-date`
    "pip": {"/tests/support/peers"},  # results are compared with theirs
    "npm": {"/benchmarks/peers"},  # likewise
}
NEEDED: dict[str, dict[str, str]] = {
    "actions/attest-build-provenance@": {"attestations": "write", "id-token": "write"},
    "actions/checkout@": {"contents": "read"},
    "actions/configure-pages@": {"pages": "read"},
    "actions/deploy-pages@": {"id-token": "write", "pages": "write"},
    "cosign sign": {"id-token": "write"},
    "docker/build-push-action@": {"packages": "write"},
    "gh release create": {"contents": "write"},
    "helm push": {"packages": "write"},
    "pypa/gh-action-pypi-publish@": {"id-token": "write"},
}
"""What a step needs, by the action that it uses or a command that it has."""


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
    used = [line for line in lines if "uses:" in line and "uses: ./" not in line]
    assert len(used) > 10
    pinned = re.compile(r"\s+(- )?uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in used if not pinned.fullmatch(line)] == []
    (scanner,) = [line for line in lines if "sbom:" in line]
    assert re.search(r"generator=\S+:\d+\.\d+\.\d+@sha256:[0-9a-f]{64}$", scanner)


def test_the_tag_of_a_release_is_compared_with_the_version() -> None:
    """By a line that finds the version where it stands."""
    text = RELEASE.read_text("utf-8")
    pattern = re.search(r"sed -n 's/\^(.*?)\$/", text)
    assert pattern is not None
    source = (ROOT / "mcpbridge" / "__init__.py").read_text("utf-8")
    line = pattern[1].replace(r"\(.*\)", "(.*)")
    assert re.findall(f"^{line}$", source, re.MULTILINE) == [__version__]


def test_every_system_of_the_classifiers_has_a_job() -> None:
    """Which installs the package there and starts it, or runs the suite."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {each for each in project["classifiers"] if each.startswith("Operating System")}
    assert named == set(RUNNERS)
    (workflow,) = documents(ROOT / ".github" / "workflows" / "ci.yml")
    for classifier in named:
        runner, command = RUNNERS[classifier]
        running = [
            step.get("run", "")
            for job in workflow["jobs"].values()
            if job["runs-on"].startswith(runner)
            for step in job["steps"]
        ]
        assert command in running, classifier


def test_nothing_is_published_before_all_is_checked() -> None:
    """Each job that may write waits for CI of the commit, for its notes and for the package."""
    (workflow,) = documents(RELEASE)
    jobs = workflow["jobs"]
    publishing = {
        name for name, job in jobs.items() if "write" in job.get("permissions", {}).values()
    }
    assert publishing == {"pypi", "images", "chart", "site", "notes"}
    assert {name for name in publishing if not {"ci", "build"} <= _before(name, jobs)} == set()
    assert jobs["ci"] == {"uses": "./.github/workflows/ci.yml"}
    (ci,) = documents(ROOT / ".github" / "workflows" / "ci.yml")
    # YAML 1.1 reads the key `on` as true.
    assert "workflow_call" in ci["true"]
    shell = [step["run"] for step in jobs["build"]["steps"] if "run" in step]
    assert "python3 -m scripts.release notes" in shell
    # A job whose need was left out is left out as well.
    assert jobs["build"]["if"] == "${{ !github.event.repository.fork }}"
    assert [name for name in publishing if "if" in jobs[name]] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_may_do_what_its_steps_need_and_nothing_else(path: Path) -> None:
    """And none keeps the token in the clone, or has no bound on its time."""
    (workflow,) = documents(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        steps = job.get("steps", [])
        needed: dict[str, str] = {}
        for step in steps:
            for beginning, permissions in NEEDED.items():
                if _does(step, beginning):
                    # "write" is more than "read", and the later word.
                    needed = {
                        each: max(needed.get(each, ""), permissions.get(each, ""))
                        for each in {*needed, *permissions}
                    }
        assert job.get("permissions", workflow["permissions"]) == (
            needed or workflow["permissions"]
        ), name
        assert "timeout-minutes" in job or "uses" in job, name
        clones = [step["with"] for step in steps if _does(step, "actions/checkout@")]
        assert all(each["persist-credentials"] is False for each in clones), name


def test_images_and_chart_are_signed_by_digest() -> None:
    """What was pushed, and not what a tag names a moment later; the digest of the push is taken."""
    (workflow,) = documents(RELEASE)
    steps = workflow["jobs"]["images"]["steps"]
    (push,) = (step for step in steps if _does(step, "docker/build-push-action@"))
    (sign,) = (step for step in steps if _does(step, "cosign sign"))
    (attest,) = (step for step in steps if _does(step, "actions/attest-build-provenance@"))
    assert steps.index(push) < steps.index(sign) < steps.index(attest)
    digest = f"${{{{ steps.{push['id']}.outputs.digest }}}}"
    assert sign["env"] == {"DIGEST": digest}
    assert sign["run"] == 'cosign sign --yes "$IMAGE@$DIGEST"'
    assert attest["with"]["subject-digest"] == digest
    assert attest["with"]["subject-name"] == "${{ env.IMAGE }}"


def test_the_chart_is_signed_by_the_digest_that_helm_prints(tmp_path: Path) -> None:
    """Run as GitHub runs it, with programs that print what the real ones print."""
    (workflow,) = documents(RELEASE)
    (step,) = (each for each in workflow["jobs"]["chart"]["steps"] if _does(each, "helm push"))
    assert step["shell"] == "bash"
    digest = f"sha256:{'0a' * 32}"
    for name, body in {
        "helm": f'cat; [ "$1" != push ] || printf "Pushed: x\\nDigest: {digest}\\n" >&2',
        "cosign": f'cat; echo "$@" >> {tmp_path}/said',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CHARTS": "ghcr.io/our/charts",
        "GITHUB_ACTOR": "us",
        "TOKEN": "x",
    }
    words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    subprocess.run(words, check=True, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL)
    said = (tmp_path / "said").read_text("utf-8").splitlines()
    assert said[-1] == f"sign --yes ghcr.io/our/charts/mcpbridge@{digest}"


def test_a_release_publishes_the_site_that_make_builds() -> None:
    """At the address that GitHub Pages names, from the folder that mkdocs writes."""
    (workflow,) = documents(RELEASE)
    job = workflow["jobs"]["site"]
    assert job["environment"]["name"] == "github-pages"
    (build,) = (step for step in job["steps"] if _does(step, "make docs-site"))
    (pages,) = (step for step in job["steps"] if _does(step, "actions/configure-pages@"))
    ((variable, address),) = build["env"].items()
    assert address == f"${{{{ steps.{pages['id']}.outputs.base_url }}}}/"
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert f'site_url: !ENV [{variable}, ""]\n' in site
    (upload,) = (step for step in job["steps"] if _does(step, "actions/upload-pages-artifact@"))
    assert f"site_dir: {upload['with']['path']}\n" in site


def test_the_images_of_a_release_have_the_version_of_the_package_and_the_chart() -> None:
    """Each target of the Dockerfile; its label has the version in the same form as its tag."""
    (values,) = documents(ROOT / "deploy" / "chart" / "values.yaml")
    assert pushed_images() == {
        target: f"{values['bridge']['repository']}:{__version__}-{target}"
        for target in ("slim", "uv", "node", "uv-node", "tree")
    }
    assert set(pushed_images()) <= set(stages())
    (workflow,) = documents(RELEASE)
    steps = workflow["jobs"]["images"]["steps"]
    (build,) = (step["with"] for step in steps if "build-push-action" in step.get("uses", ""))
    given = dict(line.split("=", 1) for line in build["build-args"].splitlines())
    # tests/images builds with both, and looks at the labels.
    assert given == {
        "VERSION": "${{ steps.commit.outputs.version }}",
        "REVISION": "${{ github.sha }}",
    }
    (commit,) = (step["run"] for step in steps if step.get("id") == "commit")
    script = f"GITHUB_REF_NAME=v{__version__} GITHUB_OUTPUT=/dev/stdout\n{commit}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert f"version={__version__}\n" in done.stdout


def test_dependabot_is_told_of_everything_that_names_releases() -> None:
    """Each folder with a Dockerfile or a list of packages, but for what has a reason."""
    (found,) = documents(ROOT / ".github" / "dependabot.yml")
    told = {
        each["package-ecosystem"]: set(each.get("directories", [each.get("directory")]))
        for each in found["updates"]
    }
    there = {ecosystem: _folders_with(*names) for ecosystem, names in NAMING_RELEASES.items()}
    assert {name: there[name] - told[name] - NOT_UPDATED[name] for name in there} == {
        name: set() for name in there
    }
    assert {name: (told[name] | NOT_UPDATED[name]) - there[name] for name in there} == {
        name: set() for name in there
    }
    assert set(told) == {"github-actions", *there}


def test_dependabot_can_read_every_base_of_an_image() -> None:
    """Which it cannot in a variable; a name without a tag is a stage."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    bases = re.findall(r"^FROM (\S+)", text, re.M)
    assert len(bases) > 8
    assert [base for base in bases if "$" in base] == []
    assert {base for base in bases if ":" not in base} <= {*stages(), "scratch"}


def _does(step: Document, what: str) -> bool:
    """Tell whether a step uses an action, or has a command."""
    return step.get("uses", "").startswith(what) or what in step.get("run", "")


def _folders_with(*patterns: str) -> set[str]:
    """The folders of the repository that have a file of such a name, as Dependabot writes them."""
    names = (path.relative_to(ROOT) for path in repository_files())
    folders = {
        path.parent.as_posix()
        for path in names
        if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in patterns)
    }
    return {f"/{'' if folder == '.' else folder}" for folder in folders}


def _before(name: str, jobs: Document) -> set[str]:
    """The jobs that must have passed before this one starts."""
    needs = jobs[name].get("needs", [])
    direct = {needs} if isinstance(needs, str) else set(needs)
    return direct.union(*(_before(each, jobs) for each in direct))
