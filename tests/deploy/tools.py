"""The tools that look at manifests and Dockerfiles, and the files that they look at.

The tools have their own environment. A tool that is not there fails the test that needs it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcpbridge import __version__

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCS = ("containers.md", "kubernetes.md", "migration.md")
SHAPES = ("wrap", "copy-in", "sidecar")
RELEASE = ROOT / ".github" / "workflows" / "release.yml"
_BIN = ROOT / ".venv-deploy" / "bin"
_WITHIN_S = 120
_TO_JSON = "import json, sys, yaml; print(json.dumps([*yaml.safe_load_all(sys.stdin)]))"

Document = dict[str, Any]


def run(tool: str, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end, whatever its exit status."""
    program = _BIN / tool
    assert program.exists(), f"no {tool}: make .venv-deploy/stamp installs it"
    # Its own environment: it must not see what this one's PYTHONPATH holds.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [program, *words],
        input=text,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
        timeout=_WITHIN_S,
    )


@functools.cache
def documents(path: Path) -> tuple[Document, ...]:
    """The documents of a YAML file."""
    return documents_in(path.read_text("utf-8"))


def documents_in(text: str) -> tuple[Document, ...]:
    """The documents of a YAML text."""
    done = run("python", "-c", _TO_JSON, text=text)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout))


@functools.cache
def kustomized(folder: Path) -> tuple[Document, ...]:
    """The documents that `kubectl kustomize` makes of a folder."""
    done = run("kubectl", "kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    return documents_in(done.stdout)


def of_kind(kind: str, found: tuple[Document, ...]) -> list[Document]:
    """The documents of a kind."""
    return [document for document in found if document["kind"] == kind]


def deployment(shape: str) -> Document:
    """The one Deployment of a shape."""
    (found,) = of_kind("Deployment", kustomized(DEPLOY / shape))
    return found


def containers(workload: Document) -> list[Document]:
    """All containers of a Deployment's pods, in the order in which they start."""
    pod = workload["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def blocks(name: str, language: str = "") -> list[str]:
    """The blocks of a document of `docs/` in this language."""
    text = (ROOT / "docs" / name).read_text("utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for spoken, block in found if spoken == language]


def block_lines(name: str) -> list[str]:
    """The commands of a document of `docs/`: what follows a `$`, else each line of a block.

    A block with a `$`, or of the language console, has other lines: they are what was printed.
    """
    lines = []
    for language in ("", "sh", "console"):
        for block in blocks(name, language):
            found = [line for line in block.splitlines() if line]
            if language == "console" or any(line.startswith("$ ") for line in found):
                found = [line[2:] for line in found if line.startswith("$ ")]
            lines += found
    return lines


async def asked_by_curl(words: Sequence[str]) -> str:
    """What curl prints; it has to succeed."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-f", *words, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(_WITHIN_S):
        said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


@functools.cache
def pushed_images() -> dict[str, str]:
    """The images that the workflow of a release pushes for this version, by target."""
    (workflow,) = documents(RELEASE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    job = workflow["jobs"]["images"]
    (build,) = (step for step in job["steps"] if "build-push-action" in step.get("uses", ""))
    name = build["with"]["tags"].splitlines()[0]
    for context, value in {
        "env.IMAGE": workflow["env"]["IMAGE"],
        "github.repository": project["urls"]["Repository"].partition("//")[2].partition("/")[2],
        "steps.commit.outputs.version": __version__,
    }.items():
        name = name.replace(f"${{{{ {context} }}}}", value)
    targets = job["strategy"]["matrix"]["target"]
    return {target: name.replace("${{ matrix.target }}", target) for target in targets}


@functools.cache
def stages() -> dict[str, dict[str, Any]]:
    """The named stages of our Dockerfile: what each starts, and what it is built on."""
    found: dict[str, dict[str, Any]] = {}
    for part in re.split(r"^(?=FROM )", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.M)[1:]:
        head = re.match(r"FROM (\S+)(?: AS (\S+))?", part)
        assert head is not None
        entry = re.search(r"^ENTRYPOINT (\[.*\])$", part, re.M)
        entrypoint = json.loads(entry[1]) if entry else found.get(head[1], {}).get("entrypoint")
        found[head[2] or ""] = {"entrypoint": entrypoint}
    return found
