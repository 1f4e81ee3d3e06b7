"""What a test leaves for a benchmark: the predictions of every domain, in the store, in place of a report."""

import io
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from PIL import Image

from dfl.benchmark import store
from dfl.benchmark.details import misjudged
from dfl.benchmark.spec import STORED
from dfl.data.transforms import Transform
from dfl.errors import UserError
from dfl.evaluation.examples import Examples
from dfl.evaluation.report import Report
from dfl.metrics.measures import Measurements
from dfl.runs.files import write
from dfl.training.trainer import count_gmacs, count_parameters

#: Names of unreadable images that a file holds; all are counted.
MOST_NAMES = 20
#: Longer side of a map that a file holds, in pixels.
MAP_SIDE = 72
#: Columns of the rows of a data set that predictions take over.
_FACTS = ("path", "video", "group", "generator", "source")


class Collect(Report):
    """Write the predictions of a test to the store.

    Args:
        plan: JSON file: by domain, the ``file`` that it goes to and its ``facts``; ``transform``, the hash of the view
            that the keys were made for.
    """

    def __init__(self, plan: str) -> None:
        super().__init__(pictures=0)
        self.plan = json.loads(Path(plan).read_text(encoding="utf-8"))
        self._began = 0.0

    def on_test_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Make sure that the images will be seen as the keys say.

        Raises:
            UserError: If they will not: the store would hold scores under another key.
        """
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        seen = transform_hash(data.transform.spec(), data.size or pl_module.input_size, data.views)
        self._began = time.perf_counter()
        if seen != self.plan["transform"]:
            raise UserError(
                "the images would be resized otherwise than the benchmark notes: leave data.size, data.views and "
                "data.transform out of the options, and name transform and views in the spec"
            )

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the files, in one process."""
        if not trainer.is_global_zero:
            return
        sets = trainer.datamodule.sets["test"]  # type: ignore[attr-defined]
        metrics: Measurements = pl_module.metrics["test"]
        for domain, one in self.plan["domains"].items():
            bad, scored = sorted(sets[domain].bad), len(metrics.rows(domain)["index"])
            if scored + len(bad) != len(sets[domain]):
                raise UserError(
                    f"{domain}: {scored} of {len(sets[domain])} images were scored; leave trainer.limit_test_batches "
                    "and fast_dev_run out, and cut a domain with its source's limit"
                )
            facts = one["facts"] | {
                "detector": type(pl_module).__name__,
                "threshold": float(pl_module.threshold),
                "listed": len(sets[domain]),
                "unreadable": len(bad),
                "unreadable_names": bad[:MOST_NAMES],
            }
            table = predictions(metrics, domain, sets[domain].table)
            if facts["variant"] == STORED and "iou" in table.column_names:
                shown = wrong_maps(Examples.of(trainer, pl_module, "test"), domain, facts["threshold"])
                table = table.append_column(store.MAP, shown)
            store.write(Path(one["file"]), table, facts)
        self._note_cost(pl_module, sum(len(metrics.rows(domain)["index"]) for domain in metrics))

    def _note_cost(self, module: Any, images: int) -> None:
        """Write down what testing costs, unless a test of more images has; it is no part of any key."""
        file = Path(self.plan["cost"])
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if before.get("images", 0) >= images:
            return
        on_gpu = module.device.type == "cuda"
        memory = (
            torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        )
        cost = {
            "images": images,
            "images_per_s": images / (time.perf_counter() - self._began),
            "memory_mb": memory / 2**20,
            "device": torch.cuda.get_device_name() if on_gpu else "CPU",
            "parameters": count_parameters(module).network.total,
            "macs": before.get("macs", round(1e9 * count_gmacs(module, module.input_size))),
        }
        write(file, json.dumps(cost, indent=1))


def predictions(metrics: Measurements, domain: str, table: pa.Table) -> pa.Table:
    """Return what a detector gave for the images of a domain, in the order of its rows, each once.

    Args:
        metrics: Of a test.
        domain: Its name.
        table: Rows of its data set.
    """
    rows = metrics.rows(domain)
    facts = table.select(list(_FACTS)).take(pa.array(rows["index"].numpy()))
    columns: dict[str, Any] = {name: facts[name].cast(pa.string()) for name in _FACTS}
    columns |= {name: rows[name].numpy() for name in ("label", "score", "logit")}
    localization = metrics[domain].get("mask")
    if localization is not None and len(localization.gathered()[0]):
        maps: Any = localization
        columns |= _maps(maps.rows(), rows["index"])
    return pa.table(columns)


def wrong_maps(examples: Examples, domain: str, threshold: float) -> pa.Array:
    """Return the maps of the images that the page shows as most wrong, small PNG files in grey; null of all others."""
    rows = examples.metrics.rows(domain)
    found: list[bytes | None] = [None] * len(rows["index"])
    for place in misjudged(rows["score"].numpy(), rows["label"].numpy(), threshold):
        if (prob := examples.map_of(domain, int(rows["index"][place]))) is not None:
            picture, file = Image.fromarray((255 * prob).round().byte().numpy()), io.BytesIO()
            picture.thumbnail((MAP_SIDE, MAP_SIDE))
            picture.save(file, "png")
            found[place] = file.getvalue()
    return pa.array(found, pa.binary())


def _maps(of_maps: dict[str, torch.Tensor], index: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the numbers of the maps of each image, NaN of those without; of fakes, but for the area called fake."""
    place = {number: i for i, number in enumerate(of_maps["index"].tolist())}
    rows = np.array([place.get(number, -1) for number in index.tolist()])
    fake = of_maps["label"].numpy() == 1
    pixels = sum(of_maps[name].numpy() for name in ("tp", "fp", "fn", "tn"))
    names = {"iou": "iou", "pbca": "pbca", "f1": "f1", "pixel_ap": "ap"}
    numbers = {name: np.where(fake, of_maps[one].numpy(), np.nan) for name, one in names.items()}
    area = (of_maps["tp"] + of_maps["fn"]).numpy() / pixels
    numbers["area"] = np.where(np.isnan(numbers["iou"]), np.nan, area)  # fakes that are left out are left out here too
    numbers["fpa"] = np.where(fake, np.nan, of_maps["fp"].numpy() / pixels)
    return {name: np.where(rows >= 0, values[rows], np.nan) for name, values in numbers.items()}


def transform_hash(spec: dict[str, Any], size: int, views: str) -> str:
    """Return the hash of how images are seen.

    Args:
        spec: Arguments of a `Transform`; those of training alone do not matter.
        size: Side of what the network sees, in pixels.
        views: Of the data module.
    """
    of_evaluation = {key: value for key, value in spec.items() if key not in Transform.TRAINING}
    return store.digest(of_evaluation, int(size), views)
