"""A hook of mkdocs: the pages at the top of the repository become pages of the site.

They stay where GitHub and contributors look for them. Links between them and `docs/` are rewritten,
since the site has all pages in one folder.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

NAMES = (
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
)
_DOWN = re.compile(r"\]\(docs/")
_ROOT = re.compile(rf"\]\((?:\.\./)?({'|'.join(map(re.escape, NAMES))})")
_REST = re.compile(r"\]\(((?:\.\./)?(?:deploy|mcpbridge|scripts|tests|benchmarks)/[^)]*|LICENSE)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each of `NAMES`."""
    root = Path(config.config_file_path).parent
    for name in NAMES:
        text = (root / name).read_text("utf-8")
        files.append(File.generated(config, name.lower(), content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at where the site has what they name; what it has not is on GitHub."""
    repository = str(config.repo_url).rstrip("/")
    markdown = _DOWN.sub("](", markdown)
    markdown = _ROOT.sub(lambda found: f"]({found[1].lower()}", markdown)
    return _REST.sub(
        lambda found: f"]({repository}/blob/main/{found[1].removeprefix('../')})", markdown
    )
