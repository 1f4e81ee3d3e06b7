"""Lists in the form of other frameworks."""

import json
from pathlib import Path

import pytest
from layouts import refuses, rows, touch

from dfl.data.sources import ForensicHub, ImdlBenco, Spai

ROW = ("path", "label", "class_label", "mask", "mask_rule")


def test_imdl_benco_json(tmp_path: Path) -> None:
    touch(tmp_path, "Tp/1.jpg", "Gt/1.png", "Au/2.jpg")
    file = tmp_path / "list.json"
    file.write_text(json.dumps([["/mnt/x/Tp/1.jpg", "/mnt/x/Gt/1.png"], ["/mnt/x/Au/2.jpg", "Negative"]]))
    found = [("Tp/1.jpg", 1, 2, "Gt/1.png", "mean>127"), ("Au/2.jpg", 0, 0, "", "")]
    assert rows(ImdlBenco(str(file)).load("test"), tmp_path, *ROW) == found
    file.rename(tmp_path.parent / "list.json")
    refuses(ImdlBenco(str(file)), "test", r"no list at .*list.json; make the list as")
    moved = str(tmp_path.parent / "list.json")
    assert rows(ImdlBenco(moved, root=str(tmp_path)).load("test"), tmp_path, *ROW) == found
    refuses(ImdlBenco(moved), "test", r"list.json lists 2 images, and 2 are not there, the first .*set root")
    Path(moved).write_text('[["a.jpg"]]')
    refuses(ImdlBenco(moved), "test", r"expected \[image, mask\] or \[image, \"Negative\"\], found \['a.jpg'\]")


def test_imdl_benco_folder(tmp_path: Path) -> None:
    touch(tmp_path, "Tp/{1,2}.jpg", "Gt/{1,2_gt}.png")
    assert rows(ImdlBenco(str(tmp_path)).load("test"), tmp_path, *ROW) == [
        ("Tp/1.jpg", 1, 2, "Gt/1.png", "mean>127"),
        ("Tp/2.jpg", 1, 2, "Gt/2_gt.png", "mean>127"),
    ]
    (tmp_path / "Gt/2_gt.png").unlink()
    refuses(ImdlBenco(str(tmp_path)), "test", r"1 of 2 tampered images have no mask, the first .*Tp/2.jpg")
    (tmp_path / "Gt").rename(tmp_path / "gt_old")
    refuses(ImdlBenco(str(tmp_path)), "test", r"expected the folder Gt in .*, found Tp/, gt_old/; set file")


def test_forensichub(tmp_path: Path) -> None:
    touch(
        tmp_path, "images/train/imagenet/real/n03982430/ILSVRC2012_val_00039791.JPEG", "images/train/imagenet/adm/1.png"
    )
    base = "/mnt/data3/public_datasets/AIGC/DiffusionForensics/images/train/imagenet"
    entries = [
        {"path": f"{base}/real/n03982430/ILSVRC2012_val_00039791.JPEG", "label": 0},
        {"path": f"{base}/adm/1.png", "label": 1},
    ]
    (tmp_path / "train.json").write_text(json.dumps(entries))
    assert rows(ForensicHub(str(tmp_path / "train.json")).load("train"), tmp_path, "path", "label") == [
        ("images/train/imagenet/real/n03982430/ILSVRC2012_val_00039791.JPEG", 0),
        ("images/train/imagenet/adm/1.png", 1),
    ]
    (tmp_path / "train.json").write_text('[{"path": "a", "label": 2}]')
    refuses(ForensicHub(str(tmp_path / "train.json")), "train", 'expected {"path": ..., "label": 0 or 1}, found')
    (tmp_path / "train.json").write_text("{")
    refuses(ForensicHub(str(tmp_path / "train.json")), "train", "cannot read the JSON file .*train.json")


def test_spai(tmp_path: Path) -> None:
    touch(tmp_path, "{a,b,c}.png")
    (tmp_path / "s.csv").write_text("image,class,split\na.png,0,train\nb.png,1,train\nc.png,1,test\n")
    source = Spai(str(tmp_path / "s.csv"))
    assert rows(source.load("train"), tmp_path, "path", "label") == [("a.png", 0), ("b.png", 1)]
    assert rows(source.load("test"), tmp_path, "path", "label", "split") == [("c.png", 1, "test")]
    refuses(source, "val", "no image in split 'val'")
    (tmp_path / "b.png").unlink()
    with pytest.warns(UserWarning, match="lists 3 images, and 1 are not there"):
        assert len(Spai(str(tmp_path / "s.csv"), missing="skip").load("train")) == 1
    (tmp_path / "s.csv").write_text("image,class,split\na.png,maybe,train\n")
    refuses(source, "train", "cannot read the class or split of a.png")
