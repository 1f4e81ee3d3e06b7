"""OpenForensics: pictures and faces, their outlines, and what a damaged list says."""

import json
from pathlib import Path

import pytest
from layouts import refuses, rows, touch

from dfl.data.masks import load_mask
from dfl.data.sources import OpenForensics
from dfl.errors import UserError


def openforensics(root: Path) -> None:
    touch(root, "Val/{a,b}.jpg")
    square = [[2.0, 1.0, 8.0, 1.0, 8.0, 7.0, 2.0, 7.0]]
    triangle, images = [[10, 0, 14, 0, 14, 4]], ((5, "a"), (6, "b"))
    content = {
        "categories": [{"id": 0, "name": "Real"}, {"id": 1, "name": "Fake"}],
        "images": [{"id": i, "file_name": f"Images/Val/{n}.jpg", "width": 16, "height": 8} for i, n in images],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 1, "bbox": [2, 1, 6, 6], "segmentation": square},
            {"id": 2, "image_id": 5, "category_id": 0, "bbox": [10.5, 0, 4, 4], "segmentation": triangle},
            {"id": 3, "image_id": 6, "category_id": 0, "bbox": [0, 0, 4, 4], "segmentation": [[0, 0, 4, 0, 4, 4]]},
        ],
    }
    (root / "Val_poly.json").write_text(json.dumps(content))


def test_openforensics_images(tmp_path: Path) -> None:
    openforensics(tmp_path)
    found = OpenForensics(str(tmp_path)).load("val")
    assert rows(found, tmp_path, "path", "label", "class_label", "mask", "source") == [
        ("Val/a.jpg", 1, 2, "polygon:2,1,8,1,8,7,2,7", "openforensics/a"),
        ("Val/b.jpg", 0, 0, "", "openforensics/b"),
    ]
    mask = load_mask(found["mask"][0].as_py(), "", (16, 8))
    assert mask is not None
    assert mask[1:8, 2:9].min() == 255
    assert (mask > 0).sum() == 49


def test_openforensics_faces(tmp_path: Path) -> None:
    openforensics(tmp_path)
    found = OpenForensics(str(tmp_path), faces=True, margin=0.5).load("val")
    assert rows(found, tmp_path, "path", "label", "mask", "source") == [
        ("Val/a.jpg#xywh=0,0,11,8", 1, "polygon:2,1,8,1,8,7,2,7", "openforensics/a"),
        ("Val/a.jpg#xywh=8,0,8,6", 0, "", "openforensics/a"),
        ("Val/b.jpg#xywh=0,0,6,6", 0, "", "openforensics/b"),
    ]
    tight = OpenForensics(str(tmp_path), faces=True).load("val")
    assert tight["mask"][0].as_py() == "polygon:0,0,6,0,6,6,0,6"


SQUARE = [2, 1, 8, 1, 8, 7]
NO_POLYGON = r"Val_poly.json: the segmentation of annotation 1.*"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("segmentation", {"counts": [3, 4], "size": [16, 8]}, NO_POLYGON + "holds run lengths; expected polygons"),
        ("segmentation", SQUARE, NO_POLYGON + "expected a list of numbers"),
        ("segmentation", [[SQUARE]], NO_POLYGON + "expected a list of numbers"),
        ("segmentation", [[[2, 1], [8, 1], [8, 7]]], NO_POLYGON + "expected a list of numbers"),
        ("segmentation", [SQUARE, SQUARE[:5]], NO_POLYGON + "5 numbers are no polygon"),
        ("segmentation", [[*SQUARE[:5], float("nan")]], NO_POLYGON + "coordinates that are no pixels"),
        ("segmentation", [[*SQUARE[:5], "x"]], NO_POLYGON + "could not convert"),
        ("segmentation", [[*SQUARE[:5], 10**400]], NO_POLYGON + "too large"),
        ("segmentation", [], NO_POLYGON + r"holds \[\]"),
        ("segmentation", None, NO_POLYGON + "holds None"),
        ("bbox", [0, 0, 4], r"annotation 1 of .*a.jpg: expected a box \[x, y, width, height\] in 16x8 pixels"),
        ("bbox", [0, 0, float("nan"), 4], "expected a box"),
        ("bbox", [99, 0, 4, 4], "expected a box"),
        ("bbox", "0,0,4,4", "expected a box"),
        ("image_id", [5], "entry 0 of annotations has no image_id that can be read"),
        ("category_id", None, "entry 0 of annotations has no category_id that can be read"),
    ],
)
def test_openforensics_of_no_polygons(tmp_path: Path, field: str, value: object, said: str) -> None:
    openforensics(tmp_path)
    content = json.loads((tmp_path / "Val_poly.json").read_text())
    content["annotations"][0][field] = value
    (tmp_path / "Val_poly.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=said) as raised:
        OpenForensics(str(tmp_path), faces=field == "bbox").load("val")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"images": {}, "annotations": []}', '{"images": [[]], "annotations": []}']
)
def test_openforensics_of_odd_json(tmp_path: Path, text: str) -> None:
    openforensics(tmp_path)
    (tmp_path / "Val_poly.json").write_text(text)
    refuses(OpenForensics(str(tmp_path)), "val", r"Val_poly.json")


def test_openforensics_half_unpacked(tmp_path: Path) -> None:
    openforensics(tmp_path)
    refuses(OpenForensics(str(tmp_path)), "test", r"expected the folder Test-Dev in .*, found Val/, Val_poly.json")
    (tmp_path / "Val/b.jpg").unlink()
    with pytest.raises(UserError, match=r"Val_poly.json lists 2 images, and 1 are not there, the first .*b.jpg"):
        OpenForensics(str(tmp_path)).load("val")
    (tmp_path / "Val_poly.json").unlink()
    refuses(OpenForensics(str(tmp_path)), "val", r"expected Val_poly.json in .*, found Val/")
