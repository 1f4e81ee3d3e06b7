"""Small sets that the localization papers test on: Columbia, COVERAGE, DSO-1, AutoSplice, COCO Glide."""

import re
from pathlib import Path
from typing import Any

from dfl.data.masks import check_rule
from dfl.data.sources.base import Unsplit
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Row, images_right_in, masked


class Columbia(Unsplit):
    """``4cam_auth/*.tif``, ``4cam_splc/*.tif`` and ``4cam_splc/edgemask/<stem>_edgemask.jpg``."""

    get = "ask for the Columbia uncompressed image splicing detection set, unpack it there, or set root"

    def rows(self) -> list[Row]:
        self.require("4cam_auth", "4cam_splc", "4cam_splc/edgemask")
        spliced = self.root / "4cam_splc"
        real = [_real(p) for p in images_right_in(self.root / "4cam_auth")]
        masks = {p.stem.removesuffix("_edgemask"): str(p) for p in images_right_in(spliced / "edgemask")}
        return real + masked(self, _fakes(images_right_in(spliced), "splice"), masks, "g>127")


class Coverage(Unsplit):
    """``image/{N}.tif`` (real), ``image/{N}t.tif`` (fake), ``mask/{N}forged.tif``."""

    get = "get COVERAGE from github.com/wenbihan/coverage, unpack it there, or set root"

    def rows(self) -> list[Row]:
        self.require("image", "mask")
        named = [(p, m) for p in images_right_in(self.root / "image") if (m := re.fullmatch(r"(\d+)(t?)", p.stem))]
        real = [_real(p, f"coverage/{m[1]}") for p, m in named if not m[2]]
        masks = {f"{p.stem.removesuffix('forged')}t": str(p) for p in images_right_in(self.root / "mask")}
        fakes = [row | {"source": f"coverage/{m[1]}"} for p, m in named if m[2] for row in _fakes([p], "copy-move")]
        return real + masked(self, fakes, masks, "max>125")


class Dso1(Unsplit):
    """``DSO-1/{normal,splicing}-NN.png`` and ``DSO-1-Fake-Images-Masks/splicing-NN.png``."""

    get = "get DSO-1 and its masks, unpack both there, or set root"

    def rows(self) -> list[Row]:
        self.require("DSO-1", "DSO-1-Fake-Images-Masks")
        images = images_right_in(self.root / "DSO-1")
        masks = {p.stem: str(p) for p in images_right_in(self.root / "DSO-1-Fake-Images-Masks")}
        fakes = _fakes([p for p in images if p.stem.startswith("splicing")], "splice")
        return [_real(p) for p in images if p.stem.startswith("normal")] + masked(self, fakes, masks, "max<128")


class AutoSplice(Unsplit):
    """``Authentic/*.jpg``, ``Forged_JPEG{100,90,75}/<id>_<k>.jpg``, ``Mask/<id>_mask.png`` for all k.

    Args:
        root: The folder that holds them.
        quality: JPEG quality of the fakes to take, of 100, 90 and 75.
    """

    get = "get it from github.com/shanface33/AutoSplice_Dataset, unpack it there, or set root"

    def __init__(self, root: str, quality: int = 100, **options: Any) -> None:
        super().__init__(root, **options)
        self.quality = quality

    def rows(self) -> list[Row]:
        forged = f"Forged_JPEG{self.quality}"
        self.require("Authentic", forged, "Mask", change="unpack it, or set quality or root")
        images = images_right_in(self.root / forged)
        by_id = {p.stem.removesuffix("_mask"): str(p) for p in images_right_in(self.root / "Mask")}
        masks = {p.stem: by_id[who] for p in images if (who := p.stem.rpartition("_")[0]) in by_id}
        shared = made_by("dalle2", "inpainting") | {"compression": f"jpeg{self.quality}"}
        fakes = [
            r | shared | {"source": f"autosplice/{Path(r['path']).stem.rpartition('_')[0]}"} for r in _fakes(images, "")
        ]
        real = [_real(p, f"autosplice/{p.stem}") for p in images_right_in(self.root / "Authentic")]
        return real + masked(self, fakes, masks, "max>0")


class CocoGlide(Unsplit):
    """``real/``, ``fake/``, ``mask/`` with names such as ``glide_inpainting_val2017_<id>[_up].png``.

    Args:
        root: The folder that holds them.
        mask_rule: How to read its masks (``dfl/data/masks.py``): white = tampered is recalled, not yet seen.
    """

    get = "get CocoGlide.zip from github.com/grip-unina/TruFor, unpack it there, or set root"

    def __init__(self, root: str, mask_rule: str = "max>127", **options: Any) -> None:
        super().__init__(root, **options)
        self.mask_rule = check_rule(mask_rule)

    def rows(self) -> list[Row]:
        self.require("real", "fake", "mask")
        images = images_right_in(self.root / "fake")
        by_id = {_coco(p): str(p) for p in images_right_in(self.root / "mask")}
        masks = {p.stem: by_id[_coco(p)] for p in images if _coco(p) in by_id}
        fakes = [
            row | made_by("glide", "inpainting") | {"source": f"coco/{_coco(Path(row['path']))}"}
            for row in _fakes(images, "")
        ]
        real = [_real(p, f"coco/{_coco(p)}") for p in images_right_in(self.root / "real")]
        return real + masked(self, fakes, masks, self.mask_rule)


def _real(path: Path, source: str = "") -> Row:
    return {"path": str(path), "label": 0, "source": source}


def _fakes(paths: list[Path], method: str) -> list[Row]:
    return [{"path": str(p), "label": 1, **made_by("manual", method)} for p in paths]


def _coco(path: Path) -> str:
    """The COCO id in a name; the whole stem where there is none."""
    numbers = re.findall(r"\d{6,}", path.stem)
    return numbers[-1] if numbers else path.stem
