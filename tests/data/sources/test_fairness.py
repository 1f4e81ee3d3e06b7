"""Fairness tables: columns by name in every release's order, groups from what the file has."""

from pathlib import Path

import pytest
from layouts import as_text, refuses, rows, touch

from dfl.data.sources import AiFace, PgFdd
from dfl.errors import UserError

OLD = "img_path,label,ismale,isasian,iswhite,isblack,intersec_label,spe_label\n"
NEW = "Image Path,Ground Truth Gender,Ground Truth Age,Ground Truth Race,Intersection,Target,intersec_label,Specific\n"


def test_pg_fdd(tmp_path: Path) -> None:
    touch(tmp_path, "ff++/crop_img/0_Deepfakes_300_304_151.png", "ff++/real/{0_youtube_186_151,0_youtube_186_161}.png")
    there, fake = "/data/someone/ff++", "Deepfakes_300_304"
    (tmp_path / "realtrain.csv").write_text(
        OLD.replace(",spe_label", "")
        + f"{there}/real/0_youtube_186_151.png,0,-1,-1,1,-1,5\n{there}/real/0_youtube_186_161.png,0,1,-1,-1,-1,3\n"
    )
    (tmp_path / "faketrain.csv").write_text(OLD + f"{there}/crop_img/0_Deepfakes_300_304_151.png,1,1,-1,-1,1,2,1\n")
    columns = ("path", "label", "class_label", "group", "video", "frame", "generator", "family")
    assert as_text(PgFdd(str(tmp_path)).load("train"), tmp_path, *columns) == [
        "ff++/real/0_youtube_186_151.png | 0 | 0 | nonmale,white | youtube_186 | 151 | - | -",
        "ff++/real/0_youtube_186_161.png | 0 | 0 | male,others | youtube_186 | 161 | - | -",
        f"ff++/crop_img/0_{fake}_151.png | 1 | 2 | male,black | {fake} | 151 | deepfakes | face-swap",
    ]
    refuses(PgFdd(str(tmp_path)), "val", r"expected realval.csv in .*, found faketrain.csv, ff\+\+/, realtrain.csv")


@pytest.mark.parametrize(
    ("head", "line", "group"),
    [
        (NEW, "{},0,1,0,4,1,6,4", "nonmale,asian"),  # Target before intersec_label; the cleaner annotation counts
        (
            "img_path,label,ismale,iswhite,isblack,intersec_label\n",
            "{},1,1,-1,-1,2",
            "male,others",
        ),  # six groups, no isasian
        ("spe_label,intersec_label,label,img_path\n", "4,6,1,{}", "nonmale,black"),  # only the code of eight groups
    ],
)
def test_pg_fdd_other_releases(tmp_path: Path, head: str, line: str, group: str) -> None:
    touch(tmp_path, "crop_img/0_NeuralTextures_1_2_31.png")
    (tmp_path / "test.csv").write_text(head + line.format("crop_img/0_NeuralTextures_1_2_31.png") + "\n")
    assert rows(PgFdd(str(tmp_path)).load("test"), tmp_path, "label", "group", "generator") == [
        (1, group, "neuraltextures")
    ]


def test_pg_fdd_half_unpacked(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    (tmp_path / "test.csv").write_text("img_path,label\na.png,0\nb.png,1\n")
    with pytest.raises(UserError, match=r"test.csv lists 2 images, and 1 are not there, the first .*b.png; set images"):
        PgFdd(str(tmp_path)).load("test")
    (tmp_path / "test.csv").write_text("img_path,kind\na.png,0\n")
    refuses(PgFdd(str(tmp_path)), "test", r"none of the columns label, target; it has img_path, kind")
    (tmp_path / "test.csv").write_text("img_path,label\na.png,2\n")
    refuses(PgFdd(str(tmp_path)), "test", "the label '2' of a.png is neither")


def test_ai_face_with_race(tmp_path: Path) -> None:
    touch(tmp_path, "AttGAN/1.png", "FFHQ/2.png", "train.csv")
    doubt = "Uncertainty Score Gender,Uncertainty Score Age,Uncertainty Score Race"
    truth = "Ground Truth Gender,Ground Truth Age,Ground Truth Race"
    head = f"Image Path,{doubt},{truth},Intersection,Target\n"
    (tmp_path / "test.csv").write_text(
        head + "AI-Face Dataset/AttGAN/1.png,.1,.1,.1,1,0,2,2,1\nAI-Face Dataset/FFHQ/2.png,.1,.1,.1,0,0,0,4,0\n"
    )
    assert rows(AiFace(str(tmp_path)).load("test"), tmp_path, "path", "label", "group", "generator", "family") == [
        ("AttGAN/1.png", 1, "male,black", "attgan", "gan"),
        ("FFHQ/2.png", 0, "female,asian", "", ""),
    ]


def test_ai_face_with_skin_tone(tmp_path: Path) -> None:
    touch(tmp_path, "AttGAN/{1,2}.png")
    head = "Image Path,Predicted Gender,Predicted Age,Predicted Skin Tone,Intersection,Target,Specific\n"
    (tmp_path / "test.csv").write_text(head + "AttGAN/1.png,0,1,2,2,1,7\nAttGAN/2.png,1,1,0,3,1,7\n")
    assert rows(AiFace(str(tmp_path)).load("test"), tmp_path, "group") == [("female,dark",), ("male,light",)]
    refuses(AiFace(str(tmp_path)), "train", r"AiFace: expected train.csv")
