"""README.md and docs/: every command of a block, and every command in prose, is checked.

A command begins with the name of a program. `CHECKS` has a check for each program, `NOT_RUN` the
few that no test can run, with the reason; a line of a block that neither of them knows fails.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from mcpbridge import __version__
from mcpbridge.cli.main import NAMED
from mcpbridge.config.load import load
from mcpbridge.config.model import options
from mcpbridge.settings import Unit
from tests.deploy.test_chart import KUBERNETES
from tests.deploy.tools import (
    DEPLOY,
    RELEASE,
    ROOT,
    block_lines,
    documents_in,
    kustomized,
    of_kind,
    pushed_images,
    run,
    stages,
)

pytestmark = pytest.mark.slow

PAGES = ("../README.md", *sorted(path.name for path in (ROOT / "docs").glob("*.md")))
"""By their paths from docs/."""
FLAGS = {option.setting.flag: option.setting for option in options()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
A_URL = "http://localhost:8000/mcp"
A_COMMAND = ("python", "server.py")
STANDS_FOR = {
    "URL": A_URL,
    "[URL]": A_URL,
    "FILE": "servers.json",
    "RULE": "tool=add error",
    "CLIENT": "cursor",
    "PORT": "8000",
    "tcp:HOST:PORT": "tcp:127.0.0.1:8081",
}
"""Words that a reader replaces, and what replaces them here."""
FILES = {
    "servers.json": '{"mcpServers": {"git": {"command": "python", "args": ["server.py"]}}}',
    "token": "swordfish-swordfish-swordfish-swordfish",
}
"""What stands in the folder of the reader; the other names of a list of servers are its copies."""
OF_OTHER_BRIDGES = "a line of another bridge; test_migration.py looks up its options"
NOT_RUN = {
    "claude": "Claude Code comes with no package; test_pages.py sends what the line configures",
    "fastmcp": OF_OTHER_BRIDGES,
    "git add": "a file of the reader's own repository; the line before it makes the file",
    "mcp-proxy": OF_OTHER_BRIDGES,
    "mkdir -p": "a folder of the reader's own repository",
    "npx mcp-proxy": OF_OTHER_BRIDGES,
    "npx mcp-remote": OF_OTHER_BRIDGES,
    "npx -y supergateway": OF_OTHER_BRIDGES,
    "supergateway": OF_OTHER_BRIDGES,
    "python3 -m venv": "tests/package/test_stranger.py types it on a machine with Python alone",
    "pip uninstall": "how a size was measured once; it is no step of a reader",
    "python -m scripts.release": "part of `make release-check`; tests/house/test_release.py has it",
}
"""What a command begins with that no test of this folder runs, each with its reason."""


class Command(NamedTuple):
    """A command as a page has it."""

    page: str
    text: str
    words: tuple[str, ...]
    in_prose: bool
    """It is a span of code in prose or in a table, where a URL may be left out."""


def _words(text: str) -> tuple[str, ...]:
    """Split a line as a shell does, without variables before the program, placeholders replaced."""
    words = shlex.split(text, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        del words[0]
    if "…" in words:
        place = words.index("…")
        words[place : place + 1] = [] if "--" in words else ["--", *A_COMMAND]
    if words[-1:] == ["COMMAND"]:
        words[-1:] = A_COMMAND
    return tuple(STANDS_FOR.get(word, word) for word in words)


def of_blocks() -> Iterator[Command]:
    """Every line of every block that is a command."""
    for page in PAGES:
        for line in block_lines(page):
            yield Command(page, line, _words(line), False)


def of_prose() -> Iterator[Command]:
    """Every span of code that begins with a program and has an argument for it."""
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text("utf-8")
        text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`([^`]+)`", text):
            line = " ".join(span.split())
            if _is_command(re.sub(r"^[A-Z_]+=\S* ", "", line)):
                yield Command(page, line, _words(line), True)


def _is_command(line: str) -> bool:
    """Tell a command from the name of a program, of its subcommand or of its option."""
    words = line.split() or [""]
    if words[0] not in PROGRAMS:
        return False
    return words[0] == "make" or len(words) > 3 or (len(words) == 3 and words[-1][0] != "-")


def check_bridge(command: Command) -> None:
    """Load what serves; let another program parse its words. Nothing runs."""
    own, child = _split(command.words[1:])
    if own[:1] and own[0] in NAMED:
        _parse(own[0], own[1:], child, in_prose=command.in_prose)
        return
    given: dict[str, list[str]] = {}
    rest = iter(own)
    for word in rest:
        value = "true" if FLAGS[word].unit is Unit.SWITCH else next(rest)
        given.setdefault(word, []).append(value)
    assert load(given, child, {}).source is not None


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    cut = words.index("--") if "--" in words else len(words)
    return list(words[:cut]), list(words[cut + 1 :])


def _parse(name: str, own: list[str], child: list[str], *, in_prose: bool) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:  # a program holds signals until it can hear them
        program = importlib.import_module(NAMED[name]).program(["--", *child])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        assert program.make_context("", list(own)) is not None
    except click.MissingParameter:
        assert in_prose, "a line of a block is whole"
        assert program.make_context("", [*own, A_URL]) is not None


def check_curl(command: Command) -> None:
    """It asks the endpoint at which test_pages.py runs each such line."""
    assert any(word.startswith("http://localhost:8000") for word in command.words)


def check_installation(command: Command) -> None:
    """A clone is installed, with extras that exist; `make package-test` runs the line."""
    *_, asked = command.words
    found = re.fullmatch(r"(?:\.|NAME)(?:\[([\w,-]+)\])?", asked)
    assert found is not None
    extras = found[1].split(",") if found[1] else []
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    for word in command.words:
        assert not word.endswith(".txt") or (ROOT / word).is_file()


def check_uvx(command: Command) -> None:
    """The clone's program runs; what follows is a line of it."""
    uvx, option, source, *rest = command.words
    assert (uvx, option) == ("uvx", "--from")
    assert source in (".", "NAME")
    assert rest[0] == "mcpbridge"
    if rest[1:]:
        check_bridge(command._replace(words=tuple(rest)))
    else:
        assert command.in_prose, "a line of a block says what to serve"


def check_make(command: Command) -> None:
    """The target is one of the Makefile, which uses the variables of the line."""
    _, target, *variables = command.words
    assert re.search(rf"^{re.escape(target)}:.*## ", MAKEFILE, re.MULTILINE)
    for variable in variables:
        assert f"$({variable.partition('=')[0]})" in MAKEFILE


def check_helm(command: Command) -> None:
    """What `helm install` would install is rendered, and fits the schema of Kubernetes."""
    helm, install, *words = command.words
    assert (helm, install) == ("helm", "install")
    done = run("helm", "template", *words)
    assert done.returncode == 0, done.stderr
    found = documents_in(done.stdout)
    assert {each["metadata"]["name"] for each in found} <= {words[0], f"{words[0]}-peers"}
    assert of_kind("Deployment", found)
    valid = run("kubernetes-validate", "--strict", "-k", KUBERNETES, "/dev/stdin", text=done.stdout)
    assert valid.returncode == 0, valid.stdout + valid.stderr


def check_kubectl(command: Command) -> None:
    """Folders are built, secrets made without a cluster, and what is named is in a manifest."""
    verb, *words = command.words[1:]
    match verb, words:
        case "apply", ["-k", folder]:
            assert kustomized(ROOT / folder)
        case "create", ["secret", *_]:
            (secret,) = documents_in(_made_without_a_cluster(command.text))
            mounted = json.dumps(kustomized(DEPLOY / "replicas"))
            assert f'"secretName": "{secret["metadata"]["name"]}"' in mounted
            assert list(secret["data"]) == ["key"]
            assert len(secret["data"]["key"]) > 64
        case "port-forward", [service, ports]:
            kind, _, name = service.partition("/")
            assert kind == "service"
            (found,) = of_kind("Service", kustomized(DEPLOY / "wrap"))
            assert found["metadata"]["name"] == name
            served = {port["port"] for port in found["spec"]["ports"]}
            assert int(ports.rpartition(":")[2]) in served
        case "exec", ["POD", "--", program, *own]:
            assert program == "/opt/mcpbridge/bin/mcpbridge"
            check_bridge(command._replace(words=("mcpbridge", *own)))
        case _:
            assert (verb, words) == ("logs", ["POD", "--previous"])


def _made_without_a_cluster(line: str) -> str:
    """Run a line of kubectl as a shell does, but as a dry run; return the object."""
    tools = ROOT / ".venv-deploy" / "bin"
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", f"{line} --dry-run=client -o json"],
        env={**os.environ, "PATH": path},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def check_docker(command: Command) -> None:
    """Files, stages, images and containers exist, and the program takes what a container runs.

    An option of `docker run` is one that the line of docs/containers.md with all limits has, which
    `make image-test` runs on an engine.
    """
    verb, *words = command.words[1:]
    given, rest = _docker_options(words)
    match verb:
        case "build":
            (context,) = rest
            assert (ROOT / context).is_dir()
            assert (ROOT / given.get("-f", "Dockerfile")).is_file()
            assert given.get("--target", "tree") in stages()
        case "run":
            assert set(given) <= set(_options_on_an_engine())
            image, *own = rest
            name, _, tag = image.partition(":")
            assert name in ("mcpbridge", "my-server")
            assert name == "my-server" or tag in ("", *stages())
            if own:  # else the CMD of its Dockerfile, which test_pages.py and test_docs.py load
                check_bridge(command._replace(words=("mcpbridge", *own)))
        case _:
            assert verb in ("inspect", "logs", "stop")
            assert rest == [_options_on_an_engine()["--name"]]


def _docker_options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options with their values, and the words behind them."""
    switches = ("--rm", "--read-only")
    given: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        given[option] = "" if option in switches else rest.pop(0)
    return given, rest


@functools.cache
def _options_on_an_engine() -> Mapping[str, str]:
    (line,) = (line for line in block_lines("containers.md") if "--stop-timeout" in line)
    return _docker_options(shlex.split(line)[2:])[0]


def check_socat(command: Command) -> None:
    """It listens and forks as in the tests that run it, and starts the example."""
    _, listening, started = command.words
    kinds = ("UNIX-LISTEN:/tmp/mcp.sock,fork", "TCP-LISTEN:8081,bind=127.0.0.1,fork,reuseaddr")
    assert listening in kinds
    assert started == "EXEC:python -m mcpbridge.demo"


def check_cosign(command: Command) -> None:
    """The signature of a pushed image is asked for by the workflow and the tag that pushed it."""
    verb, image, *options = command.words[1:]
    assert verb == "verify"
    workflow = f"{PROJECT['urls']['Repository']}/{RELEASE.relative_to(ROOT)}"
    assert dict(zip(options[::2], options[1::2], strict=True)) == {
        "--certificate-oidc-issuer": "https://token.actions.githubusercontent.com",
        "--certificate-identity": f"{workflow}@refs/tags/v{_released(image)}",
    }


def check_attestation(command: Command) -> None:
    """A pushed image, and the repository whose workflow attests it."""
    verb, image, option, repository = command.words[2:]
    assert (verb, option) == ("verify", "--repo")
    assert _released(image.removeprefix("oci://"))
    assert f"https://github.com/{repository}" == PROJECT["urls"]["Repository"]


def _released(image: str) -> str:
    """Return the version in the name of an image, which has to be as a release pushes it."""
    found = re.search(r":(\d+\.\d+\.\d+)-", image)
    assert found is not None
    pushed = [
        name.replace(f":{__version__}-", f":{found[1]}-") for name in pushed_images().values()
    ]
    assert image in pushed
    return found[1]


CHECKS: Mapping[str, Callable[[Command], None]] = {
    "cosign": check_cosign,
    "curl": check_curl,
    "docker": check_docker,
    "gh attestation": check_attestation,
    "helm": check_helm,
    "kubectl": check_kubectl,
    "make": check_make,
    "mcpbridge": check_bridge,
    "pip install": check_installation,
    "pipx install": check_installation,
    "socat": check_socat,
    "uv tool install": check_installation,
    "uvx": check_uvx,
}
"""By what a command begins with."""
PROGRAMS = {beginning.partition(" ")[0] for beginning in (*CHECKS, *NOT_RUN)}
"""What a span of code begins with if it may be a command."""


def beginning_of(command: Command, of: Mapping[str, Any]) -> str | None:
    """The key with which a command begins."""
    line = " ".join(command.words)
    return next((each for each in of if line.startswith(f"{each} ") or line == each), None)


def _once(commands: Iterator[Command]) -> list[Any]:
    """Each command as a test parameter; one that stands in several pages, or twice, once."""
    found: dict[tuple[str, bool], Command] = {}
    for each in commands:
        found.setdefault((each.text, each.in_prose), each)
    return [pytest.param(each, id=f"{each.page}: {each.text}") for each in found.values()]


@pytest.fixture(autouse=True)
def folder_of_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are read in a folder that has the files they name."""
    for name in (*FILES, ".mcp.json", "mcp.json"):
        (tmp_path / name).write_text(FILES.get(name, FILES["servers.json"]), "utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", [*_once(of_blocks()), *_once(of_prose())])
def test_a_command_of_a_page_works(command: Command) -> None:
    """By the check of its program, or it has a reason why none can run it."""
    if beginning_of(command, NOT_RUN) is not None:
        return
    beginning = beginning_of(command, CHECKS)
    assert beginning is not None, "no test knows this program: add a check, or a reason"
    CHECKS[beginning](command)


def test_every_reason_and_every_check_is_still_needed() -> None:
    """A program that no page names any more has no place in the lists."""
    every = [*of_blocks(), *of_prose()]
    assert len(every) > 100
    for of in (CHECKS, NOT_RUN):
        assert {beginning_of(command, of) for command in every} - {None} == set(of)


@pytest.mark.parametrize(
    "line",
    [
        "mcpbridge --no-such-flag -- python server.py",
        "mcpbridge doctor --no-such-flag",
        "mcpbridge connect",
        "pipx install 'mcpbridge[dev-proxy]'",
        "pipx install '.[no-such-extra]'",
        "uvx mcpbridge -- python server.py",
        "make no-such-target",
        "make run NO_SUCH_VARIABLE=1",
        "cosign verify ghcr.io/mcpbridge/mcpbridge:no-such-tag",
        "gh attestation verify oci://ghcr.io/mcpbridge/mcpbridge:0.1.0-uv --repo else/mcpbridge",
        "helm install weather deploy/chart --set server.imagee=x",
        "kubectl apply -k deploy/no-such-folder",
        "kubectl port-forward service/my-server 8000:8888",
        "kubectl create secret generic my-secret --from-literal=key=0",
        "docker build --target no-such-stage .",
        "docker run --privileged my-server",
        "docker stop no-such-container",
        "curl http://localhost:9000/readyz",
        "socat STDIN STDOUT",
    ],
)
def test_a_command_that_does_not_work_is_seen(line: str) -> None:
    """No check passes whatever the words are."""
    command = Command("none.md", line, _words(line), False)
    beginning = beginning_of(command, CHECKS)
    with pytest.raises((AssertionError, KeyError, ValueError, click.UsageError)):
        CHECKS[beginning or "curl"](command)
