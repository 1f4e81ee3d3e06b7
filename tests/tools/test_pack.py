"""Shards: true bytes, any row at any time, and exact resume."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from dfl.data import DataModule, Transform, containers
from dfl.data.decoding import DecodeError, read_image
from dfl.data.locators import load_image, read_bytes
from dfl.data.masks import load_mask
from dfl.data.sources import Packed
from dfl.detectors import Classifier
from dfl.errors import UserError
from dfl.tools import pack as module
from dfl.tools.pack import pack
from dfl.tools.sources import read_rows

PARTS = {"train": 0.6, "val": 0.2, "test": 0.2}


def picture(path: Path, width: int, height: int, seed: int = 0, **words: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **words)


def mixed(root: Path) -> list[dict[str, Any]]:
    """Large and small, JPEG and PNG, a box, an outline, a mask without file."""
    picture(root / "in/a.jpg", 90, 120, 0)
    picture(root / "in/b.png", 64, 64, 1)
    picture(root / "in/c.jpg", 40, 50, 2)
    picture(root / "in/d.png", 200, 80, 3)
    rows = [
        {"path": "in/a.jpg", "label": 0, "split": "train", "identity": "x"},
        {"path": "in/b.png", "label": 1, "split": "train", "mask": "", "mask_rule": "all", "generator": "sd"},
        {"path": "in/c.jpg", "label": 0, "split": "val", "caption": "small"},
        {"path": "in/d.png", "label": 1, "split": "test", "mask": "polygon:0,0,99,0,99,79,0,79", "mask_rule": ""},
        {"path": "in/d.png#xywh=10,20,30,40", "label": 1, "split": "test", "mask": "", "mask_rule": ""},
    ]
    names = {name for row in rows for name in row}
    pq.write_table(pa.table({name: [row.get(name, "") for row in rows] for name in names}), root / "set.parquet")
    return rows


@pytest.mark.parametrize(("encoding", "keep"), [("png", False), ("raw", False), ("jpeg", False), ("jpeg", True)])
def test_pixels_are_those_of_the_files(tmp_path: Path, encoding: Any, keep: bool) -> None:
    rows = mixed(tmp_path)
    folder = pack(["set.parquet"], "out", 64, encoding, keep=keep, shard=2, workers=1, progress=False)
    names = {"index.parquet", "pack.json", "shard-00000.arrow", "shard-00001.arrow", "shard-00002.arrow"}
    assert {p.name for p in folder.iterdir()} == names
    source = Packed(str(folder))
    table = pa.concat_tables([source.load(part) for part in ("train", "val", "test")])
    assert table["label"].to_pylist() == [0, 1, 0, 1, 1]
    texts = (table["identity"][0].as_py(), table["generator"][1].as_py(), table["caption"][2].as_py())
    assert texts == ("x", "sd", "small")
    for i in (4, 0, 2, 1, 3):
        whole = load_image(rows[i]["path"])
        shorter = min(whole.shape[:2])
        if shorter > 64:  # what Transform makes of it, in three squares that cover the picture
            tall = whole.shape[0] > whole.shape[1]
            ratio = 64 / shorter
            wanted = torch.nn.functional.interpolate(
                torch.from_numpy(whole).permute(2, 0, 1)[None],
                size=(round(whole.shape[0] * ratio), 64) if tall else (64, round(whole.shape[1] * ratio)),
                mode="bilinear",
                antialias=True,
            )[0]
            wanted = wanted.permute(1, 2, 0).numpy()
            crop = Transform().eval(64)(whole, None, ())[0].permute(1, 2, 0).numpy()
        else:
            wanted, crop = whole, None
        packed = load_image(table["path"][i].as_py())
        assert packed.shape == wanted.shape
        if encoding != "jpeg" or (keep and i in (1, 2)):
            assert (packed == wanted).all()
            if crop is not None:
                assert (Transform().eval(64)(packed, None, ())[0].permute(1, 2, 0).numpy() == crop).all()
        else:
            assert (packed != wanted).any()
            assert np.abs(packed.astype(int) - wanted).mean() < 8
        if keep and i in (1, 2):
            assert read_bytes(table["path"][i].as_py()) == Path(rows[i]["path"]).read_bytes()
    masks = [load_mask(table["mask"][i].as_py(), "", (160, 64)) for i in (0, 3)]
    rules = table["mask_rule"].to_pylist()
    assert rules == ["max" * bool(mask) for mask in table["mask"].to_pylist()]
    assert masks[0] is None
    assert masks[1] is not None
    assert (masks[1][:, :80].min(), masks[1][:, 80:].max()) == (255, 0)
    everywhere = load_mask(table["mask"][1].as_py(), "", (64, 64))
    assert everywhere is not None
    assert everywhere.min() == 255
    index = pq.read_table(folder / "index.parquet")
    assert index["origin"].to_pylist() == [row["path"] for row in rows]
    assert (index["width"][0].as_py(), index["height"][0].as_py()) == (64, 85)
    record = json.loads((folder / "pack.json").read_text())
    assert [shard["rows"] for shard in record["shards"]] == [2, 2, 1]


def test_any_row_of_many_batches(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 7)
    folder = pack([str(faces)], "out", shard=50, workers=1, progress=False)
    table = pq.read_table(folder / "index.parquet")
    for i in np.random.default_rng(0).permutation(60):
        path = table["path"][int(i)].as_py()
        assert (load_image(f"{folder}/{path}") == read_image(table["origin"][int(i)].as_py())).all()
    for place, message in (("image&row=50", "no row 50"), ("imag&row=0", "no column 'imag'; there are image, mask")):
        with pytest.raises(DecodeError, match=message):
            load_image(f"{folder}/shard-00000.arrow#column={place}")
    with pytest.raises(DecodeError, match=r"none.arrow#column=image&row=0"):
        load_image(f"{folder}/none.arrow#column=image&row=0")
    containers._mapped.cache_clear()  # what is mapped must not be cut off
    (folder / "shard-00001.arrow").write_bytes(b"ARROW1 cut off")
    with pytest.raises(DecodeError, match=r"shard-00001.arrow"):
        load_image(f"{folder}/shard-00001.arrow#column=image&row=0")
    with pytest.raises(UserError, match=r"shard-00001.arrow has 14 bytes, expected .*; copy the set again"):
        Packed(str(folder)).load("train")


def test_a_fast_ppm_is_pillows(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    good = b"P6 7 5 255\n" + pixels.tobytes()
    packed = read_image(good)
    assert (packed == pixels).all()
    assert packed.flags.writeable
    assert packed.flags.c_contiguous
    assert (read_image(b"P6\n# a remark\n7 5\n255\n" + pixels.tobytes()) == pixels).all()
    with pytest.raises(DecodeError, match="damaged or cut off"):
        read_image(good[:-1])
    with pytest.raises(DecodeError, match="35 is more than the 34|7x5 is more than the 34"):
        read_image(good, max_pixels=34)


def test_what_is_left_out_and_what_is_no_packed_set(faces: Path, tmp_path: Path) -> None:
    shutil.copytree(faces, "set")
    Path("set/real/00.png").write_bytes(b"nothing")
    with pytest.raises(
        UserError, match=r"1 of 60 images must be left out, more than max_bad=0 allows.*00.png: no known"
    ):
        pack(["set"], "out", max_bad=0, workers=1, progress=False)
    assert not Path("out").exists()
    assert len(Packed(str(pack(["set"], "out", max_bad=0.02, workers=1, progress=False))).load("train")) == 59
    assert len(read_rows(["out"])) == 59, "a packed set is a source of the verbs"
    Path("mine").mkdir()
    with pytest.raises(UserError, match=r"Packed: no packed set \(pack.json\) at .*mine; make it with `dfl data pack`"):
        Packed("mine").load("train")


class Seen(pl.Callback):
    """What each step was trained on; a checkpoint in mid-epoch."""

    def __init__(self) -> None:
        self.steps: list[tuple[list[int], float]] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps.append((batch["index"].tolist(), float(batch["image"].double().mean())))
        if trainer.global_step == 2:
            trainer.save_checkpoint("2.ckpt")


def test_training_and_exact_resume(faces: Path, tmp_path: Path) -> None:
    folder = pack([str(faces)], "set", size=36, shard=20, workers=1, progress=False)

    def run(workers: int, checkpoint: str | None = None) -> list[tuple[list[int], float]]:
        pl.seed_everything(0)
        source = Packed(str(folder), fractions=PARTS)
        data = DataModule(source, batch_size=4, num_workers=workers, transform=Transform(augment="light"))
        seen = Seen()
        trainer = pl.Trainer(
            max_steps=12,
            callbacks=[seen],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            limit_val_batches=0,
        )
        detector = Classifier(backbone="test_resnet", pretrained=False, input_size=32)
        trainer.fit(detector, datamodule=data, ckpt_path=checkpoint)
        return seen.steps

    whole = run(0)  # 9 steps an epoch
    assert len(whole) == 12
    assert run(2, "2.ckpt") == whole[2:]
