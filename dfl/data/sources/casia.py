"""CASIA v1 and v2 (Dong et al., 2013): splices and copy-moves by hand, with the masks that others made for them."""

from pathlib import Path
from typing import Any

from dfl.data.sources.base import Unsplit, images_in
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Missing, Row, masked, plain_rows


class _Casia(Unsplit):
    """A folder of authentic and one of tampered images, with masks in a third.

    Args:
        root: The folder that holds Au, Tp and the masks.
        missing: Whether a tampered image without mask is an error, or given without one and a warning.
    """

    masks: str

    def __init__(self, root: str, missing: Missing = "raise", **options: Any) -> None:
        super().__init__(root, **options)
        self.missing_masks = missing

    def rows(self) -> list[Row]:
        self.require("Au", "Tp", self.masks)
        masks = {p.stem.rpartition("_gt")[0] or p.stem: str(p) for p in images_in(self.root / self.masks)}
        fakes = [row | made_by("manual", self.method(Path(row["path"]))) for row in plain_rows(self.root / "Tp", 1)]
        return plain_rows(self.root / "Au", 0) + masked(self, fakes, masks, "max>0", self.missing_masks)

    @staticmethod
    def method(path: Path) -> str:
        """Return what was done to an image, by its folder or name."""
        raise NotImplementedError


class CasiaV1(_Casia):
    """``Au/*.jpg``, ``Tp/{Sp,CM}/*.jpg``, ``CASIA 1.0 groundtruth/{Sp,CM}/<stem>_gt.png``."""

    get = "get CASIA 1.0 and its masks (github.com/namtpham/casia1groundtruth), unpack both there, or set root"
    masks = "CASIA 1.0 groundtruth"

    @staticmethod
    def method(path: Path) -> str:
        """Return splice for Sp, copy-move for CM."""
        return {"sp": "splice", "cm": "copy-move"}.get(path.parent.name.lower(), "")


class CasiaV2(_Casia):
    """``Au``, ``Tp`` and ``CASIA 2 Groundtruth/<stem>_gt.png`` (one ends in ``_gt3``).

    17 masks have another size than their image; such an image is unreadable, and ``on_bad`` says what becomes of it.
    """

    get = "get CASIA 2.0 and its masks (github.com/namtpham/casia2groundtruth), unpack both there, or set root"
    masks = "CASIA 2 Groundtruth"

    @staticmethod
    def method(path: Path) -> str:
        """Return splice for Tp_D, copy-move for Tp_S."""
        return {"tp_d": "splice", "tp_s": "copy-move"}.get(path.name[:4].lower(), "")
