"""Files of predictions: whole, the same bytes each time, found by their key and never mistaken for another one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dfl.benchmark import store
from dfl.benchmark.entries import Entry, Images, of_others, of_store
from dfl.data import Table
from dfl.data.rows import Rows
from dfl.errors import UserError

FACTS = {"method": "m", "seed": 0, "domain": "d", "variant": "stored", "role": "cross", "threshold": 0.5}


def table(n: int = 4, **columns: list[object]) -> pa.Table:
    names = {name: [""] * n for name in ("video", "group", "generator", "source")}
    plain = {
        "path": [f"{i}.png" for i in range(n)],
        "label": [i % 2 for i in range(n)],
        "score": [i / n for i in range(n)],
    }
    return pa.table({**plain, **names, **columns})


def entry(folder: Path, name: str, columns: pa.Table) -> Entry:
    file = store.place(folder, name, 0, "d", "stored", f"{name:0<16}")
    store.write(file, columns, FACTS | {"method": name})
    return of_store(file)


def test_the_same_work_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for file in files:
        store.write(file, table(), FACTS)
    assert files[0].read_bytes() == files[1].read_bytes()
    one = store.Predictions(files[0])
    assert one.facts == FACTS
    assert one.column("score").to_pylist() == pytest.approx([0, 0.25, 0.5, 0.75])


def test_scores_of_the_same_key_are_found_under_another_name(tmp_path: Path) -> None:
    old, new = (store.place(tmp_path, method, 0, "d", "stored", "0123456789abcdef") for method in ("old", "new"))
    assert not store.find(new, FACTS)
    store.write(old, table(), FACTS | {"method": "old", "listed": 4})
    assert store.find(new, FACTS | {"method": "new"})
    assert store.Predictions(new).facts == FACTS | {"method": "new", "listed": 4}
    other = store.place(tmp_path, "new", 0, "d", "stored", "fedcba9876543210")
    assert not store.find(other, FACTS)


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    file = store.place(tmp_path, "m", 0, "d", "stored", "0123456789abcdef")
    store.write(file, table(), FACTS)
    file.write_bytes(file.read_bytes()[:-30])
    assert not store.find(file, FACTS)
    with pytest.raises(UserError, match="cannot read the predictions"):
        store.Predictions(file)


def test_a_changed_image_or_label_is_other_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")

    def digest(labels: str = "0101", group: str = "a") -> str:
        lines = [f"{i}.png,{y},test,{group}" for i, y in enumerate(labels)]
        (tmp_path / "t.csv").write_text("\n".join(["path,label,split,group", *lines]))
        rows = Table(str(tmp_path / "t.csv")).load("test")
        return store.data_hash(rows, Rows.of(rows).sha256())

    first = digest()
    assert digest() == first
    assert len({first, digest("0110"), digest(group="b")}) == 3
    Image.new("RGB", (8, 8)).save(tmp_path / "2.png")
    assert digest() != first


def test_methods_must_have_the_same_images(tmp_path: Path) -> None:
    first = entry(tmp_path, "a", table())
    moved = entry(tmp_path, "b", table().take(pa.array([3, 1, 0, 2])))
    both = Images([first, moved])
    assert both.score(moved).tolist() == both.score(first).tolist()
    with pytest.raises(
        UserError, match=r"b/0 on d \(stored\) has 3 images, and a/0 .* has 4: it has no score of 3.png"
    ):
        Images([first, entry(tmp_path, "b", table().slice(0, 3))])
    with pytest.raises(UserError, match="0.png has label 1, and 0"):
        Images([first, entry(tmp_path, "b", table(label=[1, 1, 0, 0]))])


def test_scores_of_others_stand_beside_them(tmp_path: Path) -> None:
    lines = ["path,label,score,dataset,detector", *(f"{i}.png,{i % 2},{i / 4},d,theirs" for i in range(4))]
    (tmp_path / "theirs.csv").write_text("\n".join(lines))
    (theirs,) = of_others(tmp_path / "theirs.csv")
    assert (theirs.method, theirs.domain, theirs.role) == ("theirs", "d", "cross")
    images = Images([entry(tmp_path, "ours", table()), theirs])
    assert images.score(theirs).tolist() == [0, 0.25, 0.5, 0.75]
