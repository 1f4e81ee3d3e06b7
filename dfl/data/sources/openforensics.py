"""OpenForensics (Le et al., ICCV 2021): pictures with several faces, some of them swapped, with outlines."""

from pathlib import Path
from typing import Any

from dfl.data.decoding import DecodeError
from dfl.data.locators import locate
from dfl.data.masks import polygon_of
from dfl.data.sources.base import WithSplits
from dfl.data.sources.generators import made_by
from dfl.data.sources.names import label_of
from dfl.data.sources.trees import Missing, Row, first_folder, present, read_json
from dfl.errors import UserError


class OpenForensics(WithSplits):
    """``{Train,Val,Test-Dev,Test-Challenge}/*.jpg`` and ``<Split>_poly.json`` with a box and an outline for each face.

    Image by image, a picture is fake if any face in it is, and its mask holds the outlines of the fake faces. Face by
    face (``faces``), each face is cut out by its box and has its own label.

    Args:
        root: The folder that holds the splits and the JSON files.
        faces: Give faces in place of whole pictures.
        margin: How much a face's box grows on each side, as a share of its width and height.
        test: Folder of the split ``test``: Test-Dev, or Test-Challenge.
        missing: Whether listed pictures that are not there are an error, or left out with a warning.
    """

    get = "get it from sites.google.com/view/ltnghia/research/openforensics, unpack it there, or set root"

    def __init__(
        self,
        root: str,
        faces: bool = False,
        margin: float = 0.0,
        test: str = "Test-Dev",
        missing: Missing = "raise",
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.faces, self.margin, self.test, self.missing_images = faces, margin, test, missing

    def rows(self, split: str) -> list[Row]:
        name = {"train": "Train", "val": "Val", "test": self.test}[split]
        there = first_folder(self.root / name, self.root / "Images" / name)
        folder = self.found(there, f"the folder {name}", self.root)
        tables = [place / f"{name}_poly.json" for place in (self.root, folder)]
        table = self.found(next((f for f in tables if f.is_file()), None), tables[0].name, self.root)
        content = read_json(table, dict)
        size: dict[str, Any] = {"width": int, "height": int} if self.faces else {}
        _check(content, "images", table, {"id": int | str, "file_name": str, **size})
        _check(content, "annotations", table, {"image_id": int | str, "category_id": int | str})
        fake = self._fakes(content, table)
        by_image: dict[int, list[dict[str, Any]]] = {}
        for face in content["annotations"]:
            by_image.setdefault(face["image_id"], []).append(face)
        rows: list[Row] = []
        for image in content["images"]:
            file = folder / Path(image["file_name"].replace("\\", "/")).name
            make = self._each if self.faces else self._whole
            original = {"source": f"openforensics/{file.stem}"}
            rows += [row | original for row in make(file, image, by_image.get(image["id"], []), fake, table)]
        return present(self, rows, table, "unpack the rest, or set missing: skip", self.missing_images)

    def _fakes(self, content: dict[str, Any], table: Path) -> dict[int, int]:
        if "categories" in content:
            _check(content, "categories", table, {"id": int | str, "name": str})
        names = {c["id"]: label_of(c["name"]) for c in content.get("categories", [])}
        labels = {i: label for i, label in names.items() if label is not None} or {0: 0, 1: 1}
        unknown = {face["category_id"] for face in content["annotations"]} - labels.keys()
        if unknown:
            raise UserError(f"{table}: category {min(unknown, key=str)} is neither real nor fake")
        return labels

    def _whole(
        self, file: Path, image: dict[str, Any], faces: list[dict[str, Any]], fake: dict[int, int], table: Path
    ) -> list[Row]:
        bad = [face for face in faces if fake[face["category_id"]]]
        row: Row = {"path": str(file), "label": int(bool(bad)), "class_label": 2 * bool(bad)}
        if bad:
            outlines = [_polygons(face, 0, 0, table).removeprefix("polygon:") for face in bad]
            row |= {"mask": "polygon:" + ";".join(filter(None, outlines)), **made_by("openforensics", "face-swap")}
        return [row]

    def _each(
        self, file: Path, image: dict[str, Any], faces: list[dict[str, Any]], fake: dict[int, int], table: Path
    ) -> list[Row]:
        rows: list[Row] = []
        for face in faces:
            x, y, w, h = _box(face, image, table)
            left, top = max(0, int(x - self.margin * w)), max(0, int(y - self.margin * h))
            right = min(image["width"], int(x + w + self.margin * w + 0.999))
            bottom = min(image["height"], int(y + h + self.margin * h + 0.999))
            label = fake[face["category_id"]]
            place = locate(file, xywh=f"{left},{top},{right - left},{bottom - top}")
            row: Row = {"path": place, "label": label, "class_label": 2 * label}
            if label:
                row |= {"mask": _polygons(face, left, top, table), **made_by("openforensics", "face-swap")}
            rows.append(row)
        return rows


def _check(content: dict[str, Any], name: str, table: Path, kinds: dict[str, Any]) -> None:
    """Raise a UserError unless a list is there whose entries have these fields."""
    entries = content.get(name)
    if not isinstance(entries, list):
        raise UserError(f"{table} is no COCO JSON: it has no list of {name}")
    for i, entry in enumerate(entries):
        for field, kind in kinds.items():
            if not isinstance(entry, dict) or not isinstance(entry.get(field), kind):
                raise UserError(f"{table}: entry {i} of {name} has no {field} that can be read: {str(entry)[:80]}")


def _box(face: dict[str, Any], image: dict[str, Any], table: Path) -> list[float]:
    """Return x, y, width and height of a face.

    Raises:
        UserError: If they are no box in its image.
    """
    box, (width, height) = face.get("bbox"), (image["width"], image["height"])
    if isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box):
        x, y, w, h = box
        if -w < x < width and -h < y < height and 0 < w < 1e6 and 0 < h < 1e6:  # not so of nan
            return box
    where = f"{table}: annotation {face.get('id')} of {image['file_name']}"
    raise UserError(f"{where}: expected a box [x, y, width, height] in {width}x{height} pixels, found {str(box)[:80]}")


def _polygons(face: dict[str, Any], left: int, top: int, table: Path) -> str:
    """Write a face's COCO polygons (x, y, x, y, ...) as the text of a mask, moved to a box's corner.

    Raises:
        UserError: If they are no polygons.
    """
    outlines, where = face.get("segmentation"), f"{table}: the segmentation of annotation {face.get('id')}"
    if not isinstance(outlines, list) or not outlines:
        shown = "run lengths" if isinstance(outlines, dict) else str(outlines)[:80]
        raise UserError(f"{where} holds {shown}; expected polygons [[x, y, x, y, ...], ...]")
    try:
        points = [polygon_of(outline) for outline in outlines]
    except DecodeError as e:
        raise UserError(f"{where}: {e.reason}") from e
    moved = (",".join(f"{v - (top if i % 2 else left):g}" for i, v in enumerate(p)) for p in points)
    return "polygon:" + ";".join(moved)
