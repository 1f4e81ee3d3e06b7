"""DeepfakeBench trees by their JSON: both slashes, compression levels, leaking splits, LMDB keys of its converter."""

import json
from pathlib import Path
from typing import Any

import pytest
from layouts import as_text, refuses, rows, touch

from dfl.data.locators import read_bytes
from dfl.data.sources import DeepfakeBench, Df40
from dfl.errors import UserError

YT = "FaceForensics++/original_sequences/youtube/c23/frames"
DF = "FaceForensics++/manipulated_sequences/Deepfakes/c23/frames"
CDF = "Celeb-DF-v2"


def video(label: str, folder: str, start: str = "./datasets/rgb/", n: int = 4) -> dict[str, Any]:
    # listed out of order, as os.listdir gave them
    return {"label": label, "frames": [f"{start}{folder}/{i:03d}.png" for i in reversed(range(0, 9 * n, 9))]}


def ff(start: str = "./datasets/rgb/") -> dict[str, Any]:
    real = {
        s: {"c23": {v: video("FF-real", f"{YT}/{v}", start)}}
        for s, v in (("train", "001"), ("val", "720"), ("test", "000"))
    }
    fake = {
        s: {"c23": {v: video("FF-DF", f"{DF}/{v}", start)}}
        for s, v in (("train", "001_870"), ("val", "720_672"), ("test", "000_003"))
    }
    return {"FF-DF": {"FF-real": real, "FF-DF": fake}}


def write(path: Path, content: dict[str, Any]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def tree(root: Path) -> None:
    for folder in (f"{YT}/000", f"{DF}/000_003", f"{YT}/001", f"{DF}/001_870"):
        touch(root / "datasets/rgb", f"{folder}/{{000,009,018,027}}.png")
    touch(root / "datasets/rgb", f"{DF.replace('frames', 'masks')}/000_003/{{000,009,018}}.png")


def windows(content: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(content).replace("./datasets/rgb/", "datasets/").replace("/", "\\\\"))


@pytest.mark.parametrize("write_as", ["linux", "windows", "absolute"])
def test_files(tmp_path: Path, write_as: str) -> None:
    tree(tmp_path)
    content = {"linux": ff(), "windows": windows(ff()), "absolute": ff("/home/someone/datasets/rgb/")}[write_as]
    file = write(tmp_path / "dataset_json/FF-DF.json", content)
    source = DeepfakeBench(file, root=str(tmp_path / "datasets/rgb"), frames=2, masks=True)
    columns = [
        "path",
        "label",
        "class_label",
        "video",
        "frame",
        "identity",
        "source",
        "generator",
        "compression",
        "mask",
    ]
    real, fake, masks = f"{YT}/000", f"{DF}/000_003", f"{DF.replace('frames', 'masks')}/000_003"
    assert as_text(source.load("test"), tmp_path / "datasets/rgb", *columns) == [
        f"{real}/009.png | 0 | 0 | FF-real/c23/000 | 9 | ffpp/000 | ffpp/000 | - | c23 | -",
        f"{real}/027.png | 0 | 0 | FF-real/c23/000 | 27 | ffpp/000 | ffpp/000 | - | c23 | -",
        f"{fake}/009.png | 1 | 2 | FF-DF/c23/000_003 | 9 | ffpp/000_003 | ffpp/000 | deepfakes | c23 | {masks}/009.png",
        f"{fake}/027.png | 1 | 2 | FF-DF/c23/000_003 | 27 | ffpp/000_003 | ffpp/000 | deepfakes | c23 | -",
    ]
    assert len(DeepfakeBench(file, root=str(tmp_path / "datasets/rgb"), labels=["FF-DF"]).load("train")) == 4


def test_half_unpacked(tmp_path: Path) -> None:
    tree(tmp_path)
    file, root = write(tmp_path / "FF-DF.json", ff()), str(tmp_path / "datasets/rgb")
    with pytest.raises(
        UserError, match=r"FF-DF.json lists 8 images, and 8 are not there, the first .*/720/000.png; set root"
    ):
        DeepfakeBench(file, root=root).load("val")
    (tmp_path / "datasets/rgb" / YT / "000/000.png").unlink()
    with pytest.warns(UserWarning, match="lists 8 images, and 1 are not there"):
        assert len(DeepfakeBench(file, root=root, missing="skip").load("test")) == 7
    refuses(DeepfakeBench(file, root=root, compression="c40"), "test", r"has no c40 of FF-real; set compression to c23")
    refuses(DeepfakeBench(file, root=root, labels=["FF-FD"]), "test", r"no label 'FF-FD'; did you mean 'FF-DF'")
    (tmp_path / "datasets/rgb/FaceForensics++/manipulated_sequences/Deepfakes/c23/masks").rename(tmp_path / "masks")
    with pytest.raises(UserError, match=r"no mask at .*c23/masks/000_003/000.png, nor any other; set masks: false"):
        DeepfakeBench(file, root=root, masks=True, labels=["FF-DF"]).load("test")
    (tmp_path / "cut.json").write_text('{"FF-DF": {')
    refuses(DeepfakeBench(str(tmp_path / "cut.json"), root=root), "test", r"cannot read the JSON file .*cut.json")
    with pytest.raises(UserError, match="needs root .files. or lmdb"):
        DeepfakeBench(file)
    refuses(DeepfakeBench(str(tmp_path / "none.json"), root=root), "test", r"no JSON file at .*none.json")


def celeb() -> dict[str, Any]:
    def split(label: str, names: list[str]) -> dict[str, Any]:
        return {n: video(label, f"{CDF}/{label[:12]}/frames/{n}", n=2) for n in names}

    real, fake = ["id0_0000", "id1_0000", "id2_0000", "id3_0000"], ["id0_id1_0000", "id1_id0_0000"]
    videos = {"CelebDFv2_real": real, "CelebDFv2_fake": fake}
    parts = {"train": slice(None), "val": slice(1, 2), "test": slice(1, 2)}
    body = {label: {s: split(label, names[part]) for s, part in parts.items()} for label, names in videos.items()}
    return {"Celeb-DF-v2": body}


def test_videos_of_the_test_are_not_trained_on(tmp_path: Path) -> None:
    content = celeb()
    for label in content["Celeb-DF-v2"].values():
        for videos in label.values():
            for entry in videos.values():
                touch(tmp_path, *(f.removeprefix("./datasets/rgb/") for f in entry["frames"]))
    file = write(tmp_path / "Celeb-DF-v2.json", content)
    source = DeepfakeBench(file, root=str(tmp_path), frames=1)
    assert rows(source.load("test"), tmp_path, "video", "label", "identity", "generator") == [
        ("CelebDFv2_real/id1_0000", 0, "celebdf/id1", ""),
        ("CelebDFv2_fake/id1_id0_0000", 1, "celebdf/id1", "celeb-df"),
    ]
    with pytest.warns(UserWarning, match="2 of 6 videos of train are in its test too; left out"):
        assert len(source.load("train")) == 4
    refuses(source, "val", "all 2 videos of val are in its test too; set val_share")
    with pytest.warns(UserWarning, match="left out"):
        val = rows(DeepfakeBench(file, root=str(tmp_path), frames=1, val_share=0.5).load("val"), tmp_path, "identity")
    with pytest.warns(UserWarning, match="left out"):
        train = rows(
            DeepfakeBench(file, root=str(tmp_path), frames=1, val_share=0.5).load("train"), tmp_path, "identity"
        )
    assert len(val) + len(train) == 4
    assert not set(val) & set(train)


def test_df40_gives_shared_reals_once(tmp_path: Path) -> None:
    files = []
    for method in ("simswap", "blendface"):
        fake = {"test": {"c23": {"000_003": video("FF-DF", f"DF40/{method}/frames/000_003", n=1)}}}
        real = {"test": {"c23": {"000": video("FF-real", f"{YT}/000", n=1)}}}
        touch(tmp_path, f"DF40/{method}/frames/000_003/000.png", f"{YT}/000/000.png")
        files.append(write(tmp_path / f"{method}_ff.json", {f"{method}_ff": {"FF-real": real, "FF-DF": fake}}))
    found = rows(Df40(files, root=str(tmp_path)).load("test"), tmp_path, "path", "label", "generator", "family")
    assert found == [
        (f"{YT}/000/000.png", 0, "", ""),
        ("DF40/simswap/frames/000_003/000.png", 1, "simswap", "face-swap"),
        ("DF40/blendface/frames/000_003/000.png", 1, "blendface", "face-swap"),
    ]


@pytest.mark.parametrize(
    "key",
    [lambda p: p.replace("/", "\\", 1), lambda p: p.replace("/", "\\"), lambda p: p],
    ids=["linux", "windows", "slash"],
)
def test_lmdb(tmp_path: Path, key: Any) -> None:
    lmdb = pytest.importorskip("lmdb")
    folder = str(tmp_path / "FaceForensics++_lmdb")
    with lmdb.open(folder, map_size=1 << 20) as env, env.begin(write=True) as entries:
        for place in (f"{YT}/000", f"{DF}/000_003"):
            for i in range(0, 36, 9):
                entries.put(key(f"{place}/{i:03d}.png").encode(), f"{place} {i}".encode())
        entries.put(key(f"{DF.replace('frames', 'masks')}/000_003/000.png").encode(), b"mask")
    file = write(tmp_path / "FF-DF.json", ff())
    found = DeepfakeBench(file, lmdb=folder, frames=None, masks=True).load("test").to_pylist()
    assert [read_bytes(row["path"]).decode() for row in found] == [
        f"{place} {i}" for place in (f"{YT}/000", f"{DF}/000_003") for i in (0, 9, 18, 27)
    ]
    assert [read_bytes(row["mask"]) for row in found if row["mask"]] == [b"mask"]
    refuses(DeepfakeBench(file, lmdb=folder), "val", r"has no key for ./datasets/rgb/.*720/000.png, it starts with")
    refuses(DeepfakeBench(file, lmdb=str(tmp_path)), "val", r"expected data.mdb in .*, found FF-DF.json, FaceForensics")
