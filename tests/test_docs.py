"""Lists in the docs that follow from classes and files: detectors, configs, strategies, links."""

import re
from pathlib import Path

import keep_configs
import pytest

from dfl import detectors

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CLASSES = sorted(
    n
    for n in detectors.__all__
    if isinstance(getattr(detectors, n), type) and n not in ("Detector", "FittedDetector", "Baseline")
)


@pytest.mark.parametrize("name", CLASSES)
def test_every_detector_has_a_row_a_page_and_its_strategies(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \|.*$", README, re.M)
    page = re.search(r"\]\((docs/[\w/]+\.md)", row)
    assert page
    assert name in (ROOT / page[1]).read_text()
    strategies = (ROOT / "docs" / "reliability.md").read_text().split("## Which strategies")[1]
    assert re.search(rf"^\| [^|]*\b{name}\b[^|]*\|", strategies, re.M)


def test_every_config_of_a_detector_is_in_the_table() -> None:
    table = README.split("## Detectors")[1].split("## ")[0]
    named = set()
    for configs in (row.split("|")[3] for row in table.splitlines() if row.startswith("| `")):
        first = ""
        for name in re.findall(r"`([\w/]+)`", configs):
            first = first if name.startswith("_") else name
            named.add(first.rpartition("_")[0] + name if name.startswith("_") else name)
    assert named == {name.removesuffix(".yaml") for name in keep_configs.names()}


def test_every_link_of_the_docs_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)[^):]*\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
