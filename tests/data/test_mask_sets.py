"""What a set's masks mean is told by the set: sets that store them in other true ways, and in ways that do not tell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from dfl.data import DataModule, Table
from dfl.data.decoding import DecodeError
from dfl.data.mask_sets import rule_of, with_mask_rules
from dfl.data.masks import load_mask
from dfl.data.sources import to_table
from dfl.errors import UserError
from dfl.tools.check import check
from dfl.tools.pack import pack
from dfl.tools.scan import scan

SIDE = 16
Store = Callable[[np.ndarray, Path], None]


def regions(i: int) -> np.ndarray:
    """Return one or two regions, numbered from 1; uint8 (SIDE, SIDE)."""
    out = np.zeros((SIDE, SIDE), np.uint8)
    out[1:6, 1:6] = 1
    if i % 2:
        out[8:12, 8 : 10 + i % 4] = 2
    return out


def saved(values: Callable[[np.ndarray], Any], **words: Any) -> Store:
    return lambda ids, path: Image.fromarray(values(ids)).save(path, **words)


def coloured(alpha: Callable[[np.ndarray], np.ndarray], colour: int | None = None, mode: str = "RGBA") -> Store:
    """Return a photo (or the mask in one colour) with alpha."""

    def save(ids: np.ndarray, path: Path) -> None:
        photo = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        rgb = photo if colour is None else np.repeat(np.where(ids > 0, colour, 0)[..., None], 3, 2).astype(np.uint8)
        image = Image.fromarray(np.dstack([rgb, alpha(ids).astype(np.uint8)]))
        image.convert(mode).save(path)

    return save


def palette(ids: np.ndarray, path: Path) -> None:
    """Save region numbers with the colours of Pascal VOC."""
    image = Image.fromarray(ids, "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)


def rgb16(ids: np.ndarray, path: Path) -> None:
    assert cv2.imwrite(str(path), np.repeat((ids > 0).astype(np.uint16)[..., None], 3, 2))


def soft(ids: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur((ids > 0).astype(np.uint8) * 255, (5, 5), 1)


CLEAR: dict[str, Store] = {
    "0/255": saved(lambda ids: (ids > 0).astype(np.uint8) * 255),
    "0/1": saved(lambda ids: (ids > 0).astype(np.uint8)),
    "one bit": saved(lambda ids: ids > 0),
    "0/1 in 16 bits": saved(lambda ids: (ids > 0).astype(np.uint16)),
    "0/65535": saved(lambda ids: (ids > 0).astype(np.uint16) * 65_535),
    "0/1 in 16-bit RGB": rgb16,
    "RGBA, opaque": coloured(lambda ids: np.full_like(ids, 255), 255),
    "RGBA, all transparent": coloured(lambda ids: np.zeros_like(ids), 255),
    "RGBA, alpha as the colours": coloured(lambda ids: (ids > 0) * 255, 255),
    "LA, 0/1": coloured(lambda ids: np.full_like(ids, 255), 1, "LA"),
    "JPEG": saved(lambda ids: (ids > 0).astype(np.uint8) * 255, format="JPEG", quality=90),
    "soft": saved(soft),
}
REGIONS = r"they hold 0, .*numbers of regions or classes, or grey levels\? Name the rule: max>0"
UNCLEAR: dict[str, tuple[Store, str]] = {
    "regions": (saved(lambda ids: ids), REGIONS),
    "0/2": (saved(lambda ids: (ids > 0).astype(np.uint8) * 2), REGIONS),
    "0/38": (saved(lambda ids: (ids > 0).astype(np.uint8) * 38), REGIONS),
    "regions in 16 bits": (saved(lambda ids: ids.astype(np.uint16)), REGIONS),
    "0/255 in 16 bits": (saved(lambda ids: (ids > 0).astype(np.uint16) * 255), REGIONS),
    "0/4095 in 16 bits": (saved(lambda ids: (ids > 0).astype(np.uint16) * 4095), REGIONS),
    "regions, 255 = border": (
        saved(lambda ids: np.where(ids == 2, 255, ids)),
        r"they hold 0, 1, 255: .*Name the rule: max>0",
    ),
    "palette": (palette, REGIONS),
    "hole in a photo": (coloured(lambda ids: (ids == 0) * 255), r"8 of 8 have transparent pixels.*a<128"),
    "shape over nothing": (coloured(lambda ids: (ids > 0) * 255), r"8 of 8 have transparent pixels.*a>127"),
    "hole in gray": (coloured(lambda ids: (ids == 0) * 255, mode="LA"), "8 of 8 have transparent pixels"),
    "empty": (saved(lambda ids: ids * 0), "all 8 are empty; .*max<128; else take the masks out"),
    "full": (saved(lambda ids: ids * 0 + 255), "all 8 are full; if that is right, name the rule: max, or all where"),
    "full of 1": (saved(lambda ids: ids * 0 + 1), "all 8 are full; if that is right, name the rule: max>0"),
    "empty or full": (
        saved(lambda ids: np.full_like(ids, 255 * int(ids.max() > 1))),
        r"all 8 are either empty \(4\) or full \(4\)",
    ),
}


def make(root: Path, store: Store, n: int = 16, **columns: str) -> Path:
    """Write a table of n images, each second one fake and with a mask."""
    lines = [",".join(["path", "label", "mask", *columns])]
    for i in range(n):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(root / f"{i}.png")
        if i % 2:
            store(regions(i // 2), root / f"m{i}.png")
        lines.append(",".join([f"{i}.png", str(i % 2), f"m{i}.png" if i % 2 else "", *columns.values()]))
    (root / "t.csv").write_text("\n".join(lines))
    return root / "t.csv"


@pytest.mark.parametrize("name", CLEAR)
def test_masks_that_can_be_read_in_one_way(name: str, tmp_path: Path) -> None:
    table = with_mask_rules(Table(str(make(tmp_path, CLEAR[name]))).load("train"), "here")
    for i in range(1, 16, 2):
        mask, rule = (table[column][i].as_py() for column in ("mask", "mask_rule"))
        area = load_mask(mask, rule, (SIDE, SIDE))
        assert area is not None
        wanted = regions(i // 2) > 0
        if name in ("JPEG", "soft"):
            assert ((area > 127) == wanted).mean() > 0.9
            assert len(np.unique(area)) > 2, "soft edges stay soft"
        else:
            assert np.array_equal(area, np.where(wanted, 255, 0))


@pytest.mark.parametrize("name", UNCLEAR)
def test_masks_that_cannot_end_a_run_before_it_starts(name: str, tmp_path: Path) -> None:
    store, said = UNCLEAR[name]
    source = Table(str(make(tmp_path, store)))
    with pytest.raises(UserError, match=rf"masks of train, Table\(.*: .*{said}") as raised:
        DataModule(source, size=SIDE).datasets("train")
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=f"masks of test/there: .*{said}"):
        DataModule(test={"there": source}, size=SIDE).datasets("test")
    DataModule(test={"there": source}, size=SIDE).datasets("predict")


@pytest.mark.parametrize("name", ["regions", "hole in a photo", "empty"])
def test_the_tools_say_it_too(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, said = UNCLEAR[name]
    file = str(make(tmp_path, store))
    with pytest.raises(UserError, match=f"masks of t: {said}"):
        pack([file], str(tmp_path / "packed"), workers=1, progress=False)
    assert not (tmp_path / "packed").exists()
    with pytest.raises(UserError, match=f"masks of t: {said}"):
        check([file], str(tmp_path / "out"), strict=True, workers=1, progress=False)
    capsys.readouterr()
    scan([file], str(tmp_path / "scan.parquet"), workers=1, progress=False)
    assert "masks of t: " in capsys.readouterr().out


def test_the_check_reads_masks_as_the_run_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check([str(make(tmp_path, CLEAR["0/1 in 16 bits"]))], str(tmp_path / "out"), workers=1, progress=False)
    assert "all 8 masks fit their images, and none is empty or full" in capsys.readouterr().out


def test_a_named_rule_is_taken(tmp_path: Path) -> None:
    file = make(tmp_path, UNCLEAR["regions"][0])
    for source in (
        Table(str(file), mask_rule="max>0"),
        Table(str(make(tmp_path, saved(lambda ids: ids), mask_rule="max>0"))),
    ):
        table = with_mask_rules(source.load("train"), "here")
        assert table["mask_rule"].to_pylist() == ["max>0"] * 16
        DataModule(source, size=SIDE).datasets("train")
    for rule, wanted in (("max>0", regions(1) > 0), ("max=2", regions(1) == 2), ("max<1", regions(1) == 0)):
        area = load_mask(f"{tmp_path}/m3.png", rule, (SIDE, SIDE))
        assert np.array_equal(area, np.where(wanted, 255, 0)), rule
    coloured(lambda ids: (ids == 0) * 255)(regions(1), tmp_path / "hole.png")
    assert np.array_equal(load_mask(f"{tmp_path}/hole.png", "a<128", (SIDE, SIDE)), np.where(regions(1), 255, 0))  # type: ignore[arg-type]
    with pytest.raises(DecodeError, match=r"m3.png: the mask has no alpha channel"):
        load_mask(f"{tmp_path}/m3.png", "a>127", (SIDE, SIDE))
    with pytest.raises(UserError, match="mask rule 'white'"):
        Table(str(file), mask_rule="white")


def test_the_words_beside_a_rule_stay(tmp_path: Path) -> None:
    CLEAR["0/1"](regions(1), tmp_path / "m.png")
    rows = [
        {"path": "a", "label": 1, "mask": f"{tmp_path}/m.png", "mask_rule": rule} for rule in ("", "resize", "r<128")
    ]
    rows += [{"path": "b", "label": 0}, {"path": "c", "label": 1, "mask": "polygon:0,0,3,0,3,3"}]
    table = with_mask_rules(to_table(rows), "here")
    assert table["mask_rule"].to_pylist() == ["max>0", "max>0,resize", "r<128", "", ""]
    box = with_mask_rules(to_table([{"path": "a", "label": 1, "mask": f"{tmp_path}/m.png#xywh=0,0,4,4"}]), "here")
    assert box["mask_rule"].to_pylist() == ["max>0"]


def test_faint_masks_in_a_soft_set_are_faint() -> None:
    assert rule_of(["255 0 .. 255", "255 0 .. 255", "255 0 3 17", "255 0"]) == ""
    assert rule_of(["lossy 0 .. 255", "lossy 0 1 2 3"]) == "", "noise of an empty JPEG"
    with pytest.raises(UserError, match="numbers of regions"):
        rule_of(["255 0 255", "255 0 255", "255 0 1"])
    with pytest.raises(UserError, match="numbers of regions"):
        rule_of(["255 0 .. 255", "255 0 .. 255", "255 0 1"])
    assert rule_of(["255 255"]) == "", "one mask may be full"
    assert rule_of([]) == ""
