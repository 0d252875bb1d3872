"""README.md and the pages of docs/ say what the program does, and their links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import json
import re
import signal
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mcpbridge.cli.main import NAMED
from mcpbridge.cli.tape.tail import PAGE_TOKEN
from mcpbridge.config.auth import AUTH_TOKEN, STATE_KEY, STATE_KEY_FILE
from mcpbridge.config.load import environment_names
from mcpbridge.config.model import options
from mcpbridge.config.settings_table import settings_tables, with_settings
from mcpbridge.rules.expansion import input_variable
from mcpbridge.runtime import exit_status
from scripts import exit_statuses, image_sums, log_events, metrics, servers_schema
from scripts.picture import picture

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in sorted((*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))
}
FLAGS = {option.setting.flag for option in options()}
OF_OTHERS = {
    "docs/connect.md": {
        *("--allow-http", "--client-secret", "--debug", "--enable-proxy", "--headers"),
        *("--no-verify-ssl", "--static-oauth-client-info", "--token-url", "--transport"),
        "--verify-ssl",
    },  # mcp-remote, mcp-proxy
    "docs/dev.md": {"--server-url", "--transport"},  # the Inspector
    "docs/embedding.md": {"--timeout-graceful-shutdown"},
    "README.md": {
        *("--from", "--from-literal", "--seconds", "--set", "--stateful", "--transport"),
    },  # uvx, kubectl, helm, claude, others
    "docs/quick-start.md": {"--from"},
    "docs/releasing.md": {"--from", "--quick"},  # uvx, scripts.release
    "docs/speed.md": {"--seconds"},
    "docs/troubleshooting.md": {"--rm", "--transport"},  # docker, a server
}
"""Options of other programs that pages name; all are used. Lines of docker are left out."""
SEEN_ELSEWHERE = ("docs/containers.md", "docs/kubernetes.md", "docs/migration.md")
"""Pages whose options `tests/deploy` looks at."""
GENERATED = {
    "docs/exit-statuses.md": exit_statuses.page,
    "docs/log-events.md": log_events.page,
    "docs/metrics.md": metrics.page,
}
MOST_LINES = 200
MODULES = {
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter",
    "opentelemetry-sdk": "opentelemetry",
    "python-dotenv": "dotenv",
}
"""What a package is imported as, if it is not its name."""
NAMED_AT_MOST = 8
"""Importers of a package that docs/dependencies.md names."""


def repository() -> str:
    """The address of the repository, which stands in `pyproject.toml`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["urls"]["Repository"])


def test_the_readme_is_short() -> None:
    """A stranger reads it to its end; everything else is in docs/."""
    assert len(README.splitlines()) <= MOST_LINES


def test_every_dependency_has_its_reason_and_its_importers() -> None:
    """In docs/dependencies.md, which names no other; and nothing else is imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {
        name: each for name, each in project["optional-dependencies"].items() if name != "dev"
    }
    asked = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    rows = re.findall(
        r"^\| (?:`(?:dev-proxy|login|oauth|otel|redis)` \| )?`([\w-]+)` \| ([^|]+) \| [^|]+ \|$",
        PAGES["docs/dependencies.md"],
        re.MULTILINE,
    )
    assert sorted(name for name, _ in rows) == sorted(Requirement(each).name for each in asked)
    importers = _importers()
    for name, said in rows:
        modules = MODULES.get(name, name.replace("-", "_"))
        own = importers.pop(modules, set())
        assert said == (_most(own) if own else "nothing"), name
    assert importers == {}


def _most(packages: set[str]) -> str:
    if len(packages) > NAMED_AT_MOST:
        return "most packages"
    return ", ".join(f"`{each}`" for each in sorted(packages))


def _importers() -> dict[str, set[str]]:
    """Modules that are not Python's own, with the packages of mcpbridge that import them."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "mcpbridge").rglob("*.py"):
        package = path.relative_to(ROOT / "mcpbridge").parts[0].removesuffix(".py")
        for module in _imported(ast.parse(path.read_text("utf-8"))):
            top = module.partition(".")[0]
            if top not in (*sys.stdlib_module_names, "mcpbridge"):
                known = [name for name in MODULES.values() if module.startswith(f"{name}.")]
                found.setdefault(known[0] if known else top, set()).add(package)
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield f"{node.module}."


def test_the_speed_of_the_readme_is_that_of_its_page() -> None:
    """The same table and day in both, of the releases that `make bench-peers` installs."""
    page = PAGES["docs/speed.md"]
    found = [_speed_table(text) for text in (README, page)]
    assert found[0] == found[1]
    assert len(found[0]) > 5
    days = [re.findall(r"Measured\s+on\s+([\d-]+)", text)[:1] for text in (README, page)]
    assert days[0] == days[1] != []
    folder = ROOT / "benchmarks" / "peers"
    peers = set(json.loads((folder / "package.json").read_text("utf-8"))["dependencies"].items())
    for name in ("fastmcp", "mcp-proxy"):
        (pin,) = re.findall(rf"^{name}==(.+)$", (folder / f"{name}.txt").read_text("utf-8"), re.M)
        peers.add((name, pin))
    named = {
        (name.lower(), release)
        for row in found[0]
        for name, release in re.findall(r"([\w-]+) (\d+\.\d+\.\d+)", row)
    }
    assert named == peers
    assert set(re.findall(r"([\w-]+) (\d+\.\d+\.\d+) \(\d+ of \d+ calls", page)) <= peers


def _speed_table(text: str) -> list[str]:
    """The rows of the table that has a row for mcpbridge, its head first."""
    (table,) = re.findall(r"((?:^\|.*\n)+)", text[text.index("| median |") :], re.M)[:1]
    return [*table.splitlines()]


def test_the_site_names_the_repository() -> None:
    """In one place more than `pyproject.toml`: mkdocs reads its own file."""
    assert f"repo_url: {repository()}\n" in (ROOT / "mkdocs.yml").read_text("utf-8")


def test_the_settings_are_those_of_the_program() -> None:
    """`make docs` mends it."""
    assert with_settings(SETTINGS) == SETTINGS
    assert all(f"| `{flag}" in settings_tables() for flag in FLAGS)


def test_a_document_without_marks_is_refused() -> None:
    """The table is written between two marks only."""
    with pytest.raises(ValueError, match="no <!-- settings"):
        with_settings("# Else")


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_that_of_the_program(name: str) -> None:
    """`make docs` mends it."""
    assert PAGES[name] == GENERATED[name]()


def test_the_schema_is_that_of_the_loader() -> None:
    """`make docs` mends it; the page on the file names it."""
    path = "docs/servers-file.schema.json"
    assert (ROOT / path).read_text("utf-8") == servers_schema.page()
    raw = repository().replace("github.com", "raw.githubusercontent.com")
    assert f"{raw}/main/{path}" in PAGES["docs/servers-file.md"]


def test_every_log_event_has_a_meaning_and_is_logged() -> None:
    """`MEANINGS` in `scripts.log_events` names what the package logs, and nothing else."""
    assert set(log_events.package_events()) == set(log_events.MEANINGS)


def test_log_events_are_found_with_their_levels_and_fields() -> None:
    """By literal dictionaries, by variables, and in the two places without a logger's method."""
    source = """
def f(pid):
    extra = {"pid": pid}
    log.warning("a.b", extra={**extra, "how": 1})
    log.log(level, "c.d", extra=extra)
def g(self):
    self._log(logging.CRITICAL, "e.f", {"after_s": 1})
    logging.makeLogRecord({"levelname": "WARNING", "msg": "g.h", "records": 1})
"""
    found = log_events.events([source])
    assert {name: (each.levels, each.fields) for name, each in found.items()} == {
        "a.b": ({"warning"}, {"pid", "how"}),
        "c.d": ({"debug"}, {"pid"}),
        "e.f": ({"error"}, {"after_s"}),
        "g.h": ({"warning"}, {"records"}),
    }


def test_an_exit_status_without_a_meaning_is_refused() -> None:
    """The page would pass over it."""
    assert exit_statuses.meanings('EXIT_OK = 0\n"""Well."""\n') == {0: "Well."}
    with pytest.raises(ValueError, match="EXIT_OK has no meaning"):
        exit_statuses.meanings("EXIT_OK = 0\nEXIT_START = 1\n")


def test_the_picture_is_that_of_its_script() -> None:
    """`make docs` mends it; the README shows it."""
    path = "docs/images/uses.svg"
    assert (ROOT / path).read_text("utf-8") == picture()
    raw = repository().replace("github.com", "raw.githubusercontent.com")
    assert f"]({raw}/main/{path})" in README


@pytest.mark.parametrize(
    ("picture", "remedy"),
    [
        (image_sums.PAGE, f"PICTURE={image_sums.PAGE} make browser"),
        (image_sums.SESSION, "make recording"),
    ],
)
def test_no_source_of_a_picture_has_changed_since_it_was_made(picture: str, remedy: str) -> None:
    """Only a browser or a terminal can make it again, so its sources are compared."""
    made = image_sums.sums_file(picture).read_text("utf-8").splitlines()
    now = image_sums.sums(picture).splitlines()
    changed = [line.split()[1] for line in now if line not in made]
    assert changed == [], f"{picture} is older than these: {remedy} makes it again"
    assert len(made) == len(now)


def test_every_picture_is_compared_with_its_sources() -> None:
    """None is in `docs/images` that could grow old without a failing test."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs/images").iterdir()}
    sums = {image_sums.sums_file(each).relative_to(ROOT).as_posix() for each in image_sums.SOURCES}
    assert files - sums == {"docs/images/uses.svg", *image_sums.SOURCES}


@pytest.mark.parametrize("name", [name for name in PAGES if name not in SEEN_ELSEWHERE])
def test_no_option_is_named_that_does_not_exist(name: str) -> None:
    """In prose and in commands of ours."""
    others = ("docker ", "RUN pip ", "claude ")
    ours = [line for line in PAGES[name].splitlines() if not line.strip().startswith(others)]
    named = set(re.findall(r"(?<![\w-])--[a-z-]*[a-z](?![\w-])", "\n".join(ours)))
    named -= {"--help", "--version"}  # of every program
    assert named - FLAGS - _flags_of_programs() == OF_OTHERS.get(name, set())


def _flags_of_programs() -> set[str]:
    """The options of the programs beside the bridge itself."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:  # a program holds signals until it can hear them
        programs = [importlib.import_module(name).program([]) for name in NAMED.values()]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return {flag for program in programs for param in program.params for flag in param.opts}


@pytest.mark.parametrize("name", PAGES)
def test_no_variable_is_named_that_does_not_exist(name: str) -> None:
    """Ours, and those of platforms that are heard."""
    known = {each for option in options() for each in environment_names(option.setting)}
    known |= {STATE_KEY, STATE_KEY_FILE, AUTH_TOKEN, PAGE_TOKEN, input_variable("ID")}
    known.add("MCPBRIDGE_TOKEN")  # of the shell that runs a command of the page
    pattern = r"\b(?:MCPBRIDGE_[A-Z_]+[A-Z]|TERMINATION_[A-Z_]+)\b"
    assert set(re.findall(pattern, PAGES[name])) <= known


def test_secrets_that_are_variables_only_are_explained() -> None:
    """They stand in no table, since they are not options."""
    assert f"`{STATE_KEY}`" in SETTINGS
    assert f"`{AUTH_TOKEN}`" in SETTINGS


def test_every_exit_status_is_explained() -> None:
    """The program's constants and the table agree."""
    rows = re.findall(r"^\| (\d+) \|", PAGES["docs/exit-statuses.md"], re.MULTILINE)
    used = {value for name, value in vars(exit_status).items() if name.startswith("EXIT_")}
    assert {int(number) for number in rows} == used | {130}


def test_every_make_target_that_is_named_exists() -> None:
    """And every target that a developer may want is in CONTRIBUTING.md."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    named = {name: re.findall(r"`(?:[A-Z]+=\d+ )?make ([a-z-]+)", PAGES[name]) for name in PAGES}
    assert {name: set(found) - targets for name, found in named.items() if found} == {
        name: set() for name, found in named.items() if found
    }
    assert targets - set(named["CONTRIBUTING.md"]) <= {"help", "clean"}


def test_the_minutes_of_a_suite_are_those_of_ci() -> None:
    """After which `.ci/run` ends it."""
    gate = (ROOT / ".ci" / "run").read_text("utf-8")
    bounds = re.findall(r"(?:run_tests|--kill-after=30) (\d+) (?:make )?([a-z-]+)(?!.*-m )", gate)
    rows = re.findall(r"^\| `make ([a-z-]+)` \| (\d+) \|", CONTRIBUTING, re.MULTILINE)
    assert len(bounds) > 15
    assert dict(rows) == {target: str(int(seconds) // 60) for seconds, target in bounds}


def test_every_probe_is_named() -> None:
    """The paths of `http.app`."""
    probes = (ROOT / "mcpbridge" / "http" / "app.py").read_text("utf-8")
    paths = set(re.findall(r'Route\("(/\w+)"', probes))
    assert len(paths) >= 5
    assert all(f"`{path}`" in PAGES["docs/health.md"] for path in paths)


def test_links_of_the_readme_work_on_a_package_page() -> None:
    """They are absolute, and those into the repository name files that are in it."""
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    assert len(links) > 15
    for link in links:
        assert link.startswith("https://"), link
        if link.startswith(blob := f"{repository()}/blob/main/"):
            assert_leads_somewhere(ROOT / link.removeprefix(blob))


@pytest.mark.parametrize("name", PAGES)
def test_every_link_into_the_repository_leads_somewhere(name: str) -> None:
    """Files and headings."""
    page = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", _without_code(PAGES[name])):
        if link.startswith("#"):
            assert_leads_somewhere(Path(f"{page}{link}"))
        elif "://" not in link:
            assert_leads_somewhere(page.parent / link)


def test_a_link_that_leads_nowhere_is_seen() -> None:
    """A file that is not there, and a heading that is not in it."""
    assert_leads_somewhere(ROOT / "docs" / "health.md#health")
    for link in ("docs/none.md", "docs/health.md#none"):
        with pytest.raises(AssertionError):
            assert_leads_somewhere(ROOT / link)


def assert_leads_somewhere(target: Path) -> None:
    """Fail unless a path is a file, and its fragment one of the file's headings."""
    path, _, fragment = str(target).partition("#")
    assert Path(path).exists(), target
    if fragment:
        headings = re.findall(r"^#+ (.+)$", Path(path).read_text("utf-8"), re.MULTILINE)
        assert fragment in {_anchor(heading) for heading in headings}, target


def _anchor(heading: str) -> str:
    """The fragment of a heading, as GitHub and Markdown's `toc` make it for our headings."""
    return re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
