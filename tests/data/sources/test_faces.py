"""Face videos and face crops: every row of a small true tree, official splits, and what a half unpacked one says."""

import json
from pathlib import Path

import pytest
from layouts import as_text, refuses, rows, touch

from dfl.data.sources import CelebDf, DeeperForensics, Dfdc, Dfdcp, FaceForensics
from dfl.errors import UserError

ROW = ("path", "label", "video", "identity", "source")


def faceforensics(root: Path) -> None:
    touch(
        root,
        "original_sequences/youtube/c23/videos/{000,003,001}.mp4",
        "original_sequences/actors/c23/videos/01__exit_phone_room.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/{000_003,003_000}.mp4",
        "manipulated_sequences/Deepfakes/masks/videos/{000_003,003_000}.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4",
    )
    for split, pairs in (("train", [["001", "870"]]), ("val", [["720", "672"]]), ("test", [["000", "003"]])):
        (root / f"{split}.json").write_text(json.dumps(pairs))


def test_faceforensics_pairs(tmp_path: Path) -> None:
    faceforensics(tmp_path)
    found = FaceForensics(str(tmp_path), methods=["Deepfakes"], frames=2, masks=True).load("test")
    real, fake = "original_sequences/youtube/c23/videos", "manipulated_sequences/Deepfakes"
    assert rows(found, tmp_path, *ROW)[::2] == [
        (f"{real}/000.mp4#at=0/2", 0, "youtube/c23/000", "ffpp/000", "ffpp/000"),
        (f"{real}/003.mp4#at=0/2", 0, "youtube/c23/003", "ffpp/003", "ffpp/003"),
        (f"{fake}/c23/videos/000_003.mp4#at=0/2", 1, "Deepfakes/c23/000_003", "ffpp/000_003", "ffpp/000"),
        (f"{fake}/c23/videos/003_000.mp4#at=0/2", 1, "Deepfakes/c23/003_000", "ffpp/000_003", "ffpp/003"),
    ]
    masks = rows(found, tmp_path, "mask", "mask_rule", "generator", "family", "method", "compression", "class_label")
    assert masks[0] == ("", "", "", "", "", "c23", 0)
    assert masks[5] == (
        f"{fake}/masks/videos/000_003.mp4#at=1/2",
        "max>127",
        "deepfakes",
        "face-swap",
        "face-swap",
        "c23",
        2,
    )


def test_faceforensics_frames(tmp_path: Path) -> None:
    faceforensics(tmp_path)
    for name in ("youtube/c23/frames/{000,003}", "youtube/c23/faces/000"):
        touch(tmp_path, f"original_sequences/{name}/{{0000,0001,0002,0003,0004,0005}}.png")
    found = FaceForensics(str(tmp_path), methods=["Deepfakes"], media="frames", frames=3)
    refuses(found, "test", r"expected the folder c23/frames in .*/Deepfakes, found c23/, masks/; set compression")
    fake = "manipulated_sequences/Deepfakes/c23"
    touch(tmp_path, f"{fake}/{{frames,masks}}/{{000_003,003_000}}/{{0000,0002}}.png", f"{fake}/frames/000_003/0001.png")
    found = FaceForensics(str(tmp_path), methods=["Deepfakes"], media="frames", frames=3, masks=True).load("test")
    assert rows(found, tmp_path, "path", "frame", "mask")[:3] == [
        (f"original_sequences/youtube/c23/frames/000/000{i}.png", i, "") for i in (1, 3, 5)
    ]
    assert rows(found, tmp_path, "path", "frame", "mask")[6:8] == [
        (f"{fake}/frames/000_003/0000.png", 0, f"{fake}/masks/000_003/0000.png"),
        (f"{fake}/frames/000_003/0001.png", 1, ""),
    ]


def test_faceforensics_actors_have_no_split_but_test(tmp_path: Path) -> None:
    faceforensics(tmp_path)
    source = FaceForensics(str(tmp_path), methods=["DeepFakeDetection"], frames=1)
    assert rows(source.load("test"), tmp_path, "label", "video") == [
        (0, "actors/c23/01__exit_phone_room"),
        (1, "DeepFakeDetection/c23/01_02__exit_phone_room__YVGY8LOK"),
    ]
    refuses(source, "train", "no image in split 'train'")


def test_faceforensics_half_unpacked(tmp_path: Path) -> None:
    faceforensics(tmp_path)
    source = FaceForensics(str(tmp_path), methods=["Deepfakes"], frames=2)
    text = r"train.json lists 8 images, and 6 are not there, the first .*870.mp4#at=0/2; get the rest, point splits"
    refuses(source, "train", text)
    with pytest.warns(UserWarning, match="lists 8 images, and 6 are not there.*left out"):
        assert len(FaceForensics(str(tmp_path), methods=["Deepfakes"], frames=2, missing="skip").load("train")) == 2
    (tmp_path / "val.json").unlink()
    refuses(source, "val", r"expected val.json in .*; it is in the folder dataset/splits")
    with pytest.raises(UserError, match="no manipulation 'DeepFakes'; did you mean 'Deepfakes'"):
        FaceForensics(str(tmp_path), methods=["DeepFakes"])


@pytest.mark.parametrize("inner", ["", "videos/"])
@pytest.mark.parametrize("real", [0, 1])
def test_celeb_df_keeps_test_videos_out_of_train(tmp_path: Path, inner: str, real: int) -> None:
    touch(
        tmp_path,
        f"Celeb-real/{inner}{{id0_0000,id0_0001,id1_0000}}.mp4",
        f"YouTube-real/{inner}00170.mp4",
        f"Celeb-synthesis/{inner}{{id0_id1_0000,id1_id0_0000}}.mp4",
    )
    lines = [
        f"{real} YouTube-real/00170.mp4",
        f"{real} Celeb-real/id1_0000.mp4",
        f"{1 - real} Celeb-synthesis/id1_id0_0000.mp4",
    ]
    (tmp_path / "List_of_testing_videos.txt").write_text("\n".join(lines) + "\n")
    source, swaps = CelebDf(str(tmp_path), frames=1, val_share=0.0), "Celeb-synthesis"
    assert as_text(source.load("test"), tmp_path, "path", "label", "class_label", "video", "identity", "generator") == [
        f"Celeb-real/{inner}id1_0000.mp4#at=0/1 | 0 | 0 | Celeb-real/id1_0000 | celebdf/id1 | -",
        f"YouTube-real/{inner}00170.mp4#at=0/1 | 0 | 0 | YouTube-real/00170 | - | -",
        f"{swaps}/{inner}id1_id0_0000.mp4#at=0/1 | 1 | 2 | {swaps}/id1_id0_0000 | celebdf/id1 | celeb-df",
    ]
    assert rows(source.load("train"), tmp_path, "video") == [
        ("Celeb-real/id0_0000",),
        ("Celeb-real/id0_0001",),
        ("Celeb-synthesis/id0_id1_0000",),
    ]


def test_celeb_df_half_unpacked(tmp_path: Path) -> None:
    touch(tmp_path, "Celeb-real/id0_0000.mp4", "Youtube-real/00170.mp4")
    with pytest.raises(UserError, match=r"expected the folder Celeb-synthesis in .*, found Celeb-real/, Youtube-real/"):
        CelebDf(str(tmp_path)).load("test")
    touch(tmp_path, "Celeb-synthesis/id0_id1_0000.mp4")
    refuses(CelebDf(str(tmp_path)), "test", r"expected List_of_testing_videos.txt")
    listed = tmp_path / "List_of_testing_videos.txt"
    listed.write_text("1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id9_id1_0000.mp4\n")
    with pytest.raises(UserError, match=r"names 2 videos, and 1 are not there, the first celeb-synthesis/id9_id1_0000"):
        CelebDf(str(tmp_path)).load("test")
    listed.write_text("1 YouTube-real/00170.mp4\n1 Celeb-synthesis/id0_id1_0000.mp4\n")
    refuses(CelebDf(str(tmp_path)), "test", "contradict each other")


@pytest.mark.parametrize("top", ["", "train/"])
def test_dfdc(tmp_path: Path, top: str) -> None:
    for part, names in ((0, ("aa", "bb")), (10, ("cc", "dd"))):
        touch(tmp_path, *(f"{top}dfdc_train_part_{part}/{n}.mp4" for n in names))
        real, fake = (f"{n}.mp4" for n in names)
        table = {real: {"label": "REAL", "split": "train"}, fake: {"label": "FAKE", "split": "train", "original": real}}
        (tmp_path / f"{top}dfdc_train_part_{part}/metadata.json").write_text(json.dumps(table))
    touch(tmp_path, "test/{ee,ff}.mp4")
    (tmp_path / "test/labels.csv").write_text("filename,label\nee.mp4,0\nff.mp4,1\n")
    whole = Dfdc(str(tmp_path), frames=1, val_share=0.0)
    assert rows(whole.load("train"), tmp_path, "path", "label", "video", "source", "generator") == [
        (f"{top}dfdc_train_part_0/aa.mp4#at=0/1", 0, "dfdc/aa", "dfdc/aa", ""),
        (f"{top}dfdc_train_part_0/bb.mp4#at=0/1", 1, "dfdc/bb", "dfdc/aa", "dfdc"),
        (f"{top}dfdc_train_part_10/cc.mp4#at=0/1", 0, "dfdc/cc", "dfdc/cc", ""),
        (f"{top}dfdc_train_part_10/dd.mp4#at=0/1", 1, "dfdc/dd", "dfdc/cc", "dfdc"),
    ]
    assert rows(whole.load("test"), tmp_path, "path", "label") == [("test/ee.mp4#at=0/1", 0), ("test/ff.mp4#at=0/1", 1)]
    halves = Dfdc(str(tmp_path), frames=1, val_share=0.5)
    sides = [set(rows(halves.load(s), tmp_path, "source")) for s in ("train", "val")]
    assert [len(s) for s in sides] == [1, 1]
    assert not sides[0] & sides[1]  # a fake stays with its original
    (tmp_path / f"{top}dfdc_train_part_10/cc.mp4").unlink()
    refuses(whole, "train", r"lists 4 images, and 1 are not there, the first .*cc.mp4.*set missing: skip")
    (tmp_path / f"{top}dfdc_train_part_10/metadata.json").unlink()
    refuses(whole, "train", r"expected metadata.json in .*part_10, found dd.mp4")
    (tmp_path / "test/labels.csv").unlink()
    refuses(whole, "test", r"expected labels.csv in .*/test, found ee.mp4, ff.mp4; get it from")


def test_dfdcp(tmp_path: Path) -> None:
    names = ["original_videos/643755/643755_A_000.mp4", "method_A/643755/643755_D_000.mp4", "method_B/1/1_A_000.mp4"]
    touch(tmp_path, *names)
    table = {
        n: {"label": "real" if "original" in n else "fake", "set": s}
        for n, s in zip(names, ("train", "train", "test"), strict=True)
    }
    table[names[1]]["target_id"] = 643755
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    source = Dfdcp(str(tmp_path), frames=1, val_share=0.0)
    assert rows(source.load("train"), tmp_path, "path", "label", "generator", "identity") == [
        (f"{names[0]}#at=0/1", 0, "", ""),
        (f"{names[1]}#at=0/1", 1, "method_a", "dfdcp/643755"),
    ]
    assert rows(source.load("test"), tmp_path, "path", "generator") == [(f"{names[2]}#at=0/1", "method_b")]
    (tmp_path / "dataset.json").unlink()
    refuses(source, "test", r"expected dataset.json in .*, found method_A/, method_B/, original_videos/")


def test_deeperforensics(tmp_path: Path) -> None:
    touch(tmp_path, "manipulated_videos/{end_to_end,random_level}/{000_M101,001_M102}.mp4")
    touch(tmp_path, "source_videos/{M101,M102}/light_up/1.mp4")
    for split, name in (("train", "000_M101"), ("val", "002_W001"), ("test", "001_M102")):
        (tmp_path / "lists/splits").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"lists/splits/{split}.txt").write_text(f"{name}.mp4\n")
    half = {"train": 0.5, "test": 0.5}
    source = DeeperForensics(str(tmp_path), frames=1, real_fractions=half)
    both = [rows(source.load(s), tmp_path, "path", "label", "identity", "source") for s in ("train", "test")]
    assert both[0][1] == ("manipulated_videos/end_to_end/000_M101.mp4#at=0/1", 1, "deeper/M101", "ffpp/000")
    assert both[1][1] == ("manipulated_videos/end_to_end/001_M102.mp4#at=0/1", 1, "deeper/M102", "ffpp/001")
    assert {b[0][0] for b in both} == {f"source_videos/{a}/light_up/1.mp4#at=0/1" for a in ("M101", "M102")}
    assert len(DeeperForensics(str(tmp_path), frames=1, real_fractions={}).load("train")) == 1
    refuses(source, "val", r"val.txt lists 1 images, and 1 are not there, the first .*002_W001")
    with pytest.raises(UserError, match=r"'end2end' \(argument perturbations\); there are|did you mean 'end_to_end'"):
        DeeperForensics(str(tmp_path), perturbations=["end2end"]).load("train")
