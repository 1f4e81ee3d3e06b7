"""Write tests/golden/configs.json: what ``count`` says of every config, and the names and shapes of its tensors.
And configs/parameters.json, which is packaged: parameters alone, of configs and methods, for ``dfl list``.

    python tests/keep_configs.py      adds configs that are not in the table; lines that are there stay

Files of users fit to these names and shapes, so a change of a line is a change that breaks files.
"""

import contextlib
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from dfl import detectors
from dfl.__main__ import main
from dfl.cli import configs

FILE = Path(__file__).parent / "golden" / "configs.json"
PARAMETERS = Path(__file__).parents[1] / "configs" / "parameters.json"


def names() -> list[str]:
    """Return all configs of detectors."""
    others = ("benchmark/", "data/", "forge/", "setup/", "trainer/")
    return [name for name in configs.listing() if not name.startswith(others)]


def table() -> dict[str, Any]:
    """Return what is kept, by config."""
    kept: dict[str, Any] = json.loads(FILE.read_text())
    return kept


def facts(yaml: str) -> dict[str, Any]:
    """Return parameters and multiplications of a config, and a hash of the names and shapes of its tensors."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, torch.device("meta"):
        cli = main(["count", f"--config={yaml}"])
    lines = (line.split(None, 1) for line in printed.getvalue().strip().splitlines()[-3:])
    tensors = sorted(f"{key} {tuple(value.shape)}" for key, value in cli.model.state_dict().items())
    return dict(lines) | {
        "tensors": len(tensors),
        "sha256": hashlib.sha256("\n".join(tensors).encode()).hexdigest(),
    }


def short(number: int) -> str:
    """Return a number in three digits."""
    size, unit = next(one for one in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")) if number >= one[0] or one[0] == 1)
    return f"{number / size:.3g} {unit}".rstrip()


def parameters() -> dict[str, str]:
    """Return how many parameters the network of each config has, in short, and from the least to the most those of each
    detector, and of each backbone of its own.
    """
    numbers = {name: int(one["network"].rpartition(" ")[2].replace(",", "")) for name, one in table().items()}
    methods: dict[str, set[int]] = {one.name: set() for one in configs.methods()}
    for name in (name for name in numbers if "/" not in name):
        model = configs.layers([configs.find(name)])[0]["model"]
        alone = issubclass(
            getattr(detectors, model["class_path"]), detectors.Classifier
        )  # is its backbone, and no more
        for method in {model["class_path"], model["init_args"].get("backbone") if alone else ""} & methods.keys():
            methods[method].add(numbers[name])
    ranges = {name: dict.fromkeys((short(min(of)), short(max(of)))) for name, of in methods.items() if of}
    return {name: short(number) for name, number in numbers.items()} | {k: " to ".join(v) for k, v in ranges.items()}


if __name__ == "__main__":
    kept = table()
    FILE.write_text(json.dumps({name: kept.get(name) or facts(name) for name in names()}, indent=1) + "\n")
    PARAMETERS.write_text(json.dumps(parameters(), indent=1) + "\n")
