"""``dfl forge``: a set of partial fakes, their masks, and their untouched counterparts, as files and one table.

Real and fake pictures go the same way: decoded, shrunk if asked for, and written in one format at one quality. So
neither format nor compression tells them apart, and a fake differs from its counterpart in the masked pixels alone
(in a JPEG: in their 8 x 8 blocks).

Each picture is a function of (seed, number, fake) alone.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import cv2
import numpy as np

from dfl.data import csv_files
from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image
from dfl.errors import UserError
from dfl.runs.files import write
from dfl.runs.output_folder import OutputFolder, output_folder
from dfl.runs.workers import Workers
from dfl.tools.common import BadImages, Common, processes
from dfl.tools.forge import plan
from dfl.tools.forge.makers import Scene, blended, find, named
from dfl.tools.forge.shapes import Kind, draw, shrunk
from dfl.tools.forge.sheet import contact_sheet
from dfl.tools.pixels import encoded
from dfl.tools.sources import read_rows

#: Goes up when the same arguments would give other pictures.
VERSION = 1
COLUMNS = [
    *("path", "label", "split", "mask", "class_label", "generator", "family", "method", "source", "donor"),
    *("shape", "mask_share", "identity", "video", "group"),
]
#: Draws of a region and donor, until the fake differs from the picture by so many grey levels on average.
TRIES, CHANGE = 5, 2.0


@dataclass(frozen=True)
class Settings:
    """What the pictures depend on beside the sources: arguments of ``forge``."""

    makers: list[str]
    shapes: Kind
    per_image: int
    min_area: float
    max_area: float
    feather: float
    colour: float
    max_side: int | None
    quality: int | None
    seed: int

    def __post_init__(self) -> None:
        """Raise a UserError for what is out of bounds."""
        if not 0 < self.min_area <= self.max_area < 1:
            raise UserError(f"--min_area {self.min_area} and --max_area {self.max_area} must rise, within 0 and 1")
        if not 0 <= self.colour <= 1 or self.feather < 0:
            raise UserError(f"--colour {self.colour} must be within 0 and 1, --feather {self.feather} not negative")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality} must be within 1 and 100")
        if self.max_side is not None and self.max_side < 16:
            raise UserError(f"--max_side {self.max_side} must be at least 16")
        if self.per_image < 1:
            raise UserError(f"--per_image {self.per_image} must be at least 1")

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest share of an image that is changed."""
        return self.min_area, self.max_area


def forge(
    sources: list[str],
    output: str = "forged",
    makers: list[str] = ["splice"],  # noqa: B006  (read only; jsonargparse shows it in the help)
    shapes: Kind = "blobs",
    masks: str | None = None,
    per_image: int = 1,
    min_area: float = 0.02,
    max_area: float = 0.3,
    feather: float = 2.0,
    colour: float = 0.5,
    max_side: int | None = None,
    quality: int | None = None,
    train: float = 0.7,
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    max_missing: float = 0.05,
    **common: Unpack[Common],
) -> Path:
    """Make a set of partial fakes with known masks: ``images/``, ``masks/`` (255 = manipulated), ``table.csv``.

    Args:
        sources: Data configs, folders, tables; their real images are used.
        output: Folder to make.
        makers: What is done to a region: splice, copymove, swap, telea, ns, noise, blur, jpeg; inpaint (telea, ns),
            resynth (noise, blur, jpeg), all; or the import path of a ``Maker``. They take turns.
        shapes: Where regions come from: random blobs or ellipses, segments or given masks.
        masks: Folder of segments or given masks, named like the images; without it, given masks are those of the rows.
        per_image: Fakes of each image; with as many as there are makers, each maker changes each image.
        min_area: Smallest share of an image that is changed. Given masks are taken as they are.
        max_area: Largest share.
        feather: Width in pixels over which a region is blended in, from its rim inwards.
        colour: How far a donor's colours are brought to those of the image, 0 to 1.
        max_side: Shrink images whose longer side is longer, which also takes away the traces of earlier compression.
        quality: Write JPEG of this quality, chroma 4:4:4, in place of PNG; the same for real and fake.
        train: Share of the images, where they have no split.
        val: Share of the images.
        test: Share of the images.
        seed: Seed.
        max_missing: Largest share of images that may be left out, because no fake can be made of them.
        **common: Options of every verb.

    Returns:
        The table.

    Raises:
        UserError: For an argument out of bounds, no real image, too many that cannot be used, or another set's folder.
    """
    settings = Settings(named(makers), shapes, per_image, min_area, max_area, feather, colour, max_side, quality, seed)
    rows, shares = read_rows(sources, common.get("root")), {"train": train, "val": val, "test": test}
    pictures = plan.pictures(rows, shapes, masks, shares, seed)
    jobs = plan.jobs(pictures, settings.makers, per_image, seed)
    with output_folder(output, "forge", {"version": VERSION, **asdict(settings), **plan.facts(jobs)}) as folder:
        if not folder.done:
            with processes(len(jobs), "forge", common) as pool:
                skipped = _fill(folder, settings, jobs, max_missing, pool)
            folder.finish(sources=sources, skipped=skipped)
        print(f"the set is {folder.folder / 'table.csv'}" + " (it was there)" * folder.done)
    return folder.folder / "table.csv"


def _fill(
    folder: OutputFolder, settings: Settings, jobs: list[plan.Job], max_missing: float, pool: Workers
) -> list[dict[str, str]]:
    """Make all pictures, the table and a sheet to look at; print a summary; return what was left out, and why."""
    bad = BadImages(len(jobs), "max_missing", max_missing)
    rows: list[dict[str, Any]] = []
    for job, result in zip(jobs, folder.results(partial(_make, folder.partial, settings), jobs, pool), strict=True):
        if result["reason"]:
            bad.add(job.picture.name, result["reason"])
        rows += result["rows"]
    write(folder.partial / "table.csv", csv_files.whole(COLUMNS, rows))
    write(folder.partial / "sheet.jpg", encoded(contact_sheet(folder.partial, rows), "jpeg", 90, "4:2:0"))
    fakes = Counter(row["generator"] for row in rows if row["label"])
    splits = Counter(job.picture.split for job in jobs)
    of_splits, of_fakes = (", ".join(f"{n:,} {name}" for name, n in count.items()) for count in (splits, fakes))
    print(f"{len(rows) - fakes.total():,} real ({of_splits}), fakes: {of_fakes}")
    shapes = Counter(row["shape"] for row in rows if row["label"])
    if len(shapes) > 1:
        print(f"{shapes['blobs']:,} regions are blobs, where no segment is within --min_area and --max_area")
    if bad.images:
        print(f"{bad}; forge.json lists them")
    return [{"name": name, "reason": reason} for name, reason in bad.images]


def _make(folder: Path, settings: Settings, job: plan.Job) -> dict[str, Any]:
    """Write the counterpart and the fakes of one picture; return their rows and files, or why there are none."""
    picture = job.picture
    try:
        image, size = _opened(picture, settings)
        fakes = [_fake(image, size, job, k, settings) for k in range(len(job.fakes))]
    except DecodeError as error:
        return {"files": [], "rows": [], "reason": error.reason or str(error)}
    suffix, encoding = ("png", "png") if settings.quality is None else ("jpg", "jpeg")
    shared = {"split": picture.split, "source": picture.name, **picture.columns}
    path = f"images/{job.number:06d}.{suffix}"
    files = {path: encoded(image, encoding, settings.quality or 95)}
    rows = [shared | {"path": path, "label": 0, "class_label": 0}]
    count: Counter[str] = Counter()
    for (name, _), (fake, region, columns) in zip(job.fakes, fakes, strict=True):
        maker, generator = find(name), name.rpartition(".")[2]
        count[generator] += 1
        stem = f"{job.number:06d}_{generator}" + (f"_{count[generator]}" if count[generator] > 1 else "")
        path, mask = f"images/{stem}.{suffix}", f"masks/{stem}.png"
        files[path] = encoded(fake, encoding, settings.quality or 95)
        files[mask] = encoded(region.astype(np.uint8) * 255, "png")
        columns |= {"generator": generator, "family": maker.family, "method": maker.method}
        rows.append(shared | columns | {"path": path, "label": 1, "class_label": 2, "mask": mask})
    for name, content in files.items():
        write(folder / name, content, sync=False)
    return {"files": list(files), "rows": rows, "reason": ""}


def _opened(picture: plan.Picture, settings: Settings) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the pixels of a picture, shrunk if asked for, and the (width, height) that it has on disk."""
    image = load_image(picture.path, bits=picture.bits)
    height, width = image.shape[:2]
    scale = (settings.max_side or max(width, height)) / max(width, height)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image, (width, height)


def _fake(
    image: np.ndarray, size: tuple[int, int], job: plan.Job, k: int, settings: Settings
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return fake number k of a picture, its region, and columns of its row; ``size`` is that on disk.

    Of several draws the first is taken that changes the region visibly, or the one that changes it most: a piece of
    sky on sky, or a smooth wall painted over, would be a fake that nothing could find.

    Raises:
        DecodeError: If neither the picture nor a donor has a region that can be used.
    """
    name, donors = job.fakes[k]
    maker = find(name)
    largest, best = -1.0, None
    failed = DecodeError(job.picture.path, "no region of it is left when it is shrunk")
    for attempt in range(TRIES):
        rng = np.random.default_rng([settings.seed, job.number, k, 1, attempt])
        other = donors[attempt % len(donors)] if donors else job.picture
        try:
            donor, donor_size = _opened(other, settings) if donors else (image, size)
            of, on_disk = (other, donor_size) if maker.region_of_donor else (job.picture, size)
            region, shape = draw(settings.shapes, on_disk, settings.limits, rng, of.mask, of.rule)
        except DecodeError as error:
            failed = error
            continue
        target = donor if maker.region_of_donor else image
        scene = Scene(image, shrunk(region, target.shape[1::-1]), donor, settings.limits, settings.colour)
        if not scene.region.any():
            continue
        changed, area = maker.make(scene, rng)
        if not area.any():
            continue
        fake = blended(image, changed, area, settings.feather if maker.soft else 0)
        change = float(np.abs(fake[area].astype(np.int16) - image[area]).mean())
        if change > largest:
            share = round(float(area.mean()), 5)
            columns = {"donor": other.name if donors else "", "shape": shape, "mask_share": share}
            largest, best = change, (fake, area, columns)
        if change >= CHANGE:
            break
    if best is None:
        raise failed
    return best
