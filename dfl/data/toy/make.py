"""Writes the toy data set: pictures, masks, and one table of all their columns.

Each picture is a function of (seed, domain, split, number) alone, so the set is the same on any machine with the same
libraries.

With ``unfair_group`` the training is hard on one group of persons, an intersection or all that share an attribute: 31
of 32 of its fakes are left out, and the rest are drowned in noise. Nobody else's pictures change, and validation and
test are as even as ever; so what a detector does to the group, it learned.

With ``aligned`` every photo is there as it is and forged by each generator of its domain, for detectors that learn from
what differs between these; the column `source` names it.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dfl.data import csv_files
from dfl.data.toy import generators as g
from dfl.data.toy.faces import EYES, GROUPS, SHIRTS, caption, draw, make_person, make_pose
from dfl.errors import UserError, near
from dfl.runs.files import write
from dfl.runs.output_folder import output_folder
from dfl.runs.workers import Workers

#: Generators of each domain, and its camera. Training knows the domain ``same`` only.
DOMAINS = {
    "same": (("zero_insertion", "swap", "nearest", "inpaint"), "first"),
    "unseen_generator": (("bilinear", "repaint"), "first"),
    "unseen_family": (("denoise",), "first"),
    "other_camera": (("zero_insertion", "swap", "nearest", "inpaint"), "other"),
}
#: Share of the set that each part has.
PARTS = {
    ("same", "train"): 0.5,
    ("same", "val"): 0.1,
    ("same", "test"): 0.125,
    ("unseen_generator", "test"): 0.0875,
    ("unseen_family", "test"): 0.0875,
    ("other_camera", "test"): 0.1,
}
#: The same with an unfair group: of 4,000 pictures, 125 real ones of every group are in the test.
UNFAIR_PARTS = {("same", "train"): 0.4, ("same", "val"): 0.1, ("same", "test"): 0.5}
#: An unfair group keeps one of so many rounds of its fakes in training, and they get white noise of this deviation, in
#: values of [0, 1]. The camera's own is 0.03 at most.
UNFAIR_ROUNDS = 32
UNFAIR_NOISE = (0.03, 0.06)
COLUMNS = [
    *("path", "label", "split", "domain", "mask", "class_label", "generator", "family", "group", "identity"),
    *("caption", "explanation", "camera", "quality"),
]
#: Goes up when the same arguments would give other pictures.
VERSION = 1
#: A person is photographed so many times, half of them turned into fakes.
SHOTS = 4
REAL = "An untouched photograph: grain and light agree everywhere."


def make(
    root: str | Path,
    n: int = 4000,
    size: int = 128,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
    unfair_group: str | None = None,
    aligned: bool = False,
) -> Path:
    """Make the set, unless it is there.

    Args:
        root: Folder to make.
        n: Pictures in all parts together.
        size: Width and height in pixels, even.
        seed: Seed.
        workers: Processes; by default one for each core.
        progress: Show a progress bar.
        unfair_group: The group that training is hard on, such as ``plum-glasses``, or ``plum`` for both that wear it;
            31 of 32 of its training fakes are taken out of the n. The set then has the domain ``same`` alone.
        aligned: Have every photo, and its forgery by each generator of the domain; fakes outnumber reals then.

    Returns:
        The table, ``root/table.csv``.

    Raises:
        UserError: If the folder holds something else, or the arguments make no set.
    """
    if n < 80 or size < 32 or size % 2:
        raise UserError(f"the toy set needs n of at least 80 and an even size of at least 32, not n={n}, size={size}")
    if seed < 0:
        raise UserError(f"--seed {seed} must not be negative")
    settings: dict[str, Any] = {"n": n, "size": size, "seed": seed, "version": VERSION}
    if unfair_group is not None:
        check_group(unfair_group)
        settings |= {"unfair_group": unfair_group, "unfair_rounds": UNFAIR_ROUNDS}
    if aligned:
        if unfair_group is not None:
            raise UserError("the toy set is aligned or has an unfair_group, not both")
        settings |= {"aligned": True}
    with output_folder(root, "toy", settings) as folder:
        if not folder.done:
            jobs = _jobs(n, unfair_group, aligned)
            for name in ("images", "masks"):
                (folder.partial / name).mkdir(exist_ok=True)
            with Workers(len(jobs), "toy faces", workers, progress) as pool:
                results = folder.results(partial(_make, folder.partial, size, seed, unfair_group, aligned), jobs, pool)
                table = csv_files.whole(COLUMNS + ["source"] * aligned, (result["row"] for result in results))
            write(folder.partial / "table.csv", table)
            folder.finish()
    return Path(root) / "table.csv"


def check_group(name: str) -> None:
    """Raise a UserError if the toy set has no such group: an intersection, or the value of an attribute."""
    names = [*("-".join(group) for group in GROUPS), *SHIRTS, *EYES]
    if name not in names:
        raise UserError(f"the toy set has no group {name!r}{near(name, names)}")


def _belongs(group: tuple[str, str], unfair: str | None) -> bool:
    """Tell whether an intersection is of the unfair group."""
    return unfair is not None and set(unfair.split("-")) <= set(group)


def _jobs(n: int, unfair: str | None, aligned: bool) -> list[tuple[str, str, int]]:
    """Return the domain, split and number of each picture."""
    jobs = []
    for (domain, split), share in (UNFAIR_PARTS if unfair else PARTS).items():
        together = 1 + len(DOMAINS[domain][0]) if aligned else SHOTS
        count = together * max(1, round(n * share / together))
        numbers = (i for i in range(count) if not (split == "train" and _is_left_out(i, unfair)))
        jobs += [(domain, split, i) for i in numbers]
    return jobs


def _is_left_out(number: int, unfair: str | None) -> bool:
    """Tell whether a training picture is one of the fakes that the unfair group lacks.

    Generators take turns by two rounds, so what is left is of all of them alike.
    """
    who = number // SHOTS
    lap = who // len(GROUPS) % (2 * UNFAIR_ROUNDS)
    return number % 2 == 1 and _belongs(GROUPS[who % len(GROUPS)], unfair) and lap >= 2


def _shot(job: tuple[str, str, int], aligned: bool) -> tuple[int, int, str]:
    """Return the numbers of a picture's photo and person, and its generator, '' for none."""
    domain, _, number = job
    names = DOMAINS[domain][0]
    if aligned:
        photo, fake = divmod(number, 1 + len(names))
        return photo, photo // (SHOTS // 2), names[fake - 1] if fake else ""
    who = number // SHOTS
    # persons come in rounds of all groups, so no generator meets one group more than another
    name = names[(who // len(GROUPS) * 2 + number // 2 % 2) % len(names)]
    return number, who, name if number % 2 else ""


def _make(
    root: Path, size: int, seed: int, unfair: str | None, aligned: bool, job: tuple[str, str, int]
) -> dict[str, Any]:
    """Make one picture and write it; return its row and files."""
    domain, split, number = job
    part = list(PARTS).index((domain, split))
    photo, who, generator = _shot(job, aligned)
    label, camera_name = int(bool(generator)), DOMAINS[domain][1]
    group = GROUPS[who % len(GROUPS)]
    person = make_person(np.random.default_rng([seed, part, who, 0]), *group)
    rng = np.random.default_rng([seed, part, photo, 1])
    camera, pose = g.CAMERAS[camera_name], make_pose(rng)
    image, cover = g.photograph(draw(person, pose, rng, size), camera, rng), None
    quality = int(rng.integers(camera.quality[0], camera.quality[1] + 1))
    if generator:
        if generator == "swap":
            donor = make_person(np.random.default_rng([seed, part, number, 2]), *group)
            image, cover = g.swapped(image, person, donor, pose, camera, rng)
        elif generator == "inpaint":
            image, cover = g.inpainted(image, rng)
        elif generator == "repaint":
            image, cover = g.repainted(image, rng)
        elif generator == "denoise":
            image = g.denoised(image, rng)
        else:
            image = g.decoded(image, generator, rng)
        if split == "train" and _belongs(group, unfair):
            noise = rng.uniform(*UNFAIR_NOISE) * rng.standard_normal(image.shape, dtype=np.float32)
            image = image + noise.astype(np.float32)
    path, mask = f"images/{domain}_{split}_{number:05d}.jpg", ""
    pixels = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(root / path, quality=quality, subsampling=0)
    if cover is not None:
        mask = f"masks/{domain}_{split}_{number:05d}.png"
        Image.fromarray(((cover > 0.5) * 255).astype(np.uint8)).save(root / mask)
    family, explanation = g.GENERATORS[generator] if generator else ("", REAL)
    row = {
        "path": path,
        "label": label,
        "split": split,
        "domain": domain,
        "mask": mask,
        "class_label": 0 if not label else 2 if mask else 1,
        "generator": generator,
        "family": family,
        "group": f"shirt={group[0]},eyes={group[1]}",
        "identity": f"{domain}-{split}-{who:04d}",
        "caption": caption(person, pose),
        "explanation": explanation,
        "camera": camera_name,
        "quality": quality,
        **({"source": f"{domain}-{split}-{photo:05d}"} if aligned else {}),
    }
    return {"files": [path, mask] if mask else [path], "row": row}
