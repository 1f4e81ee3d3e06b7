"""Files of predictions: whole, the same bytes each time, found by their key and never mistaken for another one."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dfl.benchmark import store
from dfl.benchmark.entries import Entry, Images, of_others, of_store
from dfl.data import Table
from dfl.data.rows import Rows
from dfl.data.sources import Degraded
from dfl.errors import UserError

FACTS = {"method": "m", "seed": 0, "domain": "d", "variant": "stored", "role": "cross", "threshold": 0.5}


def table(n: int = 4, **columns: list[object]) -> pa.Table:
    names = {name: [""] * n for name in ("video", "group", "generator", "source")}
    plain = {
        "path": [f"{i}.png" for i in range(n)],
        "label": [i % 2 for i in range(n)],
        "score": [i / n for i in range(n)],
        "logit": [math.log(i / (n - i)) if i else -math.inf for i in range(n)],
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


def test_a_file_of_a_version_that_wrote_less_is_computed_again(tmp_path: Path) -> None:
    file = store.place(tmp_path, "m", 0, "d", "stored", "0123456789abcdef")
    store.write(file, table(), FACTS)
    assert store.find(file, FACTS)
    old = pq.read_table(file)
    pq.write_table(old.drop_columns(["logit"]).replace_schema_metadata(old.schema.metadata), file)
    assert not store.find(file, FACTS)
    one = of_store(file)  # and can still be reported
    assert Images([one]).rank(one).tolist() == [0, 0.25, 0.5, 0.75]


def test_the_domain_is_a_column_and_old_files_without_it_are_good(tmp_path: Path) -> None:
    file = store.place(tmp_path, "m", 0, "d", "stored", "0123456789abcdef")
    store.write(file, table(), FACTS)
    old = pq.read_table(file)
    assert old["domain"].type == pa.dictionary(pa.int32(), pa.string())
    assert old["domain"].to_pylist() == ["d"] * 4
    pq.write_table(old.drop_columns(["domain"]).replace_schema_metadata(old.schema.metadata), file)
    assert Images([of_store(file)]).label.tolist() == [0, 1, 0, 1]  # it can be reported as it is
    assert store.find(file, FACTS)  # and is not computed again
    moved = store.place(tmp_path, "m", 0, "e", "stored", "0123456789abcdef")
    assert store.find(moved, FACTS | {"domain": "e"})
    assert store.Predictions(moved).column("domain").to_pylist() == ["e"] * 4
    (one,) = of_others(moved)
    assert one.domain == "e"


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    file = store.place(tmp_path, "m", 0, "d", "stored", "0123456789abcdef")
    store.write(file, table(), FACTS)
    file.write_bytes(file.read_bytes()[:-30])
    assert not store.find(file, FACTS)
    with pytest.raises(UserError, match="cannot read the predictions"):
        store.Predictions(file)


def test_a_damaged_body_is_computed_again(tmp_path: Path) -> None:
    file = store.place(tmp_path, "m", 0, "d", "stored", "0123456789abcdef")
    rng = np.random.default_rng(0)
    store.write(file, table(2000, score=rng.random(2000).tolist()), FACTS)
    content = bytearray(file.read_bytes())
    at = content.find(b"PAR1", 4)
    content[at // 2 - 400 : at // 2] = bytes(400)
    file.write_bytes(content)
    assert store.Predictions(file).facts == FACTS  # the foot is whole
    assert not store.find(file, FACTS)


def test_a_degradation_or_another_mask_is_other_data(tmp_path: Path) -> None:
    for folder, size in (("masks", 4), ("other", 8)):
        (tmp_path / folder).mkdir()
        Image.new("L", (size, size), 255).save(tmp_path / folder / "1.png")
    for i in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")

    def rows(folder: str = "masks") -> Table:
        lines = ["0.png,0,test,", f"1.png,1,test,{folder}/1.png"]
        (tmp_path / f"{folder}.csv").write_text("\n".join(["path,label,split,mask", *lines]))
        return Table(str(tmp_path / f"{folder}.csv"))

    tables = [source.load("test") for source in (rows(), rows("other"), Degraded(rows(), "jpeg_30"))]
    tables.append(Degraded(rows(), "jpeg_50").load("test"))
    assert len({store.data_hash(one, Rows.of(one).sha256()) for one in tables}) == 4


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


def test_what_others_know_less_of_is_taken_from_ours(tmp_path: Path) -> None:
    ours = entry(tmp_path, "ours", table(video=["a", "b", "a", "b"], generator=["", "gan", "", "gan"]))
    ours.scored.facts["data"] = "0" * 32
    theirs = entry(tmp_path, "theirs", table().take(pa.array([2, 3, 0, 1])))
    for entries in ([ours, theirs], [theirs, ours]):
        images = Images(entries)
        assert images.unit.to_pylist() == ["a", "b", "a", "b"]
        assert images.text("generator").tolist() == ["", "gan", "", "gan"]
        assert images.score(theirs).tolist() == images.score(ours).tolist()


def test_a_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PART", 3)
    columns = table(8, video=["b", "a", "b", "", "a", "b", "b", "c"], source=["", "", "", "s", "", "", "", ""])
    ours = entry(tmp_path, "ours", columns)
    assert [len(part) for part in ours.scored.parts("path")] == [3, 3, 2]
    turned = columns.take(pa.array(range(7, -1, -1)))
    images = Images([ours, entry(tmp_path, "same", columns), entry(tmp_path, "turned", turned)])
    assert images.unit.to_pylist() == ["b", "a", "b", "s", "a", "b", "b", "c"]
    assert images.video.tolist() == [2, 1, 2, -1, 1, 2, 2, 3]
    assert images.text("video").tolist() == columns["video"].to_pylist()
    assert images.paths(np.array([7, 0, 3])) == ["7.png", "0.png", "3.png"]
    assert images.score(images.entries[2]).tolist() == images.score(ours).tolist()


def test_rows_that_are_left_out_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["label,score,threshold,detector", "0,0.1,0.4,a", "1,,0.4,a", "1,0.9,0.4,a", "0,0.2,0.6,b", "1,0.8,0.6,b"]
    (tmp_path / "both.csv").write_text("\n".join(lines))
    a, b = of_others(tmp_path / "both.csv")
    assert "1 rows are left out: no score" in capsys.readouterr().out
    assert [(one.method, one.threshold) for one in (a, b)] == [("a", 0.4), ("b", 0.6)]
    assert Images([a, b]).path.to_pylist() == ["row 1", "row 2"]
