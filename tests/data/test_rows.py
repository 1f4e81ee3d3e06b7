"""Rows as a memory-mapped file: the same rows, in every process, and hashes and checks without looking at each."""

import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forking import importing
from torch.utils.data import DataLoader

from dfl.data import Folder, ImageDataset, Table, Transform
from dfl.data.batch import collate
from dfl.data.dataset import extend_vocab
from dfl.data.locators import all_below, any_odd, below, shared_paths
from dfl.data.rows import MAX_AGE_DAYS, Rows
from dfl.data.sources import ROW_SCHEMA, to_table
from dfl.errors import UserError
from tests.data.sources.layouts import refuses


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importing()  # its socket stays where names are short
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def some(n: int = 300, root: str = "/data", **more: Any) -> pa.Table:
    rows = (
        {
            "path": f"{root}/{i % 2}/ä{i}.png",
            "label": i % 2,
            "generator": f"g{i % 7}" if i % 2 else "",
            "video": f"v{i // 2}",
            "frame": i % 2,
            "caption": "a 'b'" * (i % 3),
            **more,
        }
        for i in range(n)
    )
    return to_table(rows)


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_file_holds_the_same_rows(pieces: int) -> None:
    table = pa.concat_tables([some(root=f"/{i}") for i in range(pieces)])
    rows = Rows.of(table)
    assert rows.table.cast(ROW_SCHEMA).equals(table.combine_chunks())
    assert len(rows) == 300 * pieces
    assert rows.label.dtype == np.int8
    assert rows.label.tolist() == table["label"].to_pylist()
    for name in ("generator", "video", "group"):
        names = rows.names(name)
        assert [names[code] for code in rows.codes(name)] == table[name].to_pylist()
    assert rows.codes("generator").dtype == np.int8
    assert rows.codes("video").dtype == np.int16
    before = rows.file.stat().st_ino
    assert Rows.of(table).file == rows.file
    assert rows.file.stat().st_ino == before, "not written again"


def test_a_process_maps_the_file_by_name() -> None:
    rows = Rows.of(some(20_000))
    data = ImageDataset(rows, Transform().eval(32), 32, {"video": {"v3": 5}})
    packed = pickle.dumps(data.rows)
    assert len(packed) < 500
    assert pickle.loads(packed).table.equals(rows.table)
    again = pickle.loads(pickle.dumps(data))
    assert [again.id("video", i) for i in (5, 6, 7, 8)] == [-1, 5, 5, -1]
    rows.file.unlink()
    assert pickle.loads(pickle.dumps(rows)).table.equals(rows.table), "written again"


@pytest.mark.parametrize("how", ["fork", "forkserver"])
def test_workers_see_what_the_parent_sees(faces: Path, how: str) -> None:
    table = Folder(str(faces)).load("train")
    vocab: dict[str, dict[str, int]] = {}
    extend_vocab(vocab, [Rows.of(table)])
    data = ImageDataset(table, Transform().eval(32), 32, vocab)
    loader: Any = DataLoader(data, 30, num_workers=1, collate_fn=collate, multiprocessing_context=how)
    seen = [path for batch in loader for path in batch["path"]]
    assert seen == table["path"].to_pylist()


def test_files_that_nobody_uses_are_removed() -> None:
    old, new = Rows.of(some(3)), Rows.of(some(4))
    long_ago = time.time() - 86400 * (MAX_AGE_DAYS + 1)
    for rows in (old, new):
        os.utime(rows.file, (long_ago, long_ago))
    pickle.dumps(new)
    Rows.of(some(5))
    assert (old.file.exists(), new.file.exists()) == (False, True)
    assert old.text("path", 2) == "/data/0/ä2.png", "who has mapped it keeps it"


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    folder = Rows.of(some(3)).file.parent
    folder.chmod(0o777)
    with pytest.raises(UserError, match="can be written by others"):
        Rows.of(some(3))


def test_a_link_in_a_shared_folder_is_not_followed(tmp_path: Path) -> None:
    folder = Rows.of(some(3)).file.parent
    folder.rename(tmp_path / "home")
    long_ago = time.time() - 86400 * (MAX_AGE_DAYS + 1)
    for name in ("diary.txt", "0123.arrow"):
        (tmp_path / "home" / name).write_text("precious")
        os.utime(tmp_path / "home" / name, (long_ago, long_ago))
    folder.symlink_to(tmp_path / "home")
    with pytest.raises(UserError, match="is not a folder of yours: remove it, or set TMPDIR"):
        Rows.of(some(4))
    folder.unlink()
    (tmp_path / "home").rename(folder)
    folder.chmod(0o755)
    Rows.of(some(5))
    assert (folder / "diary.txt").exists(), "only names that we give are removed"
    assert (folder / "0123.arrow").exists()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_file_that_is_a_link_is_neither_read_nor_written(tmp_path: Path) -> None:
    rows = Rows.of(some(3))
    (tmp_path / "victim").write_bytes(rows.file.read_bytes()[:-8] + b"precious")
    rows.file.unlink()
    rows.file.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        Rows(rows.file)
    again = Rows.of(some(3))
    assert again.table.equals(rows.table)
    assert not again.file.is_symlink()
    assert (tmp_path / "victim").read_bytes().endswith(b"precious")


def test_a_damaged_file_is_written_again() -> None:
    rows = Rows.of(some(40))
    good, whole = rows.file.read_bytes(), rows.table.to_pylist()
    offsets = rows.table["path"].chunk(0).buffers()[1].to_pybytes()
    at = good.index(offsets[4:44]) + 4
    rows.file.unlink()  # what is mapped must not be changed
    rows.file.write_bytes(good[:at] + b"\xff\xff\xff\x7f" + good[at + 4 :])
    assert Rows.of(some(40)).table.to_pylist() == whole
    assert rows.file.read_bytes() == good


def test_the_hash_is_of_the_list_below_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(table: pa.Table) -> str:
        return Rows.of(table).sha256()

    first = told(some())
    assert told(some(root="/elsewhere/ö")) == first
    assert told(pa.concat_tables([some().slice(0, 7), some().slice(7)])) == first
    assert told(some(299)) != first
    assert told(some().slice(1)) != first
    assert told(some(label=1)) != first
    assert told(some(caption="x")) == first
    monkeypatch.chdir("/")
    for root in ("data", "./data", "/x/../data", "/data/.", "//data"):
        assert told(some(root=root)) == first, root
    one = [told(to_table([{"path": path, "label": 0}])) for path in ("/a/b.png", "/c/b.png", "/c/d.png")]
    assert one[0] == one[1] != one[2]
    wide = some(root="data").cast(
        pa.schema([(f.name, pa.large_string() if f.name == "path" else f.type) for f in ROW_SCHEMA])
    )
    assert told(wide) == first
    # the common folder is that of all, whatever stands at the ends
    far = [{"path": path, "label": 0} for path in ("/a/b/1.png", "/a/c/2.png", "/a/b/3.png")]
    near = [{"path": path.removeprefix("/a"), "label": 0} for path in ("/a/b/1.png", "/a/c/2.png", "/a/b/3.png")]
    assert told(to_table(far)) == told(to_table(near))


def test_repeated_and_shared_paths() -> None:
    long = [some(n, root=f"/data/of some length/{n}") for n in (40, 50)]
    column = pa.concat_tables([*long, some(2), long[0].slice(3, 5)])["path"]
    for table in (long[0], long[0].slice(7), long[1], some(2), some(2).slice(1)):
        assert shared_paths(column, table["path"]) == sorted(table["path"].to_pylist())
    assert shared_paths(long[0]["path"], long[1]["path"].slice(9)) == []
    twice = Rows.of(pa.concat_tables([some(5), some(2), some(1, root="/other")]))
    assert sorted(twice.repeated()) == ["/data/0/ä0.png", "/data/1/ä1.png"]
    assert shared_paths(twice.table["path"], some(9).slice(4)["path"]) == ["/data/0/ä4.png"]
    assert shared_paths(some(3)["path"], some(3, root="/b")["path"]) == []


PATHS = ["", "a.png", ".", "..", "./a", "../a", "a/", "a//b", "a/./b", "a/../b", "/x", "//x", "/x/.h/y", "a.", ".h"]
PATHS += ["a/.", "/", "...", "a/...", "b/..c", "ä/ö.png"]
PATHS += ["polygon:1,2", "a.parquet#column=image&row=3"]


@pytest.mark.parametrize("root", ["/r/s", "r", ".", "/", "../r"])
def test_many_locators_are_joined_as_one_is(root: str) -> None:
    whole = [below(Path(root), path) for path in PATHS]
    assert all_below(Path(root), pa.chunked_array([PATHS[:5], PATHS[5:]])).to_pylist() == whole
    for path, expected in zip(PATHS, whole, strict=True):
        assert all_below(Path(root), pa.chunked_array([[path]])).to_pylist() == [expected]
        if path and not any_odd(pa.array([path])):
            assert os.path.abspath(path) == (path if path.startswith("/") else f"{os.getcwd()}/{path}")


def test_a_table_is_read_by_type_and_by_split(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "image_path": pa.array(["a.png", "/b.png", "c//d.png", "e.png"]),
        "label": pa.array([1.0, 0.0, 0.0, 1.0]),
        "subset": pa.array(["Training", "valid", None, "train"]).dictionary_encode(),
        "identity": pa.array([7.0, None, 2.5, 8.0]),
        "video": pa.array([1, 2, None, 4]),
        "frame": pa.array(["3", "4", "5", None]),
        "group": pa.array([True, False, None, True]),
        "unknown": pa.array([[1], [2], [3], [4]]),
    }
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), file, row_group_size=2)
    source = Table(str(file), root="/r")
    train, val = source.load("train"), source.load("val")
    assert train.select(["path", "label", "class_label", "identity", "video", "frame", "group"]).to_pylist() == [
        {"path": "/r/a.png", "label": 1, "class_label": 1, "identity": "7", "video": "1", "frame": 3, "group": "1"},
        {"path": "/r/e.png", "label": 1, "class_label": 1, "identity": "8", "video": "4", "frame": -1, "group": "1"},
    ]
    assert val.schema == ROW_SCHEMA
    assert val["split"].to_pylist() == ["val"]
    whole = Table(str(file), root="/r", columns={"split": "video"})
    refuses(whole, "train", "unknown split '1'")
    refuses(Table(str(file), columns={"frame": "image_path"}), "train", "'frame' must hold whole numbers")


def test_a_table_that_changes_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("path,label\na,0\nb,1\n")
    source = Table(str(file))
    assert len(source.load("train")) == 2
    file.write_text("path,label\na,0\nb,1\nccc,1\n")
    assert len(source.load("train")) == 3
