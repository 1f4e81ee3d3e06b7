"""A degraded copy of a source: the same rows, other pixels, the same in every process; undegraded rows as they were."""

import json
import pickle
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dfl.data import DataModule, ImageDataset, Table, Transform
from dfl.data.batch import collate
from dfl.data.decoding import read_image
from dfl.data.rows import Rows
from dfl.data.sampler import EvalSampler
from dfl.data.sources import ROW_SCHEMA, Degraded, Folder, Only, Source
from dfl.data.sources.base import joined
from dfl.data.sources.written import built
from dfl.errors import UserError
from dfl.tools.sources import NamedSource, rows_of

VIEW = Transform(resize="none").eval(40)


def images(source: Source, seed: int = 0) -> ImageDataset:
    return ImageDataset(source.load("test"), VIEW, 40, {}, seed=seed)


def test_rows_are_those_of_the_source(faces: Path) -> None:
    plain, source = Folder(str(faces)), Degraded(Folder(str(faces)), "jpeg_75")
    assert source.load("test").select(ROW_SCHEMA.names).equals(plain.load("test"))
    assert images(source).sha256 == images(plain).sha256
    assert "degradation" not in images(plain).rows.table.column_names
    assert images(plain).rows.degradations == ()
    (cell,) = images(source).rows.degradations
    assert json.loads(cell) == {"seed": 0, "steps": [{"name": "Jpeg", "quality_range": [75, 75], "p": 1.0}]}
    assert len(pickle.loads(pickle.dumps(images(source))).rows.degradations) == 1
    assert str(source) == f"Degraded(Folder({faces}), jpeg_75)"


def test_every_process_epoch_and_seed_of_the_run_sees_the_same_pixels(faces: Path) -> None:
    source = Degraded(Folder(str(faces)), "noise_5")
    data = images(source)
    alone = torch.stack([data[row]["image"] for row in range(len(data))])
    clean = torch.stack([images(Folder(str(faces)))[row]["image"] for row in range(len(data))])
    noise = alone.float() - clean.float()
    assert all(2 < float(noise[data.label == label].std()) < 6 for label in (0, 1)), "both classes"
    loaded = torch.cat([b["image"] for b in DataLoader(data, 7, num_workers=2, collate_fn=collate)])
    assert torch.equal(loaded, alone)
    halves = [torch.stack([images(source, 5)[row]["image"] for row in EvalSampler(60, rank, 2)]) for rank in (0, 1)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), alone)
    assert torch.equal(data[(3, 9)]["image"], alone[3])
    assert torch.equal(data[-4]["image"], alone[3]), "padding"
    assert not torch.equal(images(Degraded(Folder(str(faces)), "noise_5", seed=1))[3]["image"], alone[3])


def test_it_goes_around_and_into_other_sources(faces: Path) -> None:
    inner = Degraded(Folder(str(faces)), "blur_20")
    cells = [json.loads(c)["steps"][0]["name"] for c in images(Only(inner, reals=False)).rows.degradations]
    assert cells == ["SciPyBlur"]
    twice = images(Degraded(inner, "jpeg_50", seed=2))
    (cell,) = map(json.loads, twice.rows.degradations)
    assert cell["seed"] == 2
    assert [step["name"] for step in cell["steps"]] == ["SciPyBlur", "Jpeg"]
    by_hand = images(Degraded(Folder(str(faces)), cell["steps"]))
    assert torch.equal(twice[0]["image"], by_hand[0]["image"])


def test_a_mixture_degrades_its_part_alone(faces: Path) -> None:
    plain, degraded = Folder(str(faces)), Degraded(Folder(str(faces)), "jpeg_30")
    assert joined([plain.load("test"), plain.load("test")]).schema == ROW_SCHEMA
    mixed = DataModule([plain, degraded], size=40, num_workers=0, transform=Transform(resize="none", augment="none"))
    data = mixed.datasets("train")["train"]
    (cell,) = data.rows.degradations
    assert torch.equal(data[0]["image"], images(plain)[0]["image"])
    assert torch.equal(data[60]["image"], images(degraded)[0]["image"])
    again = Rows.of(data.table)  # what a process does whose file was cleaned away
    assert again.table["degradation"].to_pylist() == [""] * 60 + [cell] * 60


def test_the_column_costs_a_byte_a_row(faces: Path) -> None:
    table = Folder(str(faces)).load("test")
    many = pa.concat_tables([table] * 200)
    chain = [{"name": "Jpeg", "quality_range": [75, 75]}] * 20  # a long cell

    class Many(Folder):
        def items(self, split: str) -> pa.Table:
            return many

    plain, degraded = (Rows.of(s.load("test")).file.stat().st_size for s in (Many("x"), Degraded(Many("x"), chain)))
    assert degraded - plain < len(many) + 4096


def test_image_and_mask_move_together(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    (tmp_path / "t.csv").write_text("path,label,mask,mask_rule\na.png,1,m.png,max\n")
    source = Degraded(Table(str(tmp_path / "t.csv")), "shift_1")
    row = ImageDataset(source.load("test"), Transform(resize="pad").eval(59), 59, {})[0]
    assert row["extent"].tolist() == [39, 59]
    assert np.array_equal(row["image"][:, :39].permute(1, 2, 0), pixels[1:, 1:])
    assert np.array_equal(row["mask"][:39] * 255, mask[1:, 1:])


def test_cells_frames_and_16_bits_are_degraded_too(tmp_path: Path) -> None:
    gray = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    pq.write_table(pa.table({"image": [(tmp_path / "deep.png").read_bytes()]}), tmp_path / "cells.parquet")
    with av.open(str(tmp_path / "v.mkv"), "w") as video:
        stream = video.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        frame = av.VideoFrame.from_ndarray(read_image(str(tmp_path / "deep.png")), format="rgb24")
        for packet in [*stream.encode(frame.reformat(format="bgr0")), *stream.encode()]:
            video.mux(packet)
    names = ["deep.png", "cells.parquet#column=image&row=0", "v.mkv#frame=0"]
    (tmp_path / "t.csv").write_text("path,label,bits\n" + "".join(f'"{name}",1,16\n' for name in names))
    file = str(tmp_path / "t.csv")
    stored, degraded = (images(s) for s in (Table(file), Degraded(Table(file), "jpeg_30")))
    for row in range(3):
        assert torch.equal(degraded[row]["image"], degraded[0]["image"])
        assert torch.equal(stored[row]["image"], stored[0]["image"])
    assert not torch.equal(degraded[0]["image"], stored[0]["image"])


def test_a_config_writes_it_as_any_source(faces: Path) -> None:
    inner = {"class_path": "Folder", "init_args": {"root": str(faces)}}
    source = built({"class_path": "Degraded", "init_args": {"source": inner, "chain": "social_2"}}, "domain x")
    assert len(source.load("test")) == 60
    steps = [{"class_path": "Jpeg", "init_args": {"quality_range": [40, 60]}}, {"name": "Jpeg", "p": 0.5}]
    own = built({"class_path": "Degraded", "init_args": {"source": inner, "chain": steps}}, "domain x")
    assert [step["p"] for step in own.steps] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ("jpeg_76", "no degradation 'jpeg_76'; did you mean 'jpeg_75'"),
        ([{"name": "Jpg"}], r"Degraded: neither albumentations nor dfl has 'Jpg'"),
        ([{"name": "Jpeg", "quality": 5}], "Degraded: Jpeg has no argument 'quality'"),
        ([{"name": "RandomResizedCrop"}], "Degraded: RandomResizedCrop is a view of training"),
        ([], "Degraded: the chain has no step"),
        (["jpeg_75"], "each needs `name"),
    ],
)
def test_a_wrong_chain_is_one_line(faces: Path, chain: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Degraded(Folder(str(faces)), chain)  # type: ignore[arg-type]


def test_tools_that_read_files_refuse_it(faces: Path) -> None:
    with pytest.raises(UserError, match="degrades what is loaded, and files are read here: name its source"):
        rows_of(NamedSource("x", Degraded(Folder(str(faces)), "jpeg_75")))
