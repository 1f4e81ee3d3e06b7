"""Sets of generated images: every row of a small true tree, and what a half unpacked one says."""

from pathlib import Path

import pytest
from layouts import refuses, rows, touch

from dfl.data.sources import Cifake, DiffusionForensics, ForenSynths, GenImage, UniversalFakeDetect
from dfl.errors import UserError

ROW = ("path", "label", "class_label", "generator", "family")


def test_forensynths(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "train/progan/{car,cat}/0_real/1.png",
        "train/progan/{car,cat}/1_fake/2.png",
        "val/progan/car/{0_real,1_fake}/3.png",
        "test/biggan/{0_real,1_fake}/4.png",
        "test/cyclegan/horse/{0_real,1_fake}/5.png",
        "test/cyclegan/horse/1_fake/._5.png",
    )
    train = ForenSynths(str(tmp_path), classes=["car"]).load("train")
    assert rows(train, tmp_path, *ROW, "split") == [
        ("train/progan/car/0_real/1.png", 0, 0, "", "", "train"),
        ("train/progan/car/1_fake/2.png", 1, 1, "progan", "gan", "train"),
    ]
    assert len(ForenSynths(str(tmp_path)).load("train")) == 4
    assert len(ForenSynths(str(tmp_path)).load("val")) == 2
    assert rows(ForenSynths(str(tmp_path)).load("test"), tmp_path, *ROW) == [
        ("test/biggan/0_real/4.png", 0, 0, "", ""),
        ("test/biggan/1_fake/4.png", 1, 1, "biggan", "gan"),
        ("test/cyclegan/horse/0_real/5.png", 0, 0, "", ""),
        ("test/cyclegan/horse/1_fake/5.png", 1, 1, "cyclegan", "gan"),
    ]


def test_forensynths_without_the_progan_folder(tmp_path: Path) -> None:
    touch(tmp_path, "train/{car,cat,chair,horse}/{0_real,1_fake}/1.png")
    assert len(ForenSynths(str(tmp_path)).load("train")) == 8


def test_forensynths_half_unpacked(tmp_path: Path) -> None:
    touch(tmp_path, "progan_train.7z.001")
    with pytest.raises(
        UserError, match=r"ForenSynths: expected the folder train in .*, found progan_train.7z.001; get"
    ):
        ForenSynths(str(tmp_path)).load("train")
    touch(tmp_path, "test/biggan/0_real/4.png", "test/san/a.png")
    with pytest.raises(UserError, match=r"one of fake images in .*/biggan, found 0_real/"):
        ForenSynths(str(tmp_path), generators=["biggan"]).load("test")
    with pytest.raises(UserError, match=r"expected folders of real and fake .*/test/san, found a.png"):
        ForenSynths(str(tmp_path), generators=["san"]).load("test")
    with pytest.raises(UserError, match=r"'bigan' \(argument generators\); did you mean 'biggan'"):
        ForenSynths(str(tmp_path), generators=["bigan"]).load("test")


def test_universal_fake_detect_counts_shared_reals_once(tmp_path: Path) -> None:
    touch(tmp_path, "{laion,imagenet}/0_real/{1,2}.jpg", "{dalle,glide_50_27,guided,ldm_200_cfg}/1_fake/{1,2}.png")
    found = rows(UniversalFakeDetect(str(tmp_path)).load("test"), tmp_path, *ROW)
    assert found[:4] == [(f"{s}/0_real/{i}.jpg", 0, 0, "", "") for s in ("imagenet", "laion") for i in (1, 2)]
    assert [r[0] for r in found[4:]] == [
        f"{g}/1_fake/{i}.png" for g in ("dalle", "glide_50_27", "guided", "ldm_200_cfg") for i in (1, 2)
    ]
    assert {r[3:] for r in found[4:]} == {
        ("dalle", "autoregressive"),
        ("glide_50_27", "diffusion"),
        ("guided", "diffusion"),
        ("ldm_200_cfg", "diffusion"),
    }
    guided = rows(UniversalFakeDetect(str(tmp_path), generators=["guided"]).load("test"), tmp_path, "path")
    assert {p.split("/")[0] for (p,) in guided} == {"imagenet", "guided"}


def test_universal_fake_detect_repacked(tmp_path: Path) -> None:
    touch(tmp_path, "test/{dalle,guided,ldm_100}/{0_real,1_fake}/{1,2}.png")
    found = rows(UniversalFakeDetect(str(tmp_path)).load("test"), tmp_path, "path", "label")
    assert [p for p, label in found if not label] == [
        f"test/{g}/0_real/{i}.png" for g in ("guided", "dalle") for i in (1, 2)
    ]
    assert sum(label for _, label in found) == 6


def test_universal_fake_detect_half_unpacked(tmp_path: Path) -> None:
    touch(tmp_path, "laion/0_real/1.jpg", "guided/1_fake/1.png", "dalle/2.png")
    with pytest.raises(
        UserError, match=r"expected imagenet/0_real, the reals of guided in .*, found dalle/, guided/, la"
    ):
        UniversalFakeDetect(str(tmp_path)).load("test")
    with pytest.raises(UserError, match=r"expected the folder 1_fake in .*/dalle, found 2.png"):
        UniversalFakeDetect(str(tmp_path), generators=["dalle"]).load("test")


GENIMAGE = (
    "ADM/imagenet_ai_0508_adm/{train,val}/ai/375_adm_64.PNG",
    "ADM/imagenet_ai_0508_adm/{train,val}/nature/n01440764_10026.JPEG",
    "Midjourney/imagenet_midjourney/{train,val}/{ai,nature}/1.png",
)


def test_genimage(tmp_path: Path) -> None:
    touch(tmp_path, *GENIMAGE)
    assert rows(GenImage(str(tmp_path)).load("test"), tmp_path, *ROW, "split") == [
        ("ADM/imagenet_ai_0508_adm/val/ai/375_adm_64.PNG", 1, 1, "adm", "diffusion", "test"),
        ("ADM/imagenet_ai_0508_adm/val/nature/n01440764_10026.JPEG", 0, 0, "", "", "test"),
        ("Midjourney/imagenet_midjourney/val/ai/1.png", 1, 1, "midjourney", "diffusion", "test"),
        ("Midjourney/imagenet_midjourney/val/nature/1.png", 0, 0, "", "", "test"),
    ]
    train = rows(GenImage(str(tmp_path), val_share=0.5).load("train"), tmp_path, "path")
    val = rows(GenImage(str(tmp_path), val_share=0.5).load("val"), tmp_path, "path")
    assert len(train) == len(val) == 2
    assert not set(train) & set(val)
    assert len(GenImage(str(tmp_path), val_share=0.0).load("train")) == 4
    refuses(GenImage(str(tmp_path), val_share=0.0), "val", "no validation images: set val_share")


def test_genimage_one_generator_or_no_middle_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a/imagenet_ai_0419_sdv4/val/{ai,nature}/1.png", "b/BigGAN/val/{ai,nature}/1.png")
    assert rows(GenImage(str(tmp_path / "a" / "imagenet_ai_0419_sdv4")).load("test"), tmp_path, "generator") == [
        ("sdv4",),
        ("",),
    ]
    assert rows(GenImage(str(tmp_path / "b")).load("test"), tmp_path, "generator", "family")[0] == ("biggan", "gan")


def test_genimage_half_unpacked(tmp_path: Path) -> None:
    touch(tmp_path, "ADM/imagenet_ai_0508_adm.{z01,zip}")
    refuses(GenImage(str(tmp_path)), "test", r"expected <Generator>/imagenet_ai.*, found ADM/; .*unpack all volumes")
    touch(tmp_path, "ADM/imagenet_ai_0508_adm/train/{ai,nature}/1.png")
    refuses(GenImage(str(tmp_path)), "test", r"expected the folder val in .*imagenet_ai_0508_adm, found train/")


def test_diffusion_forensics(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "images/train/imagenet/real/n03982430/ILSVRC2012_val_00039791.JPEG",
        "images/train/imagenet/adm/n03982430/7.png",
        "images/train/lsun_bedroom/{real,sdv1}/1.png",
        "dire/train/imagenet/{real,adm}/1.png",
    )
    assert rows(DiffusionForensics(str(tmp_path)).load("train"), tmp_path, *ROW) == [
        ("images/train/imagenet/real/n03982430/ILSVRC2012_val_00039791.JPEG", 0, 0, "", ""),
        ("images/train/imagenet/adm/n03982430/7.png", 1, 1, "adm", "diffusion"),
        ("images/train/lsun_bedroom/real/1.png", 0, 0, "", ""),
        ("images/train/lsun_bedroom/sdv1/1.png", 1, 1, "sdv1", "diffusion"),
    ]
    one = DiffusionForensics(str(tmp_path / "images"), subsets=["imagenet"])
    assert len(one.load("train")) == len(DiffusionForensics(str(tmp_path), kind="dire").load("train")) == 2
    refuses(DiffusionForensics(str(tmp_path)), "test", r"expected images/test in .*, found dire/, images/")
    touch(tmp_path, "images/test/imagenet/adm/1.png")
    refuses(DiffusionForensics(str(tmp_path)), "test", r"expected the folder real in .*test/imagenet, found adm/")


def test_cifake(tmp_path: Path) -> None:
    touch(tmp_path, "train/{REAL,FAKE}/{0,1,2,3,4,5,6,7,8,9}.jpg", "test/{REAL,FAKE}/0000 (2).jpg")
    assert rows(Cifake(str(tmp_path)).load("test"), tmp_path, *ROW) == [
        ("test/FAKE/0000 (2).jpg", 1, 1, "sdv1.4", "diffusion"),
        ("test/REAL/0000 (2).jpg", 0, 0, "", ""),
    ]
    assert rows(Cifake(str(tmp_path)).load("val"), tmp_path, "label", "split") == [(1, "val"), (0, "val")]
    assert len(Cifake(str(tmp_path)).load("train")) == 18
    refuses(Cifake(str(tmp_path / "nowhere")), "test", r"Cifake: no folder test at .*/nowhere")
