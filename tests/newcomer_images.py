"""The twenty images of ``tests/newcomer.sh``, as people have them: ``make SET MIXED``, and a set to learn.

``check SCORES.csv`` looks whether each image that can be read has a score, ``same A.csv B.csv`` whether scores agree.
"""

import csv
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image

#: Names of those that nothing can read.
UNREADABLE = {"photo.heic", "text.jpg", "empty.png", "cut.jpg"}


def noise(seed: int, *shape: int) -> np.ndarray:
    """Return noise, uint8."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def make(train: Path, mixed: Path) -> None:
    """Write 40 plain images in ``real`` and ``fake``, and 20 odd ones."""
    for i in range(40):
        file = train / ("fake" if i % 2 else "real") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(i, 64, 64, 3) // (1 + i % 2)).save(file)
    mixed.mkdir()
    plain, many = Image.fromarray(noise(1, 300, 400, 3)), [Image.fromarray(noise(i, 80, 80, 3)) for i in range(3)]
    for name in ("plain.png", "plain.jpg", "plain.bmp", "plain.tif", "plain.webp", "with space é.jpg"):
        plain.save(mixed / name)
    plain.save(mixed / "progressive.jpg", progressive=True, quality=70)
    plain.convert("CMYK").save(mixed / "cmyk.jpg")
    plain.convert("L").save(mixed / "gray.png")
    plain.convert("RGBA").save(mixed / "alpha.png")
    plain.convert("P").save(mixed / "palette.png")
    Image.fromarray(noise(2, 100, 100).astype(np.uint16) * 257).save(mixed / "16bit.png")
    for name in ("moving.gif", "moving.webp"):
        many[0].save(mixed / name, save_all=True, append_images=many[1:])
    Image.fromarray(noise(3, 1, 1, 3)).save(mixed / "tiny.png")
    Image.fromarray(np.tile(noise(4, 60, 80, 3), (100, 100, 1))).save(mixed / "huge.jpg", quality=50)  # 48 megapixels
    (mixed / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(400))
    (mixed / "text.jpg").write_text("no picture")
    (mixed / "empty.png").touch()
    (mixed / "cut.jpg").write_bytes((mixed / "plain.jpg").read_bytes()[:600])
    assert len(list(mixed.iterdir())) == 20


def scores(file: str) -> dict[str, float]:
    """Return the score of each image in a table, by the name of its file."""
    with open(file, encoding="utf-8") as lines:
        return {Path(row["path"]).name: float(row["score"]) for row in csv.DictReader(lines)}


def check(file: str) -> None:
    """Compare a table of scores with what could be read.

    Raises:
        AssertionError: For an image without a score, a score without an image, or scores that are all alike.
    """
    rows = scores(file)
    assert len(rows) == 20 - len(UNREADABLE), sorted(rows)
    assert UNREADABLE.isdisjoint(rows)
    assert all(math.isfinite(score) and 0 <= score <= 1 for score in rows.values())
    assert max(rows.values()) - min(rows.values()) > 0.05, "scores that hardly differ agree with anything"


def same(file: str, other: str) -> None:
    """Compare two tables.

    Raises:
        AssertionError: Where scores differ by more than 1e-4.
    """
    one, two = scores(file), scores(other)
    assert one.keys() == two.keys()
    most = max(abs(one[name] - two[name]) for name in one)
    print(f"{other}: {len(one)} scores, none further than {most:.1e} from {file}")
    assert most <= 1e-4


if __name__ == "__main__":
    what, *files = sys.argv[1:]
    {"make": lambda *f: make(*map(Path, f)), "check": check, "same": same}[what](*files)
