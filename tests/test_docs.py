"""Lists in the docs that follow from classes and files: detectors, configs, strategies, links."""

import re
from pathlib import Path
from typing import Any

import keep_configs
import pytest
import torch
from test_presets import merged

from dfl import detectors
from dfl.cli import configs
from dfl.detectors.outputs import checked
from dfl.errors import UserError

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
    for cell in (row.split("|")[3] for row in table.splitlines() if row.startswith("| `")):
        first = ""
        for name in re.findall(r"`([\w/]+)`", cell):
            first = first if name.startswith("_") else name
            named.add(first.rpartition("_")[0] + name if name.startswith("_") else name)
    assert named == {name.removesuffix(".yaml") for name in keep_configs.names()}


def test_every_link_of_the_docs_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)[^):]*\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_every_page_is_in_the_nav_of_the_site() -> None:
    """``make docs`` says so too, in a minute."""
    nav = (ROOT / "mkdocs.yml").read_text().split("nav:\n")[-1]
    named = set(re.findall(r"[\w/]+\.md", nav))
    folders = tuple(re.findall(r"\b(\w+/)(?=[\]\s])", nav))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages - named if not page.startswith(folders)} == set()
    assert named - pages == {"index.md", "contributing.md", "changelog.md"}  # docs/site.py makes them


def test_the_example_of_a_detector_runs() -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec((ROOT / "docs" / "add_a_detector.md").read_text().split("```python\n")[1].split("```")[0], names)
    detector = names["Residual"](width=4, input_size=32)
    out = checked(detector(torch.rand(3, 3, 32, 32)), 3, detector)
    batch = {"label": torch.tensor([0, 1, 1]), "weight": torch.ones(3)}
    detector.loss(out, batch)["loss"].backward()
    assert detector.hparams == {"width": 4, "input_size": 32}


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (
            lambda image: image.mean((1, 2, 3)),
            r"under 'logit', a tensor \(3,\) for a batch of 3, and got a",
        ),
        (lambda image: {"logit": image.mean((1, 2, 3))[:, None]}, r"and got {logit: a tensor \(3, 1\)}"),
    ],
)
def test_a_wrong_forward_is_one_line_that_names_the_contract(wrong: Any, line: str) -> None:
    with pytest.raises(UserError, match=line):
        checked(wrong(torch.rand(3, 3, 8, 8)), 3, detectors.Dct(8))


def test_every_small_config_of_the_benchmark_has_its_measured_row() -> None:
    runs = configs.read(configs.find("benchmark/toy_full.yaml"))["runs"].values()
    rows = re.findall(
        r"^\| `(benchmark/toy/\w+\.yaml)` \|.*\| `[0-9a-f]{12}` \|$", (ROOT / "docs" / "zoo.md").read_text(), re.M
    )
    assert sorted(rows) == sorted({f"benchmark/{run['config']}" for run in runs})


def test_every_config_has_a_recipe_that_says_what_the_config_says() -> None:
    """Epochs, batch, seed and the multiply-adds that ``keep_configs.py`` counted."""
    page = (ROOT / "docs" / "zoo.md").read_text().split("\n## Every config at its true size")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in page.splitlines() if row.startswith("| `")]
    kept = keep_configs.table()
    assert sorted(row[0].strip("`") for row in rows) == sorted(name for name in keep_configs.names() if "/" not in name)
    for name, _, published, seed, length, gmacs, cost in rows:
        told = merged(name.strip("`"))
        data = configs.init_args_of(told["data"]) if isinstance(told["data"], str) else told["data"]["init_args"]
        epochs, batch = told["trainer"]["max_epochs"], data.get("batch_size", 32)
        until = "to the end of its rule" if epochs == 10_000 else rf"\b{epochs} epochs?\b"
        assert re.search(until, length), name
        assert re.search(rf"\bbatch {batch}\b", length), name
        assert int(re.split(r"\D", seed)[0]) == told.get("seed_everything", 0), name
        assert kept[name.strip("`")]["forward"].startswith(f"{gmacs.replace(',', '')} GMACs"), name
        assert published, name
        assert cost, name
