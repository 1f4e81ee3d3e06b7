"""``dfl forge``: a set of partial fakes, their masks, and their untouched counterparts, as files and one table.

Real and fake pictures go the same way: decoded, shrunk if asked for, and written in one format at one quality. So
neither format nor compression tells them apart, and a fake differs from its counterpart in the masked pixels alone
(in a JPEG: in their 8 x 8 blocks).

Rows are written down as pictures are finished, in a hidden folder beside the output, which becomes the output in one
step. Cut off at any moment, the same command goes on. Each picture is a function of (seed, number, fake) alone, so the
set does not depend on the number of processes.
"""

import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dfl.data import csv_files
from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image
from dfl.data.workers import Workers, making
from dfl.errors import UserError
from dfl.runs.files import write
from dfl.tools.forge import plan
from dfl.tools.forge.makers import Scene, blended, find, named
from dfl.tools.forge.shapes import Kind, draw, shrunk
from dfl.tools.forge.sheet import contact_sheet
from dfl.tools.given import open_sources, rows

#: Goes up when the same arguments would give other pictures.
VERSION = 1
RECORD = "forge.json"
COLUMNS = [
    *("path", "label", "split", "mask", "class_label", "generator", "family", "method", "source", "donor"),
    *("shape", "mask_share", "identity", "video", "group"),
]
#: Draws of a region and donor, until the fake differs from the picture by so many grey levels on average.
TRIES, CHANGE = 5, 2.0


@dataclass(frozen=True)
class Look:
    """How pictures are made, as given to ``forge``."""

    shapes: Kind
    limits: tuple[float, float]
    feather: float
    colour: float
    max_side: int | None
    quality: int | None
    seed: int


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
    root: str | None = None,
    workers: int | None = None,
    progress: bool = True,
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
        max_missing: Largest share of images that is put up with of which no fake can be made.
        root: Folder that replaces the root of every source of the configs.
        workers: Processes; by default one for each core.
        progress: Show a progress bar.

    Returns:
        The table.

    Raises:
        UserError: If an argument is out of bounds, a source gives no real image, too many cannot be used, or the folder
            holds something else.
    """
    look = Look(shapes, (min_area, max_area), feather, colour, max_side, quality, seed)
    _check_look(look, per_image)
    names = named(makers)
    folder = Path(output).expanduser().absolute()
    shares = {name: share for name, share in (("train", train), ("val", val), ("test", test)) if share}
    found = plan.pictures(rows(open_sources(sources, root)), shapes, masks, shares, seed)
    work = plan.jobs(found, shapes, names, per_image, seed)
    settings = {
        **{"version": VERSION, "makers": names, "shapes": shapes, "per_image": per_image, "min_area": min_area},
        **{"max_area": max_area, "feather": feather, "colour": colour, "max_side": max_side, "quality": quality},
        **{"seed": seed, "images": len(work), "digest": plan.digest(work)},
    }
    with making("dfl forge", folder):
        if _there(folder, settings):
            print(f"{folder / 'table.csv'} is there already, made with the same settings")
            return folder / "table.csv"
        hidden = folder.with_name(f".{folder.name}.forging")
        skipped = _fill(hidden, settings, work, look, max_missing, workers, progress)
        _record(hidden, settings | {"sources": sources, "skipped": skipped, "made_with": _made_with()})
        if folder.exists():
            folder.rmdir()
        os.replace(hidden, folder)
    return folder / "table.csv"


def _check_look(look: Look, per_image: int) -> None:
    low, high = look.limits
    if not 0 < low <= high < 1:
        raise UserError(f"--min_area {low} and --max_area {high} must rise, within 0 and 1")
    if not 0 <= look.colour <= 1 or look.feather < 0:
        raise UserError(f"--colour {look.colour} must be within 0 and 1, --feather {look.feather} not negative")
    if look.quality is not None and not 1 <= look.quality <= 100:
        raise UserError(f"--quality {look.quality} must be within 1 and 100")
    if look.max_side is not None and look.max_side < 16:
        raise UserError(f"--max_side {look.max_side} must be at least 16")
    if per_image < 1:
        raise UserError(f"--per_image {per_image} must be at least 1")


def _there(folder: Path, settings: dict[str, Any]) -> bool:
    """Say whether the set is there already.

    Raises:
        UserError: If the folder, or the hidden one of a run that was cut off, holds something else.
    """
    hidden = folder.with_name(f".{folder.name}.forging")
    for place, what in ((folder, "a set"), (hidden, "an unfinished set")):
        if not place.exists():
            continue
        if not place.is_dir() or (any(place.iterdir()) and not (place / RECORD).is_file()):
            raise UserError(f"{place} is not empty and is no set of dfl forge; give another --output")
        found = json.loads((place / RECORD).read_text(encoding="utf-8")) if (place / RECORD).is_file() else settings
        other = {k: (found.get(k), v) for k, v in settings.items() if found.get(k) != v}
        differ = [f"{k}={old} and not {new}" if k != "digest" else "other sources" for k, (old, new) in other.items()]
        if differ:
            raise UserError(f"{place} holds {what} with {', '.join(differ)}; delete it or give another --output")
    return (folder / RECORD).is_file()


def _record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record in one step: rows of a run that was cut off are trusted by what it says."""
    write(folder / RECORD, json.dumps(record, indent=1) + "\n")


def _fill(
    hidden: Path,
    settings: dict[str, Any],
    work: list[plan.Job],
    look: Look,
    max_missing: float,
    workers: int | None,
    progress: bool,
) -> list[dict[str, str]]:
    """Make what is not made yet, and the table; return the pictures that were skipped, and why."""
    for name in ("images", "masks"):
        (hidden / name).mkdir(parents=True, exist_ok=True)
    _record(hidden, settings)
    log = hidden / "rows.jsonl"
    done = list(_finished(log))
    with open(log, "w", encoding="utf-8") as file, Workers(len(work) - len(done), "forge", workers, progress) as pool:
        file.writelines(json.dumps(answer) + "\n" for answer in done)
        file.flush()
        skipped = [answer for answer in done if answer["reason"]]
        for answer in pool.map(partial(_one, hidden, look), work[len(done) :]):
            file.write(json.dumps(answer) + "\n")
            file.flush()
            done.append(answer)
            if answer["reason"]:
                skipped.append(answer)
                if len(skipped) > max_missing * len(work):
                    break
    if len(skipped) > max_missing * len(work):
        shutil.rmtree(hidden)
        raise UserError(
            f"of {len(skipped):,} of {len(work):,} images no fake can be made, such as {skipped[-1]['name']}: "
            f"{skipped[-1]['reason']}; --max_missing allows {max_missing:.0%}"
        )
    made = [row for answer in done for row in answer["rows"]]
    (hidden / "table.csv").write_text(csv_files.whole(COLUMNS, made), encoding="utf-8", newline="")
    contact_sheet(hidden, made).save(hidden / "sheet.jpg", quality=90)
    log.unlink()
    _tell(work, made, skipped)
    return [{"name": answer["name"], "reason": answer["reason"]} for answer in skipped]


def _finished(log: Path) -> Iterator[dict[str, Any]]:
    """Yield the answers that a run that was cut off wrote down whole."""
    if log.is_file():
        for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                return
            yield json.loads(line)


def _one(folder: Path, look: Look, job: plan.Job) -> dict[str, Any]:
    """Make the counterpart and the fakes of one picture, write them, return their rows, or why there are none."""
    picture = job.picture
    try:
        image, size = _opened(picture, look)
        fakes = [_fake(image, size, job, k, look) for k in range(len(job.fakes))]
    except DecodeError as error:
        return {"name": picture.name, "reason": error.reason or str(error), "rows": []}
    known = {"split": picture.split, "source": picture.name, **picture.known}
    path = _write(folder, f"{job.number:06d}", image, look.quality)
    out = [known | {"path": path, "label": 0, "class_label": 0}]
    seen: Counter[str] = Counter()
    for (name, _), (fake, region, words) in zip(job.fakes, fakes, strict=True):
        short = name.rpartition(".")[2]
        seen[short] += 1
        file = f"{job.number:06d}_{short}" + (f"_{seen[short]}" if seen[short] > 1 else "")
        Image.fromarray(region.astype(np.uint8) * 255).save(folder / "masks" / f"{file}.png")
        maker = find(name)
        made_by = {"generator": short, "family": maker.family, "method": maker.method}
        path, mask = _write(folder, file, fake, look.quality), f"masks/{file}.png"
        out.append(known | made_by | words | {"path": path, "label": 1, "class_label": 2, "mask": mask})
    return {"name": picture.name, "reason": "", "rows": out}


def _opened(picture: plan.Picture, look: Look) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the pixels of a picture, shrunk if asked for, and the (width, height) that it has on disk."""
    image = load_image(picture.path, bits=picture.bits)
    height, width = image.shape[:2]
    scale = (look.max_side or max(width, height)) / max(width, height)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return image, (width, height)


def _fake(
    image: np.ndarray, size: tuple[int, int], job: plan.Job, k: int, look: Look
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return fake number k of a picture, its region, and what its row says of them; ``size`` is that on disk.

    Of several draws the first is kept that changes the region to be seen, or the one that changes it most: a piece of
    sky on sky, or a smooth wall painted over, would be a fake that nothing could find.

    Raises:
        DecodeError: If neither the picture nor a donor has a region that can be used.
    """
    name, donors = job.fakes[k]
    maker = find(name)
    best: tuple[float, np.ndarray, np.ndarray, dict[str, Any]] | None = None
    failed: DecodeError | None = None
    for again in range(TRIES):
        rng = np.random.default_rng([look.seed, job.number, k, 1, again])
        other = donors[again % len(donors)] if donors else job.picture
        try:
            donor, donor_size = _opened(other, look) if donors else (image, size)
            of, on_disk = (other, donor_size) if maker.region_of_donor else (job.picture, size)
            region, shape = draw(look.shapes, on_disk, look.limits, rng, of.mask, of.rule)
        except DecodeError as error:
            failed = error
            continue
        target = donor if maker.region_of_donor else image
        scene = Scene(image, shrunk(region, target.shape[1::-1]), donor, look.limits, look.colour)
        if not scene.region.any():
            continue
        made, area = maker.make(scene, rng)
        if not area.any():
            continue
        fake = blended(image, made, area, look.feather if maker.soft else 0)
        change = float(np.abs(fake[area].astype(np.int16) - image[area]).mean())
        words = {"donor": other.name if donors else "", "shape": shape, "mask_share": round(float(area.mean()), 5)}
        if best is None or change > best[0]:
            best = (change, fake, area, words)
        if change >= CHANGE:
            break
    if best is None:
        raise failed or DecodeError(job.picture.path, "no region of it is left when it is shrunk")
    return best[1:]


def _write(folder: Path, name: str, image: np.ndarray, quality: int | None) -> str:
    if quality is None:
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        return f"images/{name}.png"
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality, subsampling=0)
    (folder / "images" / f"{name}.jpg").write_bytes(data.getvalue())
    return f"images/{name}.jpg"


def _made_with() -> dict[str, str]:
    return {"opencv": cv2.__version__, "numpy": np.__version__, "pillow": Image.__version__}


def _tell(work: list[plan.Job], made: list[dict[str, Any]], skipped: list[dict[str, Any]]) -> None:
    by = Counter(row["generator"] for row in made if row["label"])
    fakes = ", ".join(f"{n:,} {generator}" for generator, n in by.items())
    print(f"{len(made) - by.total():,} real ({plan.counted(work)}), fakes: {fakes}")
    drawn = Counter(row["shape"] for row in made if row["label"])
    if len(drawn) > 1:
        print(f"{drawn['blobs']:,} regions are blobs, where no segment is within --min_area and --max_area")
    if skipped:
        print(
            f"{len(skipped):,} images skipped, listed in {RECORD}, such as {skipped[0]['name']}: {skipped[0]['reason']}"
        )
