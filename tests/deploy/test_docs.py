"""The guides for containers and Kubernetes: what they name is there, what they print can be run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from mcpbridge.config.load import environment_names, load
from mcpbridge.config.model import options
from mcpbridge.config.values import shown
from mcpbridge.rules.supervision.shutdown_times import times_within
from mcpbridge.shim.program import ShimSettings
from tests.deploy.tools import (
    DEPLOY,
    DOCS,
    ROOT,
    SHAPES,
    asked_by_curl,
    blocks,
    containers,
    deployment,
    run,
    stages,
)
from tests.support.bridge_process import bridge
from tests.support.doctor import doctor

pytestmark = pytest.mark.slow

FLAGS = {option.setting.flag for option in options()}
OF_OTHERS = {
    "containers.md": {
        *("--target", "--rm", "--name", "--read-only", "--cap-drop", "--security-opt"),
        *("--memory", "--cpus", "--pids-limit", "--stop-timeout", "--init", "--format", "--user"),
        # COPY, HEALTHCHECK, npm and pip.
        *("--from", "--interval", "--timeout", "--start-period", "--retries", "--omit"),
        *("--no-cache-dir", "--tmpfs"),
        # cosign and gh.
        *("--certificate-identity", "--certificate-oidc-issuer", "--repo"),
    },
    # kubectl's, and doctor's own.
    "kubernetes.md": {"--previous", "--as", "--set", "--from-literal"},
}
"""Options of other programs that the guides name; all are used."""
DOCKERFILES = [
    pytest.param(name, text, id=f"{name}-{number}")
    for name in DOCS
    for number, text in enumerate(blocks(name, "dockerfile"))
]


def read(name: str) -> str:
    """A guide."""
    return (ROOT / "docs" / name).read_text("utf-8")


def commands(name: str) -> list[list[str]]:
    """Every line of the blocks without a language, in words."""
    return [shlex.split(line) for block in blocks(name) for line in block.splitlines() if line]


@pytest.mark.parametrize("name", OF_OTHERS)
def test_every_option_is_the_programs_or_a_known_one(name: str) -> None:
    """In prose and in commands."""
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", read(name)))
    assert named - FLAGS == OF_OTHERS[name]


@pytest.mark.parametrize("name", DOCS)
def test_every_variable_is_the_programs(name: str) -> None:
    """Of those that are for it; the manifests name one."""
    known = {each for option in options() for each in environment_names(option.setting)}
    known |= {"MCPBRIDGE_AUTH_TOKEN", "MCPBRIDGE_STATE_KEY", "MCPBRIDGE_STATE_KEY_FILE"}
    named = set(re.findall(r"\b(?:MCPBRIDGE_[A-Z_]*[A-Z]|TERMINATION_[A-Z_]+)\b", read(name)))
    assert named <= known


@pytest.mark.parametrize("name", DOCS)
def test_every_file_that_is_named_exists(name: str) -> None:
    """The house tests check links and headings."""
    for path in re.findall(r"\b(?:docs|deploy)/[\w./-]*\w", read(name)):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", DOCS)
def test_every_image_is_a_stage_of_the_dockerfile(name: str) -> None:
    """Tags of ours, and --target of the builds."""
    named = set(re.findall(r"\bmcpbridge:(?:\d+\.\d+\.\d+-)?(\w+)", read(name)))
    named |= set(re.findall(r"--target (\w+)", read(name)))
    assert named <= set(stages())


@pytest.mark.parametrize("name", DOCS)
def test_every_probe_is_one_that_is_served(name: str) -> None:
    """The paths of `http.app`."""
    probes = (ROOT / "mcpbridge" / "http" / "app.py").read_text("utf-8")
    served = set(re.findall(r'Route\("(/\w+)"', probes))
    named = set(re.findall(r"(?<![\w.])/(?:\w+z|health)\b", read(name)))
    assert named <= served


@pytest.mark.parametrize(("name", "text"), DOCKERFILES)
def test_hadolint_finds_nothing_in_a_dockerfile(name: str, text: str) -> None:
    """Of those that readers are to copy."""
    done = run("hadolint", "--no-color", "-", text=text)
    assert (done.returncode, done.stdout) == (0, ""), name


@pytest.mark.parametrize(("name", "text"), DOCKERFILES)
def test_a_dockerfile_starts_the_program_with_a_command(name: str, text: str) -> None:
    """Entry point and CMD are a line that the program takes; the folder of the server is there."""
    base = re.findall(r"^FROM (\S+)", text, re.M)[-1]
    entry = re.search(r"^ENTRYPOINT (.*)$", text, re.M)
    ours = stages()[base.partition(":")[2]] if base.startswith("mcpbridge:") else {}
    entrypoint = json.loads(entry[1]) if entry else ours["entrypoint"]
    assert entrypoint == stages()["tree"]["entrypoint"]
    cmd = re.search(r"^CMD (.*)$", text, re.M)
    assert cmd is not None
    words = json.loads(cmd[1])
    assert words[0] == "--"
    assert load({}, words[1:], {}).child.argv == tuple(words[1:])
    assert ours or re.search(r"^USER [0-9]+:[0-9]+$", text, re.M), "a numeric user"
    assert ours or "HEALTHCHECK" in text
    assert words[-1].startswith("/srv/")
    assert Path(words[-1]).name in text.partition("CMD")[0]


def test_the_times_of_the_end_are_those_of_the_program() -> None:
    """The table of the drain: lame duck, cutoff, the ladder of the server, the kubelet."""
    section = read("kubernetes.md").partition("## The end of a pod")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| ([0-9 to]+) s \| (.*) \|$", section, re.M))
    env = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    config = load({}, ["server"], env)
    grace_s = config.settings.shutdown.grace_s
    found = times_within(grace_s)
    cutoff_s, end_s = found.cutoff_s, found.children_s
    times = ["0", config.lame_duck_s, cutoff_s, f"{cutoff_s:g} to {end_s:g}", grace_s]
    step = f"SIGTERM after {found.step_s(cutoff_s):g} s, SIGKILL after {found.step_s(cutoff_s):g}"
    assert step in rows[f"{cutoff_s:g} to {end_s:g}"]
    assert list(rows) == [f"{time:g}" if isinstance(time, float) else time for time in times]
    pod = deployment("wrap")["spec"]["template"]["spec"]
    assert f"`terminationGracePeriodSeconds: {pod['terminationGracePeriodSeconds']}`" in section


def test_the_figures_of_the_guides_are_the_defaults() -> None:
    """Each figure in parentheses behind a flag."""
    defaults = {each.setting.flag: shown(each.default, each.setting.unit) for each in options()}
    seen = 0
    for name in DOCS[:2]:
        for flag, figure in re.findall(r"`(--[\w-]+)` \((\d\w*)\)", read(name)):
            assert defaults[flag] == figure
            seen += 1
    assert seen


def test_every_kubectl_line_names_a_folder_that_can_be_applied() -> None:
    """`kubectl apply -k FOLDER`; all of them are named."""
    applied = set(re.findall(r"`kubectl apply -k deploy/([\w-]+)`", read("kubernetes.md")))
    made = {path.parent.name for path in DEPLOY.rglob("kustomization.yaml")}
    assert applied == made - {"common"}
    for folder in applied:
        text = (DEPLOY / folder / "kustomization.yaml").read_text("utf-8")
        assert f"kubectl apply -k deploy/{folder}\n" in text


def test_what_docker_runs_is_a_line_that_the_program_takes() -> None:
    """The words after the image, where there are any."""
    seen = 0
    for name in DOCS[:2]:
        for words in commands(name):
            if words[:2] != ["docker", "run"]:
                continue
            (place,) = [
                number
                for number, word in enumerate(words)
                if re.fullmatch(r"(mcpbridge|my-server):\w+", word)
            ]
            own = words[place + 1 :]
            seen += 1
            if own:
                assert own[0] in ("--", "doctor")
                assert load({}, own[own.index("--") + 1 :], {}).child.argv
    assert seen == 3


async def test_the_lines_of_the_guides_run_as_printed() -> None:
    """curl and doctor, at a bridge; only the port is another."""
    lines = [
        shlex.join(words)
        for name in DOCS[:2]
        for words in commands(name)
        if words[0] == "curl" or words[:2] == ["mcpbridge", "doctor"]
    ]
    assert len(lines) == 3
    async with bridge() as running:
        for line in lines:
            words = shlex.split(line.replace("localhost:8000", f"127.0.0.1:{running.port}"))
            if words[0] == "curl":
                said = await asked_by_curl(words[1:])
                assert '"echo"' in said or '"status":"ok"' in said
            else:
                verdict = await doctor(*words[2:])
                assert verdict.status == 0, verdict
                assert "Every check passed" in verdict.out


def test_the_readme_names_the_shapes_with_a_command_to_edit() -> None:
    """Those whose Deployment has the command of the server, which is an example's there."""
    own = [
        shape
        for shape in SHAPES
        for container in containers(deployment(shape))
        if container["name"] == "server" and "command" in container
    ]
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    named = " and ".join(f"`{shape}`" for shape in own)
    assert f"for {named} its command too, in `deployment.yaml`" in readme


_READ_COMPOSE = """
import sys
from compose_spec import PyCompose
try:
    print(*PyCompose.from_yaml(sys.stdin.read()).service_names())
except ValueError as error:
    sys.exit(str(error))
"""


def test_the_compose_file_is_one_by_the_specification() -> None:
    """Keys and values are read as the Compose specification has them; a wrong one is refused."""
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    done = run("python", "-c", _READ_COMPOSE, text=text)
    assert (done.returncode, done.stdout) == (0, "my-server\n"), done.stderr
    for right, wrong in (("read_only:", "readonly:"), ("mem_limit: 256m", "mem_limit: lots")):
        assert right in text
        done = run("python", "-c", _READ_COMPOSE, text=text.replace(right, wrong))
        assert done.returncode == 1
        assert wrong.rpartition(" ")[2].rstrip(":") in done.stderr


def test_the_shims_options_are_its_own() -> None:
    """What the manifest of the sidecar gives to `mcpbridge shim`."""
    known = {facts.flag for facts in ShimSettings.SETTINGS.values()}
    (server,) = [
        container
        for container in deployment("sidecar")["spec"]["template"]["spec"]["initContainers"]
        if container["name"] == "server"
    ]
    own = server["command"][2 : server["command"].index("--")]
    assert {word for word in own if word.startswith("--")} <= known
