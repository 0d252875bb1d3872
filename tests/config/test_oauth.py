"""The settings of OAuth that only make sense together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest

from mcpbridge import DISTRIBUTION
from mcpbridge.config.load import load
from mcpbridge.errors import ConfigError
from mcpbridge.http.auth.oauth import OAuthSettings

ISSUER, RESOURCE = "https://issuer.example/realms/a", "https://mcp.example/mcp"
GIVEN = {"--oauth-issuer": [ISSUER], "--oauth-audience": [RESOURCE]}
COMMAND = ("python", "server.py")


def read(**flags: Sequence[str]) -> OAuthSettings:
    """Load with flags in addition to issuer and audience; an empty list takes one of these away."""
    given = {**GIVEN, **{f"--oauth-{name}": texts for name, texts in flags.items()}}
    return load({flag: texts for flag, texts in given.items() if texts}, COMMAND, {}).settings.oauth


def test_an_issuer_and_a_resource_are_enough() -> None:
    """The first audience is the resource, others are taken as well."""
    assert read().issuer == ISSUER
    assert read(audience=[RESOURCE, "api://mcp"]).audiences == (RESOURCE, "api://mcp")


def test_an_issuer_that_is_only_a_name_needs_the_address_of_its_keys() -> None:
    """In plain text nothing is fetched from afar; what a token says of its issuer is a text."""
    far = ["http://issuer.example"]
    with pytest.raises(ConfigError, match="--oauth-jwks-url"):
        read(issuer=far)
    settings = read(issuer=far, **{"jwks-url": ["https://issuer.example/keys"]})
    assert settings.issuer == far[0]


@pytest.mark.parametrize("text", [
    "", "issuer.example", "ftp://issuer.example", "https://", "https://a b", "https://a/?x=1",
    "https://a/#x", 'https://a/"', "https://u:p@a/", "https://a:port", "https://é.example",
])  # fmt: skip
def test_what_names_no_issuer_and_no_resource_is_refused(text: str) -> None:
    """Both stand in quotes in headers, and in metadata (RFC 8414, 2; RFC 8707, 2)."""
    with pytest.raises(ConfigError, match="--oauth-audience"):
        read(audience=[text])
    if text:
        with pytest.raises(ConfigError, match="--oauth-issuer"):
            read(issuer=[text])


@pytest.mark.parametrize(
    "flags",
    [
        {"audience": [RESOURCE]},
        {"scope": ["a"]},
        {"algorithms": ["ES256"]},
        {"jwks-url": ["https://issuer.example/keys"]},
        {"method-scope": ["tools/call=a"]},
    ],
)
def test_nothing_of_it_means_anything_without_an_issuer(flags: dict[str, list[str]]) -> None:
    """A bridge that was meant to ask for tokens does not start without."""
    with pytest.raises(ConfigError, match="has no effect without --oauth-issuer"):
        read(**{"issuer": [], "audience": [], **flags})


@pytest.mark.slow
def test_without_the_extra_the_text_says_what_to_install() -> None:
    """Instead of an error from within at the first token."""
    program = f"""
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, *more):
        return None if name.partition(".")[0] == "joserfc" else PathFinder.find_spec(name, *more)

sys.meta_path[:] = [Without if each is PathFinder else each for each in sys.meta_path]
from mcpbridge.config.load import load
from mcpbridge.errors import ConfigError
load({{}}, {COMMAND!r}, {{}})
try:
    load({GIVEN!r}, {COMMAND!r}, {{}})
except ConfigError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"pip install '{DISTRIBUTION}[oauth]'" in run.stdout


@pytest.mark.slow
def test_who_asks_for_no_tokens_pays_for_none_of_it() -> None:
    """Neither the library nor outgoing HTTP is imported by a bridge without OAuth."""
    program = (
        "import sys, mcpbridge.app.lifecycle\n"
        "print([name for name in ('joserfc', 'httpx', 'mcpbridge.remote') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.strip() == "[]"
