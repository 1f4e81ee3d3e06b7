"""Every config of data builds its sources without touching the disk, and every source says where it comes from."""

import inspect
import re
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

import dfl
from dfl.data import DataModule
from dfl.data import sources as all_sources
from dfl.data.sources import Source

CONFIGS = sorted((Path(dfl.__file__).parent.parent / "configs" / "data").glob("*.yaml"))


@pytest.fixture(scope="module")
def parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    return parser


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a method that all versions we allow have
@pytest.mark.parametrize("file", CONFIGS, ids=lambda f: f.stem)
def test_configs_build(file: Path, parser: ArgumentParser) -> None:
    first = file.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")
    data = parser.instantiate_classes(parser.parse_args(["--data", str(file)])).data
    assert isinstance(data, DataModule)
    assert data.sources["test"]


def test_every_public_set_has_a_config_and_its_papers() -> None:
    text = "".join(f.read_text() for f in CONFIGS)
    page = (Path(dfl.__file__).parent.parent / "docs" / "data.md").read_text()
    own = {"Degraded", "Folder", "Joined", "Only", "Packed", "Paths", "Table", "Toy"}
    sources = {name: kind for name, kind in vars(all_sources).items() if isinstance(kind, type)}
    assert len(sources) > 30
    for name, kind in sources.items():
        if inspect.isabstract(kind) or name in own:
            continue
        assert f"class_path: {name}," in text or f"class_path: {name}\n" in text, name
        assert re.search(rf"^\* .*`{name}`.*: .*, .*(19|20)[0-9]{{2}}", page, re.MULTILINE), name
        assert kind.get != Source.get or name == "Kaggle140k", name
        (row,) = (line for line in page.splitlines() if f" | `{name}` | " in line)
        _, _, where, layout, labels, masks, licence, recalled = row.strip("| ").split(" | ")
        assert all((where, layout, labels, masks, licence, recalled)), name
