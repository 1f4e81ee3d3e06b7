"""Parquet shards with the images inside: rows, masks in cells, and reading one image of many."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import as_text, refuses, rows, touch

from dfl.data.locators import load_image, read_bytes
from dfl.data.masks import load_mask
from dfl.data.sources import CommunityForensics, OpenSdi, SidSet
from dfl.errors import UserError


def ppm(value: int) -> bytes:
    return b"P6 2 1 255\n" + bytes([value] * 6)


def shard(path: Path, columns: dict[str, list[Any]], group: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    types = {n: pa.array(v, cell) if n in ("image", "mask") else pa.array(v) for n, v in columns.items()}
    pq.write_table(pa.table(types), path, row_group_size=group)


def image(value: int) -> dict[str, Any]:
    return {"bytes": ppm(value), "path": None}


def sid(root: Path) -> None:
    for name, base in (("train-00000-of-00002", 0), ("train-00001-of-00002", 10), ("validation-00000-of-00001", 20)):
        columns = {
            "img_id": ["a", "b", "c"],
            "image": [image(base + i) for i in range(3)],
            "mask": [None, None, {"bytes": b"P6 2 1 255\n\xff\xff\xff\0\0\0", "path": "m.png"}],
            "width": [2] * 3,
            "height": [1] * 3,
            "label": [0, 1, 2],
        }
        shard(root / f"data/{name}.parquet", columns)


def test_sid_set_parquet(tmp_path: Path) -> None:
    sid(tmp_path)
    found, file = SidSet(str(tmp_path)).load("train"), "data/train-00001-of-00002.parquet"
    assert as_text(found, tmp_path, "path", "label", "class_label", "generator", "mask")[3:] == [
        f"{file}#column=image&row=0 | 0 | 0 | - | -",
        f"{file}#column=image&row=1 | 1 | 1 | flux | -",
        f"{file}#column=image&row=2 | 1 | 2 | - | {file}#column=mask&row=2",
    ]
    for order in (range(6), (5, 0, 3, 3, 1, 4)):  # in order and not
        assert [load_image(found["path"][i].as_py())[0, 0, 0] for i in order] == [
            (0, 1, 2, 10, 11, 12)[i] for i in order
        ]
    mask = load_mask(found["mask"][5].as_py(), found["mask_rule"][5].as_py(), (2, 1))
    assert mask is not None
    assert mask.tolist() == [[255, 0]]
    assert len(SidSet(str(tmp_path)).load("val")) == 3


def test_sid_set_half_unpacked(tmp_path: Path) -> None:
    sid(tmp_path)
    with pytest.raises(
        UserError, match=r"expected test/.*or data/test-\*.parquet in .*, found data/; get saberzl/SID_Set"
    ):
        SidSet(str(tmp_path)).load("test")
    (tmp_path / "data/train-00000-of-00002.parquet").unlink()
    with pytest.warns(UserWarning, match="has 1 of 2 shards such as train-00001-of-00002.parquet"):
        assert len(SidSet(str(tmp_path)).load("train")) == 3
    (tmp_path / "data/validation-00000-of-00001.parquet").write_bytes(b"PAR1 cut off")
    refuses(SidSet(str(tmp_path)), "val", r"cannot read the shard .*validation.*; get it again")


def test_sid_set_folders(tmp_path: Path) -> None:
    touch(tmp_path, "validation/real/1.jpg", "validation/full_synthetic/2.png", "validation/tampered/{3,4}.png")
    refuses(
        SidSet(str(tmp_path)), "val", r"expected the folder masks in .*/validation, found full_synthetic/, real/, tam"
    )
    touch(tmp_path, "validation/masks/3_mask.png")
    found = rows(
        SidSet(str(tmp_path)).load("val"), tmp_path, "path", "label", "class_label", "generator", "mask", "split"
    )
    assert found == [
        ("validation/real/1.jpg", 0, 0, "", "", "val"),
        ("validation/full_synthetic/2.png", 1, 1, "flux", "", "val"),
        ("validation/tampered/3.png", 1, 2, "", "validation/masks/3_mask.png", "val"),
        ("validation/tampered/4.png", 1, 2, "", "", "val"),
    ]


def described(root: Path, split: str = "train", **texts: dict[str, Any]) -> None:
    """The description set, as its zip has it: images in the layout of SID-Set, texts by file name."""
    touch(root, f"{split}/real/{{a,b}}.jpg", f"{split}/full_synthetic/{{a,c}}.png", f"{split}/tampered/d.png")
    touch(root, f"{split}/masks/d_mask.png")
    (root / split / "description").mkdir()
    for kind, names in texts.items():
        (root / split / f"description/{kind}_GT.json").write_text(json.dumps(names), encoding="utf-8")


TEXTS = {
    "real": {"a.jpg": "Light and shadow agree.", "b.jpg": " "},
    "full_synthetic": {"a.png": "The grain is too even – everywhere."},
    "tampered": {"d.png": "Type: part tampered\nAreas: the left leg"},
}
EXPLAINED = [
    ("train/real/a.jpg", 0, "Light and shadow agree."),
    ("train/real/b.jpg", 0, ""),
    ("train/full_synthetic/a.png", 1, "The grain is too even – everywhere."),
    ("train/full_synthetic/c.png", 1, ""),
    ("train/tampered/d.png", 2, "Type: part tampered\nAreas: the left leg"),
]


@pytest.mark.filterwarnings("error")
def test_sid_set_descriptions_beside_their_images(tmp_path: Path) -> None:
    described(tmp_path, **TEXTS)  # an id stands for one image of each class, and its texts differ
    found = SidSet(str(tmp_path)).load("train")
    assert rows(found, tmp_path, "path", "class_label", "explanation") == EXPLAINED


def test_sid_set_descriptions_of_another_folder(tmp_path: Path) -> None:
    root, texts = tmp_path / "SID_Set", tmp_path / "text_label_images"
    touch(root, "{train,validation}/real/{a,b}.jpg", "{train,validation}/full_synthetic/{a,c}.png")
    touch(root, "{train,validation}/tampered/d.png", "{train,validation}/masks/d_mask.png", "test/real/a.jpg")
    touch(root, "test/full_synthetic/c.png", "test/tampered/d.png", "test/masks/d_mask.png")
    more = TEXTS | {"tampered": TEXTS["tampered"] | {"x.png": "?", "y.png": "?"}}
    described(texts, **more)
    source = SidSet(str(root), descriptions=str(texts))
    with pytest.warns(UserWarning, match=r"2 of the 5 descriptions in .*text_label_images for train are .*: x, y$"):
        assert rows(source.load("train"), root, "path", "class_label", "explanation") == EXPLAINED
    assert set(SidSet(str(root)).load("train")["explanation"].to_pylist()) == {""}
    with pytest.warns(UserWarning, match="no descriptions in .*text_label_images for test"):
        assert set(source.load("test")["explanation"].to_pylist()) == {""}
    flat = tmp_path / "mine.json"  # names of images without class or split
    flat.write_text(json.dumps({"real/d.png": "Of d."}))
    found = SidSet(str(root), descriptions=str(flat)).load("val")
    assert [e for e in found["explanation"].to_pylist() if e] == ["Of d."]
    flat.write_text(json.dumps({"q.png": "?"}))
    with pytest.raises(UserError, match="none of the 1 descriptions in .*mine.json for val is of an image there.*'q'"):
        SidSet(str(root), descriptions=str(flat)).load("val")
    flat.write_text(json.dumps({"a.jpg": {"text": "?"}}))
    refuses(SidSet(str(root), descriptions=str(flat)), "val", "the description of 'a.jpg' is a dict; expected text")
    with pytest.raises(UserError, match=r"expected <split>/description/.*_GT.json in .*masks"):
        SidSet(str(root), descriptions=str(root / "train/masks")).load("train")
    with pytest.raises(UserError, match="no <split>/description/.* at .*nowhere"):
        SidSet(str(root), descriptions=str(tmp_path / "nowhere")).load("train")


def test_sid_set_descriptions_as_shards(tmp_path: Path) -> None:
    sid(tmp_path / "images")
    columns = {
        "img_id": ["c", "a", "a"],
        "image": [image(i) for i in range(3)],
        "mask": [image(255), None, None],
        "label": [2, 0, 0],
        "description": ["Of c.", "Of a.", "Of a again."],
    }
    shard(tmp_path / "texts/data/train-00000-of-00001.parquet", columns)
    source = SidSet(str(tmp_path / "images"), descriptions=str(tmp_path / "texts"))
    with pytest.warns(UserWarning, match="no descriptions in .* for val"):
        source.load("val")
    (tmp_path / "images/data/train-00001-of-00002.parquet").unlink()
    with (
        pytest.warns(UserWarning, match="has 1 of 2 shards"),
        pytest.warns(UserWarning, match="1 images have two descriptions, such as a; the first is taken"),
    ):
        found = source.load("train")
    assert found["explanation"].to_pylist() == ["Of a.", "", "Of c."]
    with pytest.warns(UserWarning, match="two descriptions"):
        own = SidSet(str(tmp_path / "texts")).load("train")  # the set alone
    assert rows(own, tmp_path, "class_label", "explanation")[:2] == [(2, "Of c."), (0, "Of a.")]
    shard(tmp_path / "texts/data/train-00000-of-00001.parquet", {k: v for k, v in columns.items() if k != "img_id"})
    with pytest.warns(UserWarning, match="has 1 of 2"), pytest.raises(UserError, match="has no column 'img_id'"):
        source.load("train")


def test_open_sdi(tmp_path: Path) -> None:
    columns = {
        "key": ["real/1", "fake_global/2", "fake_partial/3", "partial_fake/4"],
        "image": [image(i) for i in range(4)],
        "mask": [None, None, image(127), None],
        "label": [0, 1, 1, 1],
    }
    shard(tmp_path / "OpenSDI_test/data/sd15-00000-of-00001.parquet", columns)
    shard(tmp_path / "OpenSDI_test/data/flux-00000-of-00001.parquet", columns)
    found = OpenSdi(str(tmp_path), generators=["sd15"]).load("test")
    file = "OpenSDI_test/data/sd15-00000-of-00001.parquet"
    assert rows(found, tmp_path, "path", "label", "class_label", "generator", "method", "mask_rule") == [
        (f"{file}#column=image&row=0", 0, 0, "", "", ""),
        (f"{file}#column=image&row=1", 1, 1, "sd15", "synthesis", "all"),
        (f"{file}#column=image&row=2", 1, 2, "sd15", "inpainting", "mean>127,full"),
        (f"{file}#column=image&row=3", 1, 2, "sd15", "inpainting", "mean>127,full"),
    ]
    masks = [load_mask(r["mask"], r["mask_rule"], (2, 1)) for r in found.to_pylist()]
    assert masks[0] is None
    assert [int(np.mean(m)) for m in masks[1:] if m is not None] == [255, 0, 255]
    with pytest.raises(
        UserError, match=r"expected OpenSDI_train/data/<generator>-\*.parquet in .*, found OpenSDI_test/"
    ):
        OpenSdi(str(tmp_path)).load("train")
    refuses(OpenSdi(str(tmp_path), generators=["sd1"]), "test", r"'sd1' \(argument generators\); did you mean 'sd15'")


def test_community_forensics(tmp_path: Path) -> None:
    columns = {
        "image_name": ["00000162.png", "2.jpg"],
        "format": ["PNG", "JPEG"],
        "resolution": ["[512, 512]"] * 2,
        "image_data": [ppm(1), ppm(2)],
        "model_name": ["stabilityai/stable-diffusion-2", "coco"],
        "prompt": ["a cat", None],
        "label": [1, 0],
        "architecture": ["LatDiff", ""],
    }
    for part in ("systematic", "manual", "publicEval"):
        shard(tmp_path / f"full/data/{part}/{part}-0.parquet", columns)
    source = CommunityForensics(str(tmp_path / "full"), val_share=0.0)
    found = source.load("test")
    shown = "full/data/publicEval/publicEval-0.parquet#column=image_data"
    assert as_text(found, tmp_path, "path", "label", "generator", "family", "caption") == [
        f"{shown}&row=0 | 1 | stabilityai/stable-diffusion-2 | latdiff | a cat",
        f"{shown}&row=1 | 0 | - | - | -",
    ]
    assert read_bytes(found["path"][1].as_py()) == ppm(2)
    assert len(source.load("train")) == 4
    with pytest.raises(
        UserError, match=r"expected the folder commercial in .*/data, found manual/, publicEval/, system"
    ):
        CommunityForensics(str(tmp_path / "full"), parts=["commercial"]).load("train")
    shard(tmp_path / "small/data/train-0.parquet", columns)
    assert len(CommunityForensics(str(tmp_path / "small"), val_share=0.0).load("train")) == 2
    touch(tmp_path / "local", "sdxl/{real,fake}/1.png")
    local = CommunityForensics(str(tmp_path / "local"))
    assert rows(local.load("test"), tmp_path, "label", "generator") == [(1, "sdxl"), (0, "")]
    refuses(local, "train", "train with the Parquet files")
