"""Checks of a run's tables before its first batch: an error if the run would be worthless, a warning otherwise."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from dfl.data.formats import FORMATS, LeftOut
from dfl.data.heif import HAS_HEIF, NO_HEIF
from dfl.data.overlap import MOST_ROWS, same_content, same_paths
from dfl.data.rows import Rows
from dfl.data.sources.base import Source
from dfl.errors import UserError

_HEIC = rf"({'|'.join(suffix.replace('.', '[.]') for suffix in FORMATS['HEIF'][0].split())})$"


def check(data: Any, splits: Sequence[str]) -> None:
    """Look at the tables of some splits of a ``DataModule``.

    Raises:
        UserError: If there is nothing to learn, a package is missing that many images need, or images are both trained
            on and evaluated on.
    """
    if "train" in splits:
        learnable(data.sets["train"]["train"].rows)
    for split in splits if data.on_bad == "raise" else ():
        for domain, images in data.sets[split].items():
            decodable(images.table["path"], f"{split}/{domain}")
    if not data.allow_overlap:
        if "train" in splits:
            _check_overlap(data)
        elif "test" in splits:  # the training data need not be here; without splits they are the same
            for source in (s for s in data.train_sources if getattr(s, "fractions", 1) is None):
                if source in data.sources["test"].values():
                    trained = source.load("train")["path"]
                    for domain, images in data.sets["test"].items():
                        same_paths(f"test/{domain}", trained, images.table["path"])
    if "predict" not in splits:  # prediction says it beside its scores
        say_left_out(s for split in splits for s in data.sources_of(split))


def _check_overlap(data: Any) -> None:
    """Look for training images among the validation images, and among the test images of the training sources."""
    trained = data.sets["train"]["train"].table["path"]
    others = {f"val/{domain}": images.table["path"] for domain, images in data.sets["val"].items()}
    for name, paths in others.items():
        same_paths(name, trained, paths)
    few = len(trained) + sum(map(len, others.values())) <= MOST_ROWS
    for domain, source in data.sources["test"].items() if few else ():
        if source in data.train_sources:
            try:
                table = source.load("test")
                same_paths(domain, trained, table["path"])
            except UserError:  # `test` will say that there is no such split, or that it is trained on
                continue
            data.videos.check(f"test/{domain}", source, table)
            others[f"test/{domain}"] = table["path"]
    same_content(trained, others)


def learnable(rows: Rows) -> None:
    """Raise if images to train on have no labels, or are all of one class and none has a mask to learn.

    Raises:
        UserError: Saying what is there and what lacks.
    """
    label = rows.label
    if unknown := int((label < 0).sum()):
        raise UserError(f"{unknown:,} of {len(label):,} images to train on have no label; give a source that has them")
    if (label != label[0]).any() or pc.any(pc.not_equal(rows.table["mask"], "")).as_py():
        return
    only, other = ("fake", "real") if label[0] else ("real", "fake")
    what = "the one image to train on is" if len(label) == 1 else f"all {len(label):,} images to train on are"
    raise UserError(f"{what} {only}: there is nothing to tell apart; add a source of {other} images to data.train")


def decodable(paths: pa.ChunkedArray, name: str) -> None:
    """Raise if images are HEIC by name and the package that reads it is not installed.

    Raises:
        UserError: Naming the package.
    """
    if HAS_HEIF:
        return
    heic = paths.filter(pc.match_substring_regex(paths.cast(pa.large_string()), _HEIC, ignore_case=True))
    if len(heic):
        raise UserError(f"{len(heic):,} of {len(paths):,} images of {name} are {NO_HEIF}, such as {heic[0]}")


def say_left_out(sources: Iterable[Source]) -> None:
    """Warn once of the files that sources left out."""
    whole = LeftOut()
    for source in sources:
        whole.update(source.left_out)
    if len(whole):
        rank_zero_warn(str(whole))
