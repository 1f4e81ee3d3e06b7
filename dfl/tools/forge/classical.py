"""The first stage of a set, a picture at a time and in any process: real counterparts, fakes by makers that are no
models, and regions for those that are.
"""

from pathlib import Path
from typing import Any

import numpy as np

from dfl.data.decoding import DecodeError
from dfl.tools.forge import photos, plan
from dfl.tools.forge.makers import Scene, blended, find
from dfl.tools.forge.settings import Settings

#: Draws of a region and donor, until the fake differs from the picture by so many grey levels on average.
TRIES, CHANGE = 5, 2.0


def make(folder: Path, settings: Settings, job: plan.Job) -> dict[str, Any]:
    """Write the counterpart and the fakes of one picture; return rows and files, or why there are none.

    Rows are those of the counterpart and of each fake, in order. A model's row lacks what only the model can say, and
    its picture, until ``generate.py`` has made it.
    """
    picture = job.picture
    try:
        image, size = photos.opened(picture, settings)
        fakes = [_fake(image, size, job, k, settings) for k in range(len(job.fakes))]
    except DecodeError as error:
        return {"files": [], "rows": [], "reason": error.reason or str(error)}
    shared = {"split": picture.split, "source": picture.name, **picture.columns}
    files = [photos.save(folder, f"{job.number:06d}", image, settings)]
    rows = [shared | {"path": files[0], "label": 0, "class_label": 0}]
    for (name, _), stem, (fake, region, columns) in zip(job.fakes, job.stems, fakes, strict=True):
        row = shared | columns | {"label": 1, "generator": name.rpartition(".")[2]}
        if region is None:  # all of it is made
            row |= {"class_label": 1, "mask_rule": "all", "mask_share": 1.0}
        else:
            files.append(photos.save_mask(folder, stem, region))
            row |= {
                "class_label": 2,
                "mask": files[-1],
                "mask_rule": "max",
                "mask_share": round(float(region.mean()), 5),
            }
        if fake is not None:
            files.append(photos.save(folder, stem, fake, settings))
            maker = find(name)
            row |= {"path": files[-1], "family": maker.family, "method": maker.method}
        rows.append(row)
    return {"files": files, "rows": rows, "reason": ""}


def _fake(
    image: np.ndarray, size: tuple[int, int], job: plan.Job, k: int, settings: Settings
) -> tuple[np.ndarray | None, np.ndarray | None, dict[str, Any]]:
    """Return fake number k of a picture, its region, and columns of its row; ``size`` is that on disk.

    A model's fake is None here; the region is None where all of the picture is made.
    """
    kind = settings.kind(job.fakes[k][0])
    if kind is None:
        return _changed(image, size, job, k, settings)
    if kind != "region":
        return None, None, {}
    failed = DecodeError(job.picture.path, "no region of it is left when it is cut or shrunk")
    for attempt in range(TRIES):
        rng = np.random.default_rng([settings.seed, job.number, k, 1, attempt])
        region, shape = photos.region(job.picture, size, settings, rng, _size(image))
        if region.any():
            return None, region, {"shape": shape}
    raise failed


def _size(image: np.ndarray) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _changed(
    image: np.ndarray, size: tuple[int, int], job: plan.Job, k: int, settings: Settings
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return a fake by a maker, its region, and columns of its row.

    Of several draws the first is taken that changes the region visibly, or the one that changes it most: a piece of
    sky on sky, or a smooth wall painted over, would be a fake that nothing could find.

    Raises:
        DecodeError: If neither the picture nor a donor has a region that can be used.
    """
    name, donors = job.fakes[k]
    maker = find(name)
    largest, best = -1.0, None
    failed = DecodeError(job.picture.path, "no region of it is left when it is cut or shrunk")
    for attempt in range(TRIES):
        rng = np.random.default_rng([settings.seed, job.number, k, 1, attempt])
        other = donors[attempt % len(donors)] if donors else job.picture
        try:
            donor, donor_size = photos.opened(other, settings) if donors else (image, size)
            of, on_disk = (other, donor_size) if maker.region_of_donor else (job.picture, size)
            target = donor if maker.region_of_donor else image
            region, shape = photos.region(of, on_disk, settings, rng, _size(target))
        except DecodeError as error:
            failed = error
            continue
        if not region.any():
            continue
        changed, area = maker.make(Scene(image, region, donor, settings.limits, settings.colour), rng)
        if not area.any():
            continue
        fake = blended(image, changed, area, settings.feather if maker.soft else 0)
        change = float(np.abs(fake[area].astype(np.int16) - image[area]).mean())
        if change > largest:
            largest, best = change, (fake, area, {"donor": other.name if donors else "", "shape": shape})
        if change >= CHANGE:
            break
    if best is None:
        raise failed
    return best
