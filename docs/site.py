"""Hooks of mkdocs: README and its kin are pages of the site, and each part of the package gets one of docstrings."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: Files beside docs/ that are pages, by their place in the site.
BESIDE = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
#: Parts of the package whose docstrings are the API, and whether by file, where they export no names.
API = dict.fromkeys(("detectors", "data", "networks", "losses", "metrics", "features", "training"), False)
API |= dict.fromkeys(("data.sources", "evaluation", "errors"), True)


def on_config(config: Any) -> Any:
    """Put the pages of a folder in place of its name in the nav."""
    config.nav = [_unfolded(one) for one in config.nav]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    for page, file in BESIDE.items():
        text = (ROOT / file).read_text(encoding="utf-8").replace("](docs/recipes)", "](recipes/README.md)")
        text = re.sub(r"\]\((CONTRIBUTING|CHANGELOG|README)\.md", lambda hit: f"]({_page(hit[1])}", text)
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    for part, by_file in API.items():
        text = f"# `dfl.{part}`\n\n::: dfl.{part}\n    options: {{show_submodules: {str(by_file).lower()}}}\n"
        files.append(File.generated(config, f"api/{part}.md", content=text))
    return files


def _page(name: str) -> str:
    return next(page for page, file in BESIDE.items() if file == f"{name}.md")


def _unfolded(entry: Any) -> Any:
    """Return an entry of the nav with ``FOLDER/`` as the list of its pages."""
    if isinstance(entry, dict):
        return {title: _unfolded(inner) for title, inner in entry.items()}
    if isinstance(entry, list):
        inner = [_unfolded(one) for one in entry]
        return [one for part in inner for one in (part if isinstance(part, list) else [part])]
    if entry == "api/":
        return [{f"dfl.{part}": f"api/{part}.md"} for part in API]
    if entry.endswith("/"):
        return [f"{entry}{path.name}" for path in sorted((ROOT / "docs" / entry).glob("*.md"))]
    return entry
