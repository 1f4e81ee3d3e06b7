"""``dfl forge``: a set of fakes, their masks, and their untouched counterparts, as files and one table.

Real and fake pictures go the same way: decoded, cut or shrunk if asked for, and written in one format at one quality.
So neither format nor compression tells them apart, and a partial fake differs from its counterpart in the masked pixels
alone (in a JPEG: in their 8 x 8 blocks).

Each picture is a function of (seed, number, fake) alone.
"""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from dfl.data import csv_files
from dfl.errors import UserError
from dfl.runs.files import write
from dfl.runs.output_folder import OutputFolder, begun, output_folder
from dfl.tools.common import BadImages, Common, processes
from dfl.tools.forge import classical, plan
from dfl.tools.forge.makers import find, named
from dfl.tools.forge.prompts import of_file
from dfl.tools.forge.settings import Settings
from dfl.tools.forge.shapes import Kind
from dfl.tools.forge.sheet import contact_sheet
from dfl.tools.pixels import encoded
from dfl.tools.sources import read_rows

if TYPE_CHECKING:  # without models no torch is imported
    from dfl.tools.forge.models.entries import Entries

#: Goes up when the same arguments would give other pictures.
VERSION = 1
#: The same of sets by models. 2: a caption of the table loses its full stop, prompts of a file are filled, and a CPU
#: tells one photo at a time.
VERSION_OF_MODELS = 2
COLUMNS = [
    *("path", "label", "split", "mask", "mask_rule", "class_label", "generator", "family", "method", "source", "donor"),
    *("shape", "mask_share", "identity", "video", "group", "caption", "model", "seed", "steps", "tries", "gram"),
]


def forge(
    sources: list[str],
    output: str = "forged",
    makers: list[str] | None = None,
    models: str | None = None,
    shapes: Kind = "blobs",
    masks: str | None = None,
    per_image: int = 1,
    min_area: float = 0.02,
    max_area: float = 0.3,
    feather: float = 2.0,
    colour: float = 0.5,
    max_side: int | None = None,
    square: int | None = None,
    quality: int | None = None,
    roundtrip: str | None = None,
    prompts: str | None = None,
    batch: int = 4,
    device: str | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] | None = None,
    train: float = 0.7,
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    max_missing: float = 0.05,
    **common: Unpack[Common],
) -> Path:
    """Make a set of fakes: ``images/``, ``masks/`` (255 = manipulated), ``table.csv``.

    Args:
        sources: Data configs, folders, tables; their real images are used.
        output: Folder to make.
        makers: What is done: splice, copymove, swap, telea, ns, noise, blur, jpeg; inpaint (telea, ns), resynth (noise,
            blur, jpeg), all; a name of ``models``; or the import path of a ``Maker``. They take turns. By default the
            models, or splice without any.
        models: YAML file of generators that are models, by the name that they get as makers: docs/forge.md.
        shapes: Where regions come from: random blobs or ellipses, segments or given masks.
        masks: Folder of segments or given masks, named like the images; without it, given masks are those of the rows.
        per_image: Fakes of each image; with as many as there are makers, each maker changes each image.
        min_area: Smallest share of an image that is changed. Given masks are taken as they are.
        max_area: Largest share.
        feather: Width in pixels over which a region is blended in, from its rim inwards.
        colour: How far a donor's colours are brought to those of the image, 0 to 1.
        max_side: Shrink images whose longer side is longer, which also takes away the traces of earlier compression.
        square: Cut the largest square out of the middle and resize it to so many pixels, real and fake alike.
        quality: Write JPEG of this quality, chroma 4:4:4, in place of PNG; the same for real and fake.
        roundtrip: Name of a model: send the real images through its VAE, so that they have its trace too.
        prompts: CSV file of path and prompt, in place of the prompts of models.
        batch: Pictures that a model makes at once.
        device: Where models run, such as cpu; by default a GPU if there is one.
        dtype: Number format of models; by default float16 on a GPU, else float32.
        train: Share of the images, where they have no split.
        val: Share of the images.
        test: Share of the images.
        seed: Seed.
        max_missing: Largest share of images that may be left out, because no fake can be made of them.
        **common: Options of every verb.

    Returns:
        The table.

    Raises:
        UserError: For an argument out of bounds, no real image, too many that cannot be used, another set's folder, or
            a model that cannot be opened.
    """
    others = {"roundtrip": roundtrip, "prompts": prompts, "device": device, "dtype": dtype}
    entries = _entries(models, makers, others)
    names = named(makers or (entries.makers(roundtrip) if entries else ["splice"]), entries.models if entries else ())
    numbers = (per_image, min_area, max_area, feather, colour, max_side, quality, seed, square)
    of_models = entries.settings(roundtrip, batch, device, dtype) if entries else {}
    settings = Settings(names, shapes, *numbers, **of_models)
    rows, shares = read_rows(sources, common.get("root")), {"train": train, "val": val, "test": test}
    pictures = plan.pictures(rows, shapes, masks, shares, seed)
    given = of_file(prompts, pictures) if prompts else []
    if entries:
        entries = entries.used(settings, pictures, given)
    jobs = plan.jobs(pictures, {name: not settings.kind(name) and find(name).donor for name in names}, per_image, seed)
    version, about = (VERSION_OF_MODELS, entries.about()) if entries else (VERSION, {})
    record = {"version": version, **settings.record(), **plan.facts(jobs, given)} | about
    if entries and not begun(output):
        entries.tried(settings, Counter(maker for job in jobs for maker, _ in job.fakes))
    with output_folder(output, "forge", record) as folder:
        if not folder.done:
            made, skipped = _classical(folder, settings, jobs, max_missing, common)
            found = {}
            if entries:
                from dfl.tools.forge.generate import Generation

                found = Generation(folder, settings, entries, jobs, made, common.get("progress", True)).run(given)
            _describe(folder.partial, jobs, [row for of_job in made for row in of_job])
            folder.finish(sources=sources, skipped=skipped, **found)
        print(f"the set is {folder.folder / 'table.csv'}" + " (it was there)" * folder.done)
    return folder.folder / "table.csv"


def _entries(models: str | None, makers: list[str] | None, others: dict[str, str | None]) -> "Entries | None":
    """Return what ``--models`` holds; None without it.

    Raises:
        UserError: If it is not given, and something is that is of no use without it; or if nothing makes fakes.
    """
    if models is None:
        useless = next((name for name, value in others.items() if value is not None), None)
        if useless:
            raise UserError(f"--{useless} is for generators that are models: give --models FILE")
        return None
    from dfl.tools.forge.models.entries import read

    entries = read(models)
    if not entries.models and not makers:
        raise UserError(f"--models {models} has no model, which makes fakes: add one, or name --makers")
    return entries


def _classical(
    folder: OutputFolder, settings: Settings, jobs: list[plan.Job], max_missing: float, common: Common
) -> tuple[list[list[dict[str, Any]]], list[dict[str, str]]]:
    """Make all that needs no model; return the rows of each picture, and what was left out, and why."""
    bad = BadImages(len(jobs), "max_missing", max_missing)
    made = []
    with processes(len(jobs), "forge", common) as pool:
        results = folder.results(partial(classical.make, folder.partial, settings), jobs, pool)
        for job, result in zip(jobs, results, strict=True):
            if result["reason"]:
                bad.add(job.picture.name, result["reason"])
            made.append(result["rows"])
    if bad.images:
        print(f"{bad}; forge.json lists them")
    return made, [{"name": name, "reason": reason} for name, reason in bad.images]


def _describe(folder: Path, jobs: list[plan.Job], rows: list[dict[str, Any]]) -> None:
    """Write the table and a sheet to look at; print a summary."""
    write(folder / "table.csv", csv_files.whole(COLUMNS, rows))
    write(folder / "sheet.jpg", encoded(contact_sheet(folder, rows), "jpeg", 90, "4:2:0"))
    fakes = Counter(row["generator"] for row in rows if row["label"])
    splits = Counter(job.picture.split for job in jobs)
    of_splits, of_fakes = (", ".join(f"{n:,} {name}" for name, n in count.items()) for count in (splits, fakes))
    print(f"{len(rows) - fakes.total():,} real ({of_splits}), fakes: {of_fakes or 'none'}")
    shapes = Counter(row["shape"] for row in rows if row.get("shape"))
    if len(shapes) > 1:
        print(f"{shapes['blobs']:,} regions are blobs, where no segment is within --min_area and --max_area")
