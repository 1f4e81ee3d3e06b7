"""Sets with masks: every row and its mask, the polarity of each, and what a half unpacked one says."""

from pathlib import Path

import numpy as np
import pytest
from layouts import as_text, refuses, rows, touch
from PIL import Image

from dfl.data.masks import load_mask
from dfl.data.sources import (
    AutoSplice,
    CasiaV1,
    CasiaV2,
    CocoGlide,
    Columbia,
    Coverage,
    Dolos,
    Dso1,
    Imd2020,
    Korus,
    Nist16,
)
from dfl.data.sources.base import Source
from dfl.errors import UserError

ROW = ("path", "label", "class_label", "method", "source", "mask")


def paint(path: Path, left: object, right: object, size: tuple[int, int] = (16, 8)) -> None:
    """Write an image of two halves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "RGB" if isinstance(left, tuple) else "L"
    picture = Image.new(mode, size, left)  # type: ignore[arg-type]
    picture.paste(right, (size[0] // 2, 0, *size))  # type: ignore[arg-type]
    picture.save(path, quality=75) if path.suffix == ".jpg" else picture.save(path)


def tampered_half(source: Source, split: str = "test") -> str:
    """Which half of the one fake's mask is manipulated."""
    (row,) = [r for r in source.load(split).to_pylist() if r["mask"]]
    mask = load_mask(row["mask"], row["mask_rule"], (16, 8))
    assert mask is not None
    assert set(np.unique(mask)) == {0, 255}
    means = mask[:, :7].mean(), mask[:, 9:].mean()
    return {(255, 0): "left", (0, 255): "right"}[means]


def test_columbia(tmp_path: Path) -> None:
    touch(tmp_path, "4cam_auth/canong3_02_sub_01.tif", "4cam_splc/canong3_canonxt_sub_01.tif")
    with pytest.raises(
        UserError, match=r"Columbia: expected the folder 4cam_splc/edgemask in .*, found 4cam_auth/, 4cam_splc/"
    ):
        Columbia(str(tmp_path)).load("test")
    touch(tmp_path, "4cam_auth/edgemask/canong3_02_sub_01_edgemask.jpg")
    mask = "4cam_splc/edgemask/canong3_canonxt_sub_01_edgemask.jpg"
    paint(tmp_path / mask, (0, 200, 0), (200, 0, 0))
    assert rows(Columbia(str(tmp_path)).load("test"), tmp_path, *ROW) == [
        ("4cam_auth/canong3_02_sub_01.tif", 0, 0, "", "", ""),
        ("4cam_splc/canong3_canonxt_sub_01.tif", 1, 2, "splice", "", mask),
    ]
    assert tampered_half(Columbia(str(tmp_path))) == "left"


def test_coverage(tmp_path: Path) -> None:
    touch(tmp_path, "image/{1,1t,2,2t}.tif")
    paint(tmp_path / "mask/1forged.tif", 0, 255)
    with pytest.raises(
        UserError, match=r"1 of 2 tampered images have no mask, the first .*2t.tif; expected a mask named"
    ):
        Coverage(str(tmp_path)).load("test")
    (tmp_path / "image/2t.tif").unlink()
    assert rows(Coverage(str(tmp_path)).load("test"), tmp_path, *ROW) == [
        ("image/1.tif", 0, 0, "", "coverage/1", ""),
        ("image/2.tif", 0, 0, "", "coverage/2", ""),
        ("image/1t.tif", 1, 2, "copy-move", "coverage/1", "mask/1forged.tif"),
    ]
    assert tampered_half(Coverage(str(tmp_path))) == "right"


def test_dso1_zero_is_tampered(tmp_path: Path) -> None:
    touch(tmp_path, "DSO-1/{normal-01,splicing-01}.png")
    refuses(Dso1(str(tmp_path)), "test", r"expected the folder DSO-1-Fake-Images-Masks in .*, found DSO-1/")
    paint(tmp_path / "DSO-1-Fake-Images-Masks/splicing-01.png", 0, 255)
    assert rows(Dso1(str(tmp_path)).load("test"), tmp_path, *ROW) == [
        ("DSO-1/normal-01.png", 0, 0, "", "", ""),
        ("DSO-1/splicing-01.png", 1, 2, "splice", "", "DSO-1-Fake-Images-Masks/splicing-01.png"),
    ]
    assert tampered_half(Dso1(str(tmp_path))) == "left"


def test_autosplice(tmp_path: Path) -> None:
    touch(tmp_path, "Authentic/1001.jpg", "Forged_JPEG75/{1001_0,1001_1}.jpg")
    paint(tmp_path / "Mask/1001_mask.png", 255, 0)
    assert rows(AutoSplice(str(tmp_path), quality=75).load("test"), tmp_path, *ROW, "compression") == [
        ("Authentic/1001.jpg", 0, 0, "", "autosplice/1001", "", ""),
        ("Forged_JPEG75/1001_0.jpg", 1, 2, "inpainting", "autosplice/1001", "Mask/1001_mask.png", "jpeg75"),
        ("Forged_JPEG75/1001_1.jpg", 1, 2, "inpainting", "autosplice/1001", "Mask/1001_mask.png", "jpeg75"),
    ]
    with pytest.raises(UserError, match=r"expected the folder Forged_JPEG100 in .*, found Authentic/, .*set quality"):
        AutoSplice(str(tmp_path)).load("test")


def test_coco_glide(tmp_path: Path) -> None:
    name = "glide_inpainting_val2017_143931"
    touch(tmp_path, f"fake/{name}_up.png", f"real/{name}.png")
    paint(tmp_path / f"mask/{name}_up.png", 255, 0)
    assert rows(CocoGlide(str(tmp_path)).load("test"), tmp_path, *ROW, "generator") == [
        (f"real/{name}.png", 0, 0, "", "coco/143931", "", ""),
        (f"fake/{name}_up.png", 1, 2, "inpainting", "coco/143931", f"mask/{name}_up.png", "glide"),
    ]
    assert tampered_half(CocoGlide(str(tmp_path))) == "left"
    assert tampered_half(CocoGlide(str(tmp_path), mask_rule="max<128")) == "right"
    with pytest.raises(UserError, match="mask rule 'white': 'white' is none of"):
        CocoGlide(str(tmp_path), mask_rule="white")


def test_casia_v1(tmp_path: Path) -> None:
    touch(tmp_path, "Au/Au_ani_0001.jpg", "Tp/Sp/Sp_D_NRN_A_ani0001.jpg", "Tp/CM/Sp_S_NNN_A_ani0002.jpg")
    refuses(
        CasiaV1(str(tmp_path)), "test", r"CasiaV1: expected the folder CASIA 1.0 groundtruth in .*, found Au/, Tp/; get"
    )
    paint(tmp_path / "CASIA 1.0 groundtruth/Sp/Sp_D_NRN_A_ani0001_gt.png", 0, 255)
    touch(tmp_path, "CASIA 1.0 groundtruth/CM/Sp_S_NNN_A_ani0002_gt.png")
    assert rows(CasiaV1(str(tmp_path)).load("test"), tmp_path, *ROW) == [
        ("Au/Au_ani_0001.jpg", 0, 0, "", "", ""),
        ("Tp/CM/Sp_S_NNN_A_ani0002.jpg", 1, 2, "copy-move", "", "CASIA 1.0 groundtruth/CM/Sp_S_NNN_A_ani0002_gt.png"),
        ("Tp/Sp/Sp_D_NRN_A_ani0001.jpg", 1, 2, "splice", "", "CASIA 1.0 groundtruth/Sp/Sp_D_NRN_A_ani0001_gt.png"),
    ]


def test_casia_v2(tmp_path: Path) -> None:
    touch(tmp_path, "Au/Au_ani_00001.jpg", "Au/Au_sec_30730.bmp")
    first = "Tp_D_CND_M_N_ani00018_sec00096_00138"
    touch(tmp_path, f"Tp/{first}.tif", "Tp/Tp_S_NNN_S_N_nat00001_nat00001_1.jpg")
    touch(tmp_path, f"CASIA 2 Groundtruth/{first}_gt3.png")
    with pytest.warns(UserWarning, match="1 of 2 tampered images have no mask.*without one"):
        found = CasiaV2(str(tmp_path), missing="skip").load("test")
    assert as_text(found, tmp_path, "path", "label", "method", "mask")[2:] == [
        f"Tp/{first}.tif | 1 | splice | CASIA 2 Groundtruth/{first}_gt3.png",
        "Tp/Tp_S_NNN_S_N_nat00001_nat00001_1.jpg | 1 | copy-move | -",
    ]
    refuses(CasiaV2(str(tmp_path)), "test", r"1 of 2 tampered images have no mask, the first .*nat00001_1.jpg")


def nist(root: Path) -> None:
    touch(root, "probe/{NC2016_1,NC2016_2}.jpg", "world/NC2016_9.jpg")
    head = "TaskID|ProbeFileID|ProbeFileName|ProbeMaskFileName|IsTarget|BaseFileName\n"
    mask = "reference/{}/mask/NC2016_1.png"
    for task, target in (("manipulation", "Y"), ("removal", "N"), ("splice", "N")):
        (root / f"reference/{task}").mkdir(parents=True)
        lines = (
            f"{task}|1|probe/NC2016_1.jpg|{mask.format(task) if target == 'Y' else ''}|{target}|world/NC2016_9.jpg\n"
        )
        lines += f"{task}|2|probe/NC2016_2.jpg||N|\n"
        (root / f"reference/{task}/NC2016-{task}-ref.csv").write_text(head + lines)
    paint(root / mask.format("manipulation"), 0, 255)


@pytest.mark.parametrize("top", ["", "NC2016_Test0601"])
def test_nist16_black_is_tampered(tmp_path: Path, top: str) -> None:
    nist(tmp_path / top)
    base, mask = f"{top}/" if top else "", "reference/manipulation/mask/NC2016_1.png"
    assert as_text(Nist16(str(tmp_path)).load("test"), tmp_path, *ROW) == [
        f"{base}probe/NC2016_1.jpg | 1 | 2 | manipulation | nist16/NC2016_9 | {base}{mask}",
        f"{base}probe/NC2016_2.jpg | 0 | 0 | - | nist16/NC2016_2 | -",
    ]
    assert tampered_half(Nist16(str(tmp_path))) == "left"
    (tmp_path / top / "probe/NC2016_2.jpg").unlink()
    refuses(Nist16(str(tmp_path)), "test", r"lists 2 images, and 1 are not there, the first .*NC2016_2.jpg")
    (tmp_path / top / "reference/removal/NC2016-removal-ref.csv").unlink()
    refuses(Nist16(str(tmp_path)), "test", r"expected reference/removal/NC2016-removal-ref.csv in .*set tasks or root")


def test_imd2020(tmp_path: Path) -> None:
    touch(tmp_path, "1a/1a_orig.jpg", "1a/{e1,e2}.png", "1a/{e1_mask,e2_mask}.png", "2b/2b_orig.jpg", "2b/e1.jpg")
    refuses(Imd2020(str(tmp_path)), "test", r"1 of 3 tampered images have no mask, the first .*2b/e1.jpg")
    touch(tmp_path, "2b/e1_mask.png")
    assert rows(Imd2020(str(tmp_path)).load("test"), tmp_path, *ROW) == [
        ("1a/1a_orig.jpg", 0, 0, "", "imd2020/1a", ""),
        ("2b/2b_orig.jpg", 0, 0, "", "imd2020/2b", ""),
        ("1a/e1.png", 1, 2, "", "imd2020/1a", "1a/e1_mask.png"),
        ("1a/e2.png", 1, 2, "", "imd2020/1a", "1a/e2_mask.png"),
        ("2b/e1.jpg", 1, 2, "", "imd2020/2b", "2b/e1_mask.png"),
    ]
    split = Imd2020(str(tmp_path), fractions={"train": 0.5, "test": 0.5})
    assert not {r["source"] for r in split.items("train").to_pylist()} & {
        r["source"] for r in split.items("test").to_pylist()
    }


def test_korus(tmp_path: Path) -> None:
    touch(tmp_path, "Canon_60D/{pristine,tampered-realistic}/DPP0012.TIF")
    refuses(
        Korus(str(tmp_path)), "test", r"expected the folder ground-truth in .*/Canon_60D, found pristine/, tampered-re"
    )
    paint(tmp_path / "Canon_60D/ground-truth/DPP0012.PNG", 127, 0)
    camera, mask = "Canon_60D", "Canon_60D/ground-truth/DPP0012.PNG"
    assert as_text(Korus(str(tmp_path)).load("test"), tmp_path, *ROW) == [
        f"{camera}/pristine/DPP0012.TIF | 0 | 0 | - | korus/{camera}/DPP0012 | -",
        f"{camera}/tampered-realistic/DPP0012.TIF | 1 | 2 | - | korus/{camera}/DPP0012 | {mask}",
    ]
    assert tampered_half(Korus(str(tmp_path))) == "left"


def test_dolos_masks_are_inverted(tmp_path: Path) -> None:
    touch(tmp_path, "celebahq/real/{train,valid,test}/1.png", "celebahq/fake/p2/{train,valid,test}/00001.png")
    touch(tmp_path, "celebahq/fake/{lama,ldm}/images/{train,valid,test}/1.png", "celebahq/fake/lama/masks/valid/1.png")
    paint(tmp_path / "celebahq/fake/lama/masks/test/1.png", (0, 0, 0), (255, 255, 255))
    lama, base = Dolos(str(tmp_path), generators=["lama"]), "celebahq/fake/lama"
    assert as_text(lama.load("val"), tmp_path, *ROW, "generator", "mask_rule", "split") == [
        "celebahq/real/valid/1.png | 0 | 0 | - | celebahq/1 | - | - | - | val",
        f"{base}/images/valid/1.png | 1 | 2 | inpainting | celebahq/1 | {base}/masks/valid/1.png | lama | r<128 | val",
    ]
    assert tampered_half(lama) == "left"
    gray = np.tile(np.array([0, 100, 127, 128, 200, 254, 255], np.uint8), (4, 1))  # as its code reads what is between
    for folder in ("valid", "test"):
        Image.fromarray(gray).save(tmp_path / f"celebahq/fake/lama/masks/{folder}/1.png")
    for split, fake in (("val", 3), ("test", 6)):
        row = lama.load(split).to_pylist()[1]
        area = load_mask(row["mask"], row["mask_rule"], (7, 4))
        assert area is not None
        assert (area > 0).sum(0).tolist() == [4] * fake + [0] * (7 - fake)
    p2 = Dolos(str(tmp_path), generators=["p2"]).load("test")
    assert (
        as_text(p2, tmp_path, "path", "class_label", "method", "mask")[1]
        == "celebahq/fake/p2/test/00001.png | 1 | synthesis | -"
    )
    refuses(
        Dolos(str(tmp_path)), "test", r"no mask for .*ldm/images/test/1.png; expected .*ldm/masks/test/1.png; unpack"
    )
    refuses(Dolos(str(tmp_path), dataset="ffhq"), "test", r"expected the folder ffhq/real/test in .*, found celebahq/")
